//! What a job's commands run in, as far as their results depend on it.

use std::collections::BTreeSet;

use regatta_model::ImageReference;
use regatta_wire::v1;

use crate::dispatch::IMAGE_RUNTIME;

/// How agents call it that they run commands as plain processes.
const PROCESS_RUNTIME: &str = "process";
/// The property by which agents offer their architecture, by each of its names.
const ARCHITECTURE: &str = "ISA";
/// What a content id or a digest begins with.
const DIGEST_PREFIX: &str = "sha256:";
/// How many hexadecimal digits follow.
const DIGEST_DIGITS: usize = 64;

/// What a job's commands run in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Surroundings {
    /// An image, by the name that the job gives it, with its content id.
    Image {
        reference: ImageReference,
        id: String,
    },
    /// An image by the digest of its manifest, which never changes what it stands for.
    Pinned(ImageReference),
    /// No image, on agents that know none.
    Processes,
    /// It shows only once they run. Nothing that is cached can be told to be from there.
    Unknown(UnknownReason),
}

/// Why it is not known what a job runs in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum UnknownReason {
    /// Pull the image, or name it by its digest.
    #[error("no connected agent has image {image} yet, and its tag does not say what is in it")]
    Absent { image: ImageReference },
    /// Pull it everywhere, or name it by its digest.
    #[error("connected agents have different images by the name {image}")]
    Ambiguous { image: ImageReference },
    /// Name an image.
    #[error("the job names no image, and the connected agents run it in one of their own choice")]
    AgentsChoice,
    /// Name an image, or start an agent first.
    #[error(
        "the job names no image, and no agent that offers what it asks for has connected yet and said whether it runs \
         jobs in one"
    )]
    NoAgent,
    /// Ask for one of them.
    #[error(
        "connected agents differ in their architecture ({}): ask for one, with `platform = {{ ISA = \"…\" }}`", .names.join(", ")
    )]
    Architectures { names: Vec<String> },
}

impl Surroundings {
    /// Finds out what an image means to the agents that are connected and may be given the job.
    pub(super) fn of(image: Option<&ImageReference>, agents: &[v1::AgentStatus]) -> Self {
        let found = Self::on_any_architecture(image, agents);
        let (is_alike, runtime) = match &found {
            // An engine's content id is of one architecture.
            Self::Image { .. } | Self::Unknown(_) => (true, IMAGE_RUNTIME),
            // What a manifest of several names is another image on each.
            Self::Pinned(_) => (false, IMAGE_RUNTIME),
            Self::Processes => (false, PROCESS_RUNTIME),
        };
        let names = architectures(agents, runtime);
        match is_alike || names.len() < 2 {
            true => found,
            false => Self::Unknown(UnknownReason::Architectures { names }),
        }
    }

    fn on_any_architecture(image: Option<&ImageReference>, agents: &[v1::AgentStatus]) -> Self {
        let connected = agents.iter().filter(|agent| agent.connected);
        let offers = connected
            .filter_map(|agent| agent.offer.as_ref())
            .filter(|offer| offer.runtime == IMAGE_RUNTIME);
        let Some(reference) = image.cloned() else {
            return Self::without_image(agents);
        };
        let text = reference.as_str();
        if is_digest(text) {
            let id = text.to_owned();
            return Self::Image { reference, id };
        }
        if text.rsplit_once('@').is_some_and(|(_, it)| is_digest(it)) {
            return Self::Pinned(reference);
        }
        let wanted = full_name(text);
        let ids: BTreeSet<&str> = offers
            .flat_map(|offer| &offer.images)
            .filter(|offered| full_name(&offered.reference) == wanted && !offered.id.is_empty())
            .map(|offered| offered.id.as_str())
            .collect();
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (Some(id), None) => Self::Image {
                id: id.to_owned(),
                reference,
            },
            (Some(_), Some(_)) => Self::Unknown(UnknownReason::Ambiguous { image: reference }),
            (None, _) => Self::Unknown(UnknownReason::Absent { image: reference }),
        }
    }

    /// What a job runs in that names no image: what agents do that are connected, else what those did that were.
    fn without_image(agents: &[v1::AgentStatus]) -> Self {
        let is_any_connected = agents.iter().any(|agent| agent.connected);
        let told = agents
            .iter()
            .filter(|agent| agent.connected || !is_any_connected);
        let mut runtimes = told.filter_map(|agent| agent.offer.as_ref()).peekable();
        if runtimes.peek().is_none() {
            return Self::Unknown(UnknownReason::NoAgent);
        }
        match runtimes.any(|offer| offer.runtime == IMAGE_RUNTIME) {
            true => Self::Unknown(UnknownReason::AgentsChoice),
            false => Self::Processes,
        }
    }

    /// Whether results from there can be told from others, and so be cached.
    pub(super) const fn are_known(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// Whether this is where an outcome comes from. Agents pull, and tags move, while a run lasts.
    pub(super) fn produced(&self, outcome: &v1::ExecutionOutcome) -> bool {
        match self {
            Self::Image { id, .. } => outcome.image_id == *id,
            Self::Pinned(_) => !outcome.image_id.is_empty(),
            Self::Processes => outcome.image_id.is_empty(),
            Self::Unknown(_) => false,
        }
    }

    /// The image as keys name it; `None` without one.
    pub(super) fn image_in_keys(&self) -> Option<String> {
        match self {
            Self::Image { reference, id } => Some(format!("{reference}@{id}")),
            Self::Pinned(image)
            | Self::Unknown(UnknownReason::Absent { image } | UnknownReason::Ambiguous { image }) => {
                Some(image.to_string())
            }
            Self::Processes
            | Self::Unknown(
                UnknownReason::AgentsChoice
                | UnknownReason::NoAgent
                | UnknownReason::Architectures { .. },
            ) => None,
        }
    }

    /// The content id that the image's name stands for, if the name itself does not say what is in it.
    pub(super) fn image_id(&self) -> Option<&str> {
        match self {
            Self::Image { reference, id } => {
                Some(id.as_str()).filter(|id| *id != reference.as_str())
            }
            Self::Pinned(_) | Self::Processes | Self::Unknown(_) => None,
        }
    }

    /// The kind of runtime as keys name it.
    pub(super) const fn runtime_in_keys(&self) -> &'static str {
        match self {
            // Agents that come back late after a restart are to find what they are doing under the same key.
            Self::Processes | Self::Unknown(UnknownReason::NoAgent) => PROCESS_RUNTIME,
            Self::Image { .. } | Self::Pinned(_) | Self::Unknown(_) => IMAGE_RUNTIME,
        }
    }
}

