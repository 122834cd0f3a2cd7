//! What an asset is kept under.

use std::collections::BTreeMap;

use regatta_model::{Digest, DigestHasher, TenantId};

/// Sets these keys apart from every other digest, and from the keys of other versions of this format.
const KEY_DOMAIN: &[u8] = b"regatta assets 1\0";

/// What an asset is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum AssetKind {
    Blob,
    Directory,
}

/// What assets of one request have in common, their URIs aside.
#[derive(Clone, Debug)]
pub(super) struct AssetScope {
    pub(super) tenant: TenantId,
    pub(super) kind: AssetKind,
    /// Sorted, so that their order in the request does not count.
    pub(super) qualifiers: BTreeMap<String, String>,
}

impl AssetScope {
    /// The key of the asset of a URI.
    pub(super) fn key_of(&self, uri: &str) -> Digest {
        let mut hasher = DigestHasher::new();
        hasher.update(KEY_DOMAIN);
        hasher.update(match self.kind {
            AssetKind::Blob => b"b",
            AssetKind::Directory => b"d",
        });
        let mut add = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(self.tenant.as_str());
        add(uri);
        for (name, value) in &self.qualifiers {
            add(name);
            add(value);
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn key(tenant: &str, kind: AssetKind, uri: &str, qualifiers: &[(&str, &str)]) -> Digest {
        let qualifiers = qualifiers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let scope = AssetScope {
            tenant: tenant.parse().unwrap(),
            kind,
            qualifiers: qualifiers.collect(),
        };
        scope.key_of(uri)
    }

    #[test]
    fn every_part_counts_and_the_order_of_qualifiers_does_not() {
        use AssetKind::{Blob, Directory};
        let keys = [
            key("", Blob, "ab", &[]),
            key("a", Blob, "b", &[]),
            key("", Directory, "ab", &[]),
            key("", Blob, "a", &[("b", "")]),
            key("", Blob, "ab", &[("c", "d")]),
            key("", Blob, "ab", &[("cd", "")]),
            key("", Blob, "ab", &[("c", "d"), ("e", "f")]),
        ];
        assert_eq!(BTreeSet::from(keys).len(), keys.len());
        let swapped = key("", Blob, "ab", &[("e", "f"), ("c", "d")]);
        assert_eq!(swapped, keys[6]);
    }
}
