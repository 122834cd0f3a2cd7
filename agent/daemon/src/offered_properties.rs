//! What actions may ask an agent for by platform properties (REAPI, `platform.md`).

use regatta_model::Platform;
use regatta_runtime::ContainerRuntime;

use crate::config::AgentConfig;

/// The names under which tools ask for an architecture: REAPI's lexicon has `ISA`, older clients have `Arch`.
const ARCHITECTURE_PROPERTIES: [&str; 2] = ["ISA", "Arch"];

/// What the configuration says and what is so on this machine.
pub(crate) fn offered_properties(
    config: &AgentConfig,
    runtime: &dyn ContainerRuntime,
    hostname: &str,
) -> Platform {
    let mut properties = Platform::new(config.properties.iter().cloned());
    properties.insert("OSFamily", "linux");
    for property in ARCHITECTURE_PROPERTIES {
        for name in architecture_names(std::env::consts::ARCH) {
            properties.insert(property, name);
        }
    }
    let (user, group) = runtime.user();
    // BuildStream's names for whom commands run as.
    properties.insert("unixUID", user.to_string());
    properties.insert("unixGID", group.to_string());
    if runtime.can_change_root() {
        properties.insert("chroot-input-root", "true");
    }
    properties.insert("hostname", hostname);
    // For coordinators: an agent of an earlier release runs the command and has no worker afterwards.
    properties.insert("persistent-workers", "true");
    properties
}

/// The values by which tools ask for an architecture: the lexicon's, the kernel's and Go's.
fn architecture_names(architecture: &'static str) -> Vec<&'static str> {
    match architecture {
        "x86_64" => vec!["x86-64", "x86_64", "amd64"],
        "aarch64" => vec!["aarch64", "arm64"],
        other => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use regatta_runtime::fake::{FakeRun, FakeRuntime};

    use super::*;

    #[test]
    fn what_tools_ask_for_is_offered() {
        let mut config = AgentConfig::new("http://127.0.0.1:1", "state");
        config.properties = vec![("pool".to_owned(), "large".to_owned())];
        let runtime = FakeRuntime::new("views".into(), |_| FakeRun::exit(0));
        let offered = offered_properties(&config, &runtime, "host");
        let (user, group) = runtime.user();
        let mut wanted = vec![
            ("OSFamily", "linux".to_owned()),
            ("pool", "large".to_owned()),
            ("hostname", "host".to_owned()),
            ("chroot-input-root", "true".to_owned()),
            ("persistent-workers", "true".to_owned()),
            ("unixUID", user.to_string()),
            ("unixGID", group.to_string()),
        ];
        for property in ["ISA", "Arch"] {
            for name in architecture_names(std::env::consts::ARCH) {
                wanted.push((property, name.to_owned()));
            }
        }
        let unmet = Platform::new(wanted.clone()).unmet_by(&offered).len();
        assert_eq!(unmet, 0, "{offered:?} lacks some of {wanted:?}");
        assert!(architecture_names("x86_64").contains(&"x86-64"));
        assert!(architecture_names("aarch64").contains(&"arm64"));
    }
}