/// The architectures of the connected agents of a runtime, each by its first name.
fn architectures(agents: &[v1::AgentStatus], runtime: &str) -> Vec<String> {
    let connected = agents.iter().filter(|agent| agent.connected);
    let offers = connected.filter_map(|agent| agent.offer.as_ref());
    let names = offers
        .filter(|offer| offer.runtime == runtime)
        .filter_map(|offer| {
            let properties = offer.properties.iter();
            let names = properties.filter(|property| property.name == ARCHITECTURE);
            names.map(|property| property.value.clone()).min()
        });
    let names: BTreeSet<String> = names.collect();
    names.into_iter().collect()
}

/// Whether there are agents, and all that run images have said which they have. They ask their engines
/// only after they have connected.
pub(super) fn have_told_images(agents: &[v1::AgentStatus]) -> bool {
    let mut connected = agents.iter().filter(|agent| agent.connected).peekable();
    connected.peek().is_some()
        && connected.all(|agent| {
            let offer = agent.offer.as_ref();
            offer.is_some_and(|it| it.runtime != IMAGE_RUNTIME || !it.images.is_empty())
        })
}

/// Whether a text is all of a content id or digest: engines take the first digits for an id too.
fn is_digest(text: &str) -> bool {
    text.strip_prefix(DIGEST_PREFIX).is_some_and(|digits| {
        digits.len() == DIGEST_DIGITS && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// An image's name with what Docker adds to it if it is left out, and without what it leaves out.
fn full_name(reference: &str) -> String {
    let name = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let name = name.strip_prefix("library/").unwrap_or(name);
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') {
        name.to_owned()
    } else {
        format!("{name}:latest")
    }
}

#[cfg(test)]
mod tests {
    use regatta_wire::reapi;

    use super::*;

    fn agent(runtime: &str, images: &[(&str, &str)]) -> v1::AgentStatus {
        let image = |(reference, id): &(&str, &str)| v1::OfferedImage {
            reference: (*reference).to_owned(),
            id: (*id).to_owned(),
        };
        v1::AgentStatus {
            connected: true,
            offer: Some(v1::AgentOffer {
                runtime: runtime.to_owned(),
                images: images.iter().map(image).collect(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn gone(agent: v1::AgentStatus) -> v1::AgentStatus {
        v1::AgentStatus {
            connected: false,
            ..agent
        }
    }

    #[track_caller]
    fn check(image: &str, agents: &[v1::AgentStatus], expected: Option<&str>) {
        let wanted: Option<ImageReference> =
            (!image.is_empty()).then(|| image.parse().expect("is a reference"));
        let found = Surroundings::of(wanted.as_ref(), agents);
        let known = found.are_known().then(|| {
            let image = found.image_in_keys();
            image.unwrap_or_else(|| found.runtime_in_keys().to_owned())
        });
        assert_eq!(known.as_deref(), expected, "{found:?}");
        // What a name says by itself is told by it alone.
        let beside = expected.and_then(|it| it.strip_prefix(image)?.strip_prefix('@'));
        assert_eq!(
            found.image_id(),
            beside.filter(|id| *id != image),
            "{found:?}"
        );
    }

    #[test]
    fn a_tag_means_what_all_who_have_it_agree_on() {
        let one = agent("docker", &[("img:1", "sha256:a"), ("img:2", "sha256:c")]);
        let other = agent("docker", &[("img:1", "sha256:b")]);
        let none = agent("docker", &[]);
        check(
            "img:1",
            &[one.clone(), none.clone()],
            Some("img:1@sha256:a"),
        );
        check("img:1", &[one.clone(), other.clone()], None);
        check("img:1", &[one.clone(), gone(other)], Some("img:1@sha256:a"));
        check("img:1", &[none], None);
        check("img:1", &[gone(one)], None);
        check("img:1", &[], None);
    }

    #[test]
    fn agents_that_have_yet_to_tell_their_images_are_known() {
        let ready = agent("docker", &[("img:1", "sha256:a")]);
        let silent = agent("docker", &[]);
        assert!(have_told_images(&[ready.clone(), agent("process", &[])]));
        assert!(have_told_images(&[ready.clone(), gone(silent.clone())]));
        assert!(!have_told_images(&[ready.clone(), silent]));
        assert!(!have_told_images(&[gone(ready)]));
    }

    #[test]
    fn names_are_compared_as_docker_completes_them() {
        let agent = agent(
            "docker",
            &[
                ("busybox:latest", "sha256:a"),
                ("host:5/x:latest", "sha256:b"),
            ],
        );
        let agents = [agent];
        check("busybox", &agents, Some("busybox@sha256:a"));
        let long = "docker.io/library/busybox:latest";
        check(long, &agents, Some(&format!("{long}@sha256:a")));
        check("host:5/x", &agents, Some("host:5/x@sha256:b"));
        check("host:5/busybox", &agents, None);
    }

    #[test]
    fn what_is_pinned_needs_no_agent() {
        let digest = format!("{DIGEST_PREFIX}{}", "0a".repeat(32));
        check(&digest, &[], Some(&format!("{digest}@{digest}")));
        let pinned = format!("img@{digest}");
        check(&pinned, &[], Some(&pinned));
        check("sha256:0a", &[], None);
    }

    #[test]
    fn another_architecture_is_another_place() {
        let of = |runtime: &str, names: &[&str]| {
            let mut agent = agent(runtime, &[("img:1", "sha256:a")]);
            let property = |name: &&str| reapi::platform::Property {
                name: ARCHITECTURE.to_owned(),
                value: (*name).to_owned(),
            };
            if let Some(offer) = &mut agent.offer {
                offer.properties = names.iter().map(property).collect();
            }
            agent
        };
        let pinned = format!("img@{DIGEST_PREFIX}{}", "0a".repeat(32));
        let (intel, arm) = (["x86_64", "amd64"], ["aarch64", "arm64"]);
        for (runtime, image, known) in [
            ("docker", pinned.as_str(), pinned.as_str()),
            ("process", "", "process"),
        ] {
            let alike = [of(runtime, &intel), of(runtime, &["amd64", "x86_64"])];
            check(image, &alike, Some(known));
            check(image, &[of(runtime, &intel), of(runtime, &arm)], None);
            check(
                image,
                &[of(runtime, &intel), gone(of(runtime, &arm))],
                Some(known),
            );
        }
        let both = [of("docker", &intel), of("docker", &arm)];
        check("img:1", &both, Some("img:1@sha256:a"));
    }

    #[test]
    fn without_an_image_only_processes_are_known() {
        let [process, docker] = ["process", "docker"].map(|runtime| agent(runtime, &[]));
        check("", std::slice::from_ref(&process), Some("process"));
        check("", &[process.clone(), docker.clone()], None);
        // Before anybody has connected, nobody knows what the fleet is; when all are gone, it is what it was.
        check("", &[], None);
        check("", &[gone(process.clone())], Some("process"));
        check("", &[gone(process.clone()), gone(docker.clone())], None);
        check("", &[process, gone(docker)], Some("process"));
    }

    #[test]
    fn an_outcome_of_another_image_is_told_apart() {
        let outcome = |image_id: &str| v1::ExecutionOutcome {
            image_id: image_id.to_owned(),
            ..Default::default()
        };
        let image = Surroundings::Image {
            reference: "img:1".parse().expect("is a reference"),
            id: "sha256:a".to_owned(),
        };
        assert!(image.produced(&outcome("sha256:a")));
        assert!(!image.produced(&outcome("sha256:b")) && !image.produced(&outcome("")));
        let processes = Surroundings::Processes;
        assert!(processes.produced(&outcome("")) && !processes.produced(&outcome("sha256:a")));
        let unknown = Surroundings::Unknown(UnknownReason::AgentsChoice);
        assert!(!unknown.produced(&outcome("sha256:a")) && !unknown.produced(&outcome("")));
    }
}
