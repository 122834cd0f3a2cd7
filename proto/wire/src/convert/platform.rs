//! `Platform` (REAPI, message of that name).

use regatta_model::Platform;

use crate::reapi;

impl From<&reapi::Platform> for Platform {
    /// Takes the properties in any order; one that is there twice counts once.
    fn from(message: &reapi::Platform) -> Self {
        Self::new(
            message
                .properties
                .iter()
                .map(|property| (property.name.as_str(), property.value.as_str())),
        )
    }
}

impl From<&Platform> for reapi::Platform {
    /// In the canonical order: sorted by name, then by value.
    fn from(platform: &Platform) -> Self {
        let properties = platform
            .iter()
            .map(|(name, value)| reapi::platform::Property {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        Self { properties }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(properties: &[(&str, &str)]) -> reapi::Platform {
        let properties = properties
            .iter()
            .map(|&(name, value)| reapi::platform::Property {
                name: name.to_owned(),
                value: value.to_owned(),
            })
            .collect();
        reapi::Platform { properties }
    }

    #[test]
    fn properties_come_back_in_canonical_order() {
        let sent = message(&[
            ("os", "linux"),
            ("cpu", "x2"),
            ("cpu", "x1"),
            ("os", "linux"),
        ]);
        let canonical = message(&[("cpu", "x1"), ("cpu", "x2"), ("os", "linux")]);
        assert_eq!(reapi::Platform::from(&Platform::from(&sent)), canonical);
    }
}
