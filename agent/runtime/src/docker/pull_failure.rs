//! What a failed pull means: that a registry says no, that none could be asked, or that the engine failed.
//!
//! The engine has words for that and no codes. A status decides where there is one that can; among words,
//! those for a network that does not work come first, for they can stand next to any others.

use regatta_model::ImageReference;

use crate::port::RuntimeError;

/// What the engine's status says of an image that no repetition brings: the name is not one, or the
/// registry denies the image or does not have it.
const REFUSING_STATUSES: [u16; 4] = [400, 401, 403, 404];

/// What is found in the engine's words when it says the same with another status, or in the middle of a
/// pull.
const REFUSING_WORDS: [&str; 9] = [
    "invalid reference",
    "manifest unknown",
    "name unknown",
    "not found",
    "does not exist",
    "denied",
    "unauthorized",
    "no basic auth credentials",
    "no matching manifest",
];

/// What is found in them when no registry answered, or one asks for patience.
const UNREACHABLE_WORDS: [&str; 18] = [
    "dial tcp",
    "lookup ",
    "no such host",
    "server misbehaving",
    "temporary failure in name resolution",
    "i/o timeout",
    "tls handshake timeout",
    "client.timeout exceeded",
    "context deadline exceeded",
    "request canceled",
    "no route to host",
    "network is unreachable",
    "connection refused",
    "connection reset",
    "unexpected http status: 5",
    "too many requests",
    "toomanyrequests",
    "the pull made no progress",
];

/// What to do about an image that a machine does not have.
const FIX: &str = "check its name, or provide it on the agents' machines with `docker pull`, `docker load` \
                   or `docker import` (the images of Regatta's own demo and tests: `cargo xtask images`)";

/// Why a pull failed, in the engine's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PullFailure {
    /// The engine's answer, if it refused the pull before it began.
    pub(crate) status: Option<u16>,
    pub(crate) words: String,
}

impl PullFailure {
    pub(crate) fn into_error(self, image: &ImageReference) -> RuntimeError {
        let words = without_name(&self.words, image);
        let said = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        let is_refusing = |status| REFUSING_STATUSES.contains(&status);
        if said(&UNREACHABLE_WORDS) || self.status == Some(429) {
            return RuntimeError::RegistryUnreachable {
                image: image.to_string(),
                detail: with_fix(&self.words),
            };
        }
        if self.status.is_some_and(is_refusing) || said(&REFUSING_WORDS) {
            return unavailable(image, &self.words);
        }
        RuntimeError::Engine {
            operation: "pull an image",
            detail: self.words,
        }
    }
}

/// The words in lower case, without the image's name and its parts: a name may be any of the words that are
/// looked for.
fn without_name(words: &str, image: &ImageReference) -> String {
    let name = image.as_str().to_ascii_lowercase();
    let tagged = name.split('@').next().unwrap_or_default();
    let last_begins = tagged.rfind('/').map_or(0, |slash| slash + 1);
    let (last, tag) = match tagged[last_begins..].split_once(':') {
        Some(parts) => parts,
        None => (&tagged[last_begins..], ""),
    };
    let repository = &tagged[..last_begins + last.len()];
    let words = words.to_ascii_lowercase();
    [repository, last, tag]
        .iter()
        .fold(words, |words, part| without_word(&words, part))
}

/// Removes a word where it stands alone: a name that is one letter long is part of many others.
fn without_word(text: &str, word: &str) -> String {
    let is_part = |character: char| character.is_alphanumeric() || "-_".contains(character);
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word).filter(|_| !word.is_empty()) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let alone = !before.ends_with(is_part) && !after.starts_with(is_part);
        kept.push_str(before);
        if !alone {
            kept.push_str(word);
        }
        rest = after;
    }
    kept + rest
}

fn with_fix(detail: &str) -> String {
    format!("{detail}; {FIX}")
}

/// The name of an image has moved since the work was planned, and what it meant then is not here any more.
pub(super) fn replaced(image: &ImageReference, (wanted, there): (&str, &str)) -> RuntimeError {
    RuntimeError::ImageUnavailable {
        image: image.to_string(),
        detail: format!(
            "the work is for {wanted}, which this machine does not have, and the name means {there} here; begin the \
             work again if the image was replaced"
        ),
    }
}

/// The image cannot be had, and what to do about it.
pub(crate) fn unavailable(image: &ImageReference, detail: &str) -> RuntimeError {
    RuntimeError::ImageUnavailable {
        image: image.to_string(),
        detail: with_fix(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Meaning {
        Refused,
        Unreachable,
        Failed,
    }

    #[track_caller]
    fn check(image: &str, status: Option<u16>, words: &str, expected: Meaning) {
        let failure = PullFailure {
            status,
            words: words.to_owned(),
        };
        let error = failure.into_error(&image.parse().expect("is a reference"));
        let text = error.to_string();
        let meaning = match error {
            RuntimeError::ImageUnavailable { .. } => Meaning::Refused,
            RuntimeError::RegistryUnreachable { .. } => Meaning::Unreachable,
            RuntimeError::Engine { .. } => Meaning::Failed,
            other => panic!("{other}"),
        };
        assert_eq!(meaning, expected, "{status:?} {words}");
        assert!(text.contains(words), "{text}");
        if expected != Meaning::Failed {
            assert!(
                text.contains(image) && text.contains("docker pull"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_a_registry_refuses_is_told_from_what_nobody_could_be_asked_for() {
        use Meaning::{Failed, Refused, Unreachable};
        for (status, words, expected) in [
            (Some(400), "invalid reference format", Refused),
            (
                Some(404),
                "manifest for team/tool:1 not found: manifest unknown",
                Refused,
            ),
            (
                Some(404),
                "pull access denied for team/tool, repository does not exist",
                Refused,
            ),
            (Some(500), "unauthorized: authentication required", Refused),
            (
                None,
                "no matching manifest for linux/arm64 in the manifest list entries",
                Refused,
            ),
            (
                Some(500),
                "Get \"https://registry/v2/\": dial tcp: lookup registry: no such host",
                Unreachable,
            ),
            (
                Some(404),
                "dial tcp: lookup registry on 10.0.0.1:53: server misbehaving",
                Unreachable,
            ),
            (
                Some(500),
                "dial tcp 10.0.0.1:443: connect: no route to host",
                Unreachable,
            ),
            (Some(500), "read udp 10.0.0.1:53: i/o timeout", Unreachable),
            (
                Some(500),
                "net/http: request canceled (Client.Timeout exceeded)",
                Unreachable,
            ),
            (
                Some(500),
                "dial tcp 10.0.0.1:443: connect: connection refused",
                Unreachable,
            ),
            (
                None,
                "read tcp 10.0.0.2:5: connection reset by peer",
                Unreachable,
            ),
            (Some(429), "slow down", Unreachable),
            (
                Some(500),
                "toomanyrequests: access denied until your limit is reset",
                Unreachable,
            ),
            (
                Some(500),
                "received unexpected HTTP status: 503 Service Unavailable",
                Unreachable,
            ),
            (
                None,
                "write /var/lib/layer: no space left on device",
                Failed,
            ),
            (None, "the pull made no progress", Unreachable),
        ] {
            check("team/tool:1", status, words, expected);
        }
    }

    #[test]
    fn an_images_name_decides_nothing() {
        let words = "write /var/lib/denied-lookup: no space left on device";
        check("host:5000/denied-lookup:1", None, words, Meaning::Failed);
        check("d:1", None, "access denied", Meaning::Refused);
        let words = "pull access denied for lookup, repository does not exist";
        check("lookup:denied", Some(404), words, Meaning::Refused);
    }
}
