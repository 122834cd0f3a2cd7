//! What platform properties mean.

use std::str::FromStr as _;

use regatta_model::{ImageReference, Isolation, Platform, Resources};
use regatta_wire::v1;

use super::PlanDefaults;
use super::quantity::{parse_cpu_milli, parse_memory_bytes};

/// The image to run in; `docker://` before it is what Bazel's rules write.
const IMAGE: &str = "container-image";
const IMAGE_SCHEME: &str = "docker://";
const ISOLATION: &str = "isolation";
/// Two names for one thing: ours, and the one that Bazel's rules know.
const NETWORKS: [&str; 2] = ["network", "dockerNetwork"];
/// Asks for the input root as the root directory; and what siso writes for it, with `.`.
const CHROOT: &str = "chroot-input-root";
const CHROOT_PATH: &str = "dockerChrootPath";
const CPU: &str = "cpu";
const MEMORY: &str = "memory";
/// Where the input root is to be seen: siso's name for it.
const MOUNT_PATH: &str = "InputRootAbsolutePath";
/// Advice to other servers about how they keep their containers, and labels for people: they change nothing
/// about what an action sees.
const IGNORED: [&str; 1] = ["dockerReuse"];
const IGNORED_PREFIX: &str = "label:";
/// Asking for no privileges asks for nothing.
const PRIVILEGED: &str = "dockerPrivileged";
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
    /// Where its input root is mounted; `None` leaves it to the agent.
    pub mount_path: Option<String>,
    /// Whether its input root is its root directory.
    pub chroot: bool,
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

/// What a platform asks for (`rest`, until everything known is taken out), with defaults where it does not.
///
/// # Errors
/// [`InvalidPropertyError`] names the property.
pub fn settings_of(
    mut rest: Platform,
    defaults: &PlanDefaults,
) -> Result<RunSettings, InvalidPropertyError> {
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
    let mount_path = take_mount_path(&mut rest)?;
    let chroot = take_chroot(&mut rest)?;
    if chroot {
        // Not every agent can do that.
        rest.insert(CHROOT, "true");
    }
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
        mount_path,
        chroot,
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

fn take_chroot(rest: &mut Platform) -> Result<bool, InvalidPropertyError> {
    let wanted = match take(rest, CHROOT)?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(text) => {
            let detail = format!("`{text}` is neither `true` nor `false`");
            return Err(InvalidPropertyError::value(CHROOT, detail));
        }
    };
    match take(rest, CHROOT_PATH)?.as_deref() {
        None => Ok(wanted),
        Some(".") => Ok(true),
        Some(text) => {
            let detail = format!("`{text}` is not `.`, the input root itself");
            Err(InvalidPropertyError::value(CHROOT_PATH, detail))
        }
    }
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

/// The mount path, which must be an absolute one without detours, and not the root itself.
fn take_mount_path(platform: &mut Platform) -> Result<Option<String>, InvalidPropertyError> {
    let Some(path) = take(platform, MOUNT_PATH)? else {
        return Ok(None);
    };
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains('\0');
    let below_root = path.strip_prefix('/');
    if below_root.is_some_and(|path| path.split('/').all(is_plain)) {
        return Ok(Some(path));
    }
    let detail = format!("`{path}` is no absolute path without `.`, `..` and `//`");
    Err(InvalidPropertyError::value(MOUNT_PATH, detail))
}

fn is_ignored(name: &str, value: &str) -> bool {
    IGNORED.contains(&name)
        || name.starts_with(IGNORED_PREFIX)
        || (name == PRIVILEGED && value.eq_ignore_ascii_case("false"))
}

/// What an agent has to offer, in the words of the lexicon.
fn in_lexicon(rest: Platform) -> Platform {
    let asked = rest.iter().filter(|(name, value)| !is_ignored(name, value));
    Platform::new(asked.map(|(name, value)| match name {
        OS_FAMILY => (name, value.to_ascii_lowercase()),
        _ => (name, value.to_owned()),
    }))
}
