//! What platform properties mean.

use std::str::FromStr as _;

use regatta_model::{ImageReference, Isolation, Platform, Resources};
use regatta_wire::{reapi, v1};

use super::PlanDefaults;
use super::quantity::{parse_cpu_milli, parse_memory_bytes};

/// The image to run in; `docker://` before it is what Bazel's rules write.
const IMAGE: &str = "container-image";
const IMAGE_SCHEME: &str = "docker://";
const ISOLATION: &str = "isolation";
/// Two names for one thing: ours, and the one that Bazel's rules know.
const NETWORKS: [&str; 2] = ["network", "dockerNetwork"];
const CPU: &str = "cpu";
const MEMORY: &str = "memory";
/// Its values are lower-case (REAPI, platform lexicon), but many clients write `Linux`.
const OS_FAMILY: &str = "OSFamily";

/// How an action wants to run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunSettings {
    /// In which image; `None` leaves it to the agent.
    pub image: Option<ImageReference>,
    /// How widely its container may be shared.
    pub isolation: Isolation,
    /// Whether it sees more network than loopback.
    pub network: bool,
    /// How much it uses.
    pub resources: Resources,
    /// What an agent must offer.
    pub requirements: Platform,
}

/// A platform property that cannot be understood. Fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPropertyError {
    /// The value means nothing.
    #[error("platform property {name}: {detail}")]
    Value {
        /// The property's name.
        name: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// The property has several values and can have one.
    #[error("platform property {name} is given as `{first}` and as `{second}`")]
    Ambiguous {
        /// The property's name.
        name: &'static str,
        /// One value.
        first: String,
        /// Another value.
        second: String,
    },
}

impl InvalidPropertyError {
    /// The property's name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Value { name, .. } | Self::Ambiguous { name, .. } => name,
        }
    }

    fn value(name: &'static str, detail: impl ToString) -> Self {
        Self::Value {
            name,
            detail: detail.to_string(),
        }
    }
}

/// What a platform asks for, with defaults where it does not.
///
/// # Errors
/// [`InvalidPropertyError`] names the property.
pub fn settings_of(
    platform: Option<&reapi::Platform>,
    defaults: &PlanDefaults,
) -> Result<RunSettings, InvalidPropertyError> {
    let mut rest = platform.map(Platform::from).unwrap_or_default();
    let image = match take(&mut rest, IMAGE)? {
        Some(text) => parse_image(&text)?,
        None => defaults.image.clone(),
    };
    let isolation = take(&mut rest, ISOLATION)?
        .map(|text| Isolation::from_str(&text))
        .transpose()
        .map_err(|error| InvalidPropertyError::value(ISOLATION, error))?
        .unwrap_or_default();
    let network = take_network(&mut rest)?;
    let mut resources = defaults.resources;
    if let Some(text) = take(&mut rest, CPU)? {
        resources.cpu_milli =
            parse_cpu_milli(&text).map_err(|error| InvalidPropertyError::value(CPU, error))?;
    }
    if let Some(text) = take(&mut rest, MEMORY)? {
        resources.memory_bytes = parse_memory_bytes(&text)
            .map_err(|error| InvalidPropertyError::value(MEMORY, error))?;
    }
    Ok(RunSettings {
        image,
        isolation,
        network,
        resources,
        requirements: in_lexicon(rest),
    })
}

/// The wire's word for an isolation.
pub(super) const fn isolation_to_wire(isolation: Isolation) -> v1::Isolation {
    match isolation {
        Isolation::Run => v1::Isolation::Run,
        Isolation::Fresh => v1::Isolation::Fresh,
    }
}

/// Takes out a property that can have one value.
fn take(
    platform: &mut Platform,
    name: &'static str,
) -> Result<Option<String>, InvalidPropertyError> {
    let values = platform.iter().filter(|(found, _)| *found == name);
    if let [first, second, ..] = values.map(|(_, value)| value).collect::<Vec<_>>()[..] {
        let (first, second) = (first.to_owned(), second.to_owned());
        return Err(InvalidPropertyError::Ambiguous {
            name,
            first,
            second,
        });
    }
    Ok(platform.remove(name))
}

/// An image; an empty text or `none` asks for no image at all.
fn parse_image(text: &str) -> Result<Option<ImageReference>, InvalidPropertyError> {
    match text.strip_prefix(IMAGE_SCHEME).unwrap_or(text) {
        "" | "none" => Ok(None),
        name if name.contains(char::is_whitespace) => Err(InvalidPropertyError::value(
            IMAGE,
            format!("`{name}` is no image reference"),
        )),
        name => name
            .parse()
            .map(Some)
            .map_err(|error| InvalidPropertyError::value(IMAGE, error)),
    }
}

fn take_network(platform: &mut Platform) -> Result<bool, InvalidPropertyError> {
    let mut known: Option<(bool, String)> = None;
    for name in NETWORKS {
        let Some(text) = take(platform, name)? else {
            continue;
        };
        let wanted = parse_network(name, &text)?;
        match &known {
            Some((other, first)) if *other != wanted => {
                let first = first.clone();
                return Err(InvalidPropertyError::Ambiguous {
                    name,
                    first,
                    second: text,
                });
            }
            Some(_) | None => known = Some((wanted, text)),
        }
    }
    Ok(known.is_some_and(|(wanted, _)| wanted))
}

fn parse_network(name: &'static str, text: &str) -> Result<bool, InvalidPropertyError> {
    match text.to_ascii_lowercase().as_str() {
        "off" | "none" | "false" => Ok(false),
        "on" | "standard" | "bridge" | "true" => Ok(true),
        _ => Err(InvalidPropertyError::value(
            name,
            format!("`{text}` is neither `off` nor `on`"),
        )),
    }
}

fn in_lexicon(rest: Platform) -> Platform {
    Platform::new(rest.iter().map(|(name, value)| match name {
        OS_FAMILY => (name, value.to_ascii_lowercase()),
        _ => (name, value.to_owned()),
    }))
}
