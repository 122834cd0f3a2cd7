//! The names of a cache's parts, each with a small number for the accounts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::local_file::Part;

/// Every part that was met so far. There is one for each tenant of an agent, so they are few.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<Vec<Arc<str>>>);

impl Parts {
    /// The part of that name, new or not.
    pub(super) fn of(&self, name: &str) -> Part {
        let mut names = self.names();
        let known = names.iter().position(|known| **known == *name);
        let index = known.unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        Part(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// The name of a part that was met.
    pub(super) fn name(&self, part: Part) -> Arc<str> {
        let index = usize::try_from(part.0).unwrap_or(usize::MAX);
        self.names().get(index).cloned().unwrap_or_default()
    }

    fn names(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_and_a_part_has_one_name() {
        let parts = Parts::default();
        let (a, b) = (parts.of("a"), parts.of("b"));
        assert_ne!(a, b);
        assert_eq!(parts.of("a"), a);
        assert_eq!((&*parts.name(a), &*parts.name(b)), ("a", "b"));
    }
}
