//! What a task needs and what an agent offers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Properties by name, as in REAPI's `Platform`. In an offer a name may have several values; in a
/// requirement each name has one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Platform {
    properties: BTreeMap<String, BTreeSet<String>>,
}

/// A requirement that an offer does not meet.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct UnmetRequirement {
    /// The property's name.
    pub name: String,
    /// The value required.
    pub required: String,
    /// The values offered; none if the property is unknown to the agent.
    pub offered: Vec<String>,
}

impl Platform {
    /// A platform of the given names and values.
    pub fn new<Name: Into<String>, Value: Into<String>>(
        properties: impl IntoIterator<Item = (Name, Value)>,
    ) -> Self {
        let mut platform = Self::default();
        for (name, value) in properties {
            platform.insert(name, value);
        }
        platform
    }

    /// Adds a value of a property.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.properties
            .entry(name.into())
            .or_default()
            .insert(value.into());
    }

    /// Every name with every value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().flat_map(|(name, values)| {
            values
                .iter()
                .map(move |value| (name.as_str(), value.as_str()))
        })
    }

    /// The first value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name)?.first().map(String::as_str)
    }

    /// Takes a property out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.properties.remove(name)?.pop_first()
    }

    /// Every requirement that `offer` does not meet, in order; none if it meets them all.
    #[must_use]
    pub fn unmet_by(&self, offer: &Self) -> Vec<UnmetRequirement> {
        let offered = |name: &str| offer.properties.get(name);
        self.iter()
            .filter(|(name, value)| !offered(name).is_some_and(|values| values.contains(*value)))
            .map(|(name, value)| UnmetRequirement {
                name: name.to_owned(),
                required: value.to_owned(),
                offered: offered(name)
                    .map(|values| values.iter().cloned().collect())
                    .unwrap_or_default(),
            })
            .collect()
    }
}

impl fmt::Display for UnmetRequirement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.offered.is_empty() {
            return write!(formatter, "{}={} (not offered)", self.name, self.required);
        }
        write!(
            formatter,
            "{}={} (offered: {})",
            self.name,
            self.required,
            self.offered.join(", ")
        )
    }
}

/// An amount of what a machine has to give.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

impl Resources {
    /// Whether `self` can be taken out of `free`.
    #[must_use]
    pub const fn fits_in(&self, free: &Self) -> bool {
        self.cpu_milli <= free.cpu_milli && self.memory_bytes <= free.memory_bytes
    }

    /// Both amounts together, at most the greatest number there is.
    #[must_use]
    pub const fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
        }
    }

    /// What is left of `self` after `other` is taken, at least nothing.
    #[must_use]
    pub const fn minus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_of_several_values_meets_any_of_them() {
        let offer = Platform::new([("Arch", "amd64"), ("Arch", "x86_64"), ("OSFamily", "linux")]);
        assert_eq!(Platform::new([("Arch", "x86_64")]).unmet_by(&offer), []);
        let unmet = Platform::new([("Arch", "arm64"), ("gpu", "1")]).unmet_by(&offer);
        let text: Vec<_> = unmet.iter().map(ToString::to_string).collect();
        assert_eq!(
            text,
            ["Arch=arm64 (offered: amd64, x86_64)", "gpu=1 (not offered)"]
        );
    }

    #[test]
    fn resources_never_wrap() {
        let small = Resources {
            cpu_milli: 1,
            memory_bytes: 1,
        };
        let large = Resources {
            cpu_milli: u64::MAX,
            memory_bytes: u64::MAX,
        };
        assert_eq!(small.minus(&large), Resources::default());
        assert_eq!(small.plus(&large), large);
        assert!(small.fits_in(&large) && !large.fits_in(&small));
    }
}
