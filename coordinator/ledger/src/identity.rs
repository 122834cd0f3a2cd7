//! Whose a ledger is.

/// A coordinator, as those know it that have its ledger after it, or stand by for that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CoordinatorIdentity {
    /// Where it serves gRPC: `http://host:port`. Empty if nobody is to know.
    pub url: String,
    /// Which key it signs verdicts with. Agents' leases are taken over by whoever has the same. Empty if it is nobody
    /// who works.
    pub verdict_key: String,
    /// Where it stores blobs, and how. Its runs can go on wherever that is the same. Empty if nobody knows.
    pub storage: String,
}

/// How a coordinator differs from the one that had a ledger before it: the runs of that one, and what it kept, are
/// nothing to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtherIdentityError {
    /// It signs with another key: agents would not be believed what they work at.
    #[error("signs verdicts with the key {theirs}, this one with {ours}")]
    VerdictKey {
        /// Whose.
        theirs: String,
        /// And this one's.
        ours: String,
    },
    /// It stores blobs elsewhere, or otherwise: what runs and verdicts name would not be found.
    #[error("stores blobs at {theirs}, this one at {ours}")]
    Storage {
        /// Where it does.
        theirs: String,
        /// And where this one does.
        ours: String,
    },
}

impl CoordinatorIdentity {
    /// Sees that runs of this coordinator could go on with another one.
    ///
    /// # Errors
    /// How that differs. What one of them does not say is no difference.
    pub fn check_successor(&self, successor: &Self) -> Result<(), OtherIdentityError> {
        let differ =
            |theirs: &str, ours: &str| theirs != ours && !theirs.is_empty() && !ours.is_empty();
        let (theirs, ours) = (&self.verdict_key, &successor.verdict_key);
        if differ(theirs, ours) {
            let (theirs, ours) = (theirs.clone(), ours.clone());
            return Err(OtherIdentityError::VerdictKey { theirs, ours });
        }
        let (theirs, ours) = (&self.storage, &successor.storage);
        if differ(theirs.trim_end_matches('/'), ours.trim_end_matches('/')) {
            let (theirs, ours) = (theirs.clone(), ours.clone());
            return Err(OtherIdentityError::Storage { theirs, ours });
        }
        Ok(())
    }
}

/// What becomes of a ledger with runs whose last coordinator had another storage or another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Inheritance {
    /// It is refused.
    #[default]
    OfTheSame,
    /// It is taken over: that is meant.
    OfAnyone,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(verdict_key: &str, storage: &str) -> CoordinatorIdentity {
        CoordinatorIdentity {
            url: String::new(),
            verdict_key: verdict_key.to_owned(),
            storage: storage.to_owned(),
        }
    }

    #[track_caller]
    fn check(last: (&str, &str), next: (&str, &str), expected: Option<&str>) {
        let checked = identity(last.0, last.1).check_successor(&identity(next.0, next.1));
        let said = checked.err().map(|error| error.to_string());
        assert_eq!(said.as_deref(), expected);
    }

    #[test]
    fn whoever_has_another_storage_or_another_key_is_no_successor() {
        check(("k", "file:///s"), ("k", "file:///s"), None);
        check(("k", "file:///s"), ("k", "file:///s/"), None);
        check(("", ""), ("k", "file:///s"), None);
        check(("k", "file:///s"), ("", ""), None);
        let key = "signs verdicts with the key k, this one with l";
        check(("k", "file:///s"), ("l", "file:///s"), Some(key));
        let storage = "stores blobs at file:///s, this one at file:///t";
        check(("k", "file:///s"), ("k", "file:///t"), Some(storage));
    }
}
