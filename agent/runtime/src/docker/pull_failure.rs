//! What a failed pull means: that the image cannot be had, or that trying again may help.

use regatta_model::ImageReference;

use crate::port::RuntimeError;

/// What the engine's status says of an image that no repetition brings: the name is not one, or the
/// registry denies the image or does not have it.
const FINAL_STATUSES: [u16; 4] = [400, 401, 403, 404];

/// What is found in the engine's words when it says the same with another status, or in the middle of a
/// pull. The last two lines: there is no registry of that name to be reached from this machine at all.
const FINAL_WORDS: [&str; 12] = [
    "invalid reference",
    "manifest unknown",
    "name unknown",
    "not found",
    "does not exist",
    "denied",
    "unauthorized",
    "no basic auth credentials",
    "no matching manifest",
    "dial tcp: lookup ",
    "no route to host",
    "network is unreachable",
];

/// What is found in them when the registry asks for patience, whatever else they say.
const PASSING_WORDS: [&str; 1] = ["toomanyrequests"];

/// Why a pull failed, in the engine's words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PullFailure {
    /// The engine's answer, if it refused the pull before it began.
    pub(crate) status: Option<u16>,
    pub(crate) words: String,
}

impl PullFailure {
    pub(crate) fn into_error(self, image: &ImageReference) -> RuntimeError {
        if self.is_final() {
            return unavailable(image, &self.words);
        }
        RuntimeError::Engine {
            operation: "pull an image",
            detail: self.words,
        }
    }

    fn is_final(&self) -> bool {
        let words = self.words.to_ascii_lowercase();
        let said = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
        if said(&PASSING_WORDS) {
            return false;
        }
        let refused = self.status.is_some_and(|it| FINAL_STATUSES.contains(&it));
        refused || said(&FINAL_WORDS)
    }
}

/// The image cannot be had, and what to do about it.
pub(crate) fn unavailable(image: &ImageReference, detail: &str) -> RuntimeError {
    RuntimeError::ImageUnavailable {
        image: image.to_string(),
        detail: format!(
            "{detail}; check its name, or provide it with `docker pull` or `docker import`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_final(status: Option<u16>, words: &str) -> bool {
        let failure = PullFailure {
            status,
            words: words.to_owned(),
        };
        let image = "team/tool:1".parse().expect("is a reference");
        match failure.into_error(&image) {
            RuntimeError::ImageUnavailable { detail, .. } => {
                assert!(detail.starts_with(words), "{detail}");
                true
            }
            RuntimeError::Engine { detail, .. } => {
                assert_eq!(detail, words);
                false
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_image_that_nobody_has_is_told_from_trouble_that_passes() {
        for (status, words) in [
            (Some(400), "invalid reference format"),
            (
                Some(404),
                "manifest for team/tool:1 not found: manifest unknown",
            ),
            (
                Some(404),
                "pull access denied for tool, repository does not exist",
            ),
            (Some(500), "unauthorized: authentication required"),
            (
                Some(500),
                "Get \"https://registry/v2/\": dial tcp: lookup registry: no such host",
            ),
            (
                Some(500),
                "dial tcp 10.0.0.1:443: connect: no route to host",
            ),
            (
                None,
                "no matching manifest for linux/arm64 in the manifest list entries",
            ),
        ] {
            assert!(is_final(status, words), "{status:?} {words}");
        }
        for (status, words) in [
            (Some(429), "too many requests"),
            (
                Some(500),
                "toomanyrequests: access denied until your limit is reset",
            ),
            (
                Some(500),
                "received unexpected HTTP status: 503 Service Unavailable",
            ),
            (
                Some(500),
                "net/http: request canceled (Client.Timeout exceeded)",
            ),
            (
                Some(500),
                "dial tcp 10.0.0.1:443: connect: connection refused",
            ),
            (None, "read tcp 10.0.0.2:5: connection reset by peer"),
            (None, "write /var/lib/layer: no space left on device"),
            (None, "the pull made no progress"),
        ] {
            assert!(!is_final(status, words), "{status:?} {words}");
        }
    }
}
