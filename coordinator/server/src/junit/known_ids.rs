//! Which test a case of a report stands for. Pure.

use std::collections::HashSet;

use super::Case;

/// Ways in which runners join a class and a name.
const SEPARATORS: [&str; 4] = ["::", ".", "/", " "];

/// The ids of a suite's tests in a run: what a case stands for does not depend on which of them its runner was asked for.
/// Those that were not chosen are not among them.
#[derive(Debug, Default)]
pub struct KnownIds {
    ids: HashSet<String>,
    /// Each from its end to its beginning, in order.
    reversed: Vec<Vec<u8>>,
}

/// What a case stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StandsFor {
    /// No test that is known.
    Nothing,
    /// This test.
    One(String),
    /// Any of these.
    Several(Vec<String>),
}

impl KnownIds {
    /// These ids.
    pub fn of<'a>(ids: impl Iterator<Item = &'a str>) -> Self {
        let ids: HashSet<String> = ids.map(str::to_owned).collect();
        let mut reversed: Vec<_> = ids.iter().map(|id| id.bytes().rev().collect()).collect();
        reversed.sort_unstable();
        Self { ids, reversed }
    }

    /// Which of them a case stands for: its class and its name as runners join them, or its name alone.
    ///
    /// The name alone says nothing of its class, so that with one, no other id may end in that name.
    #[must_use]
    pub fn meant_by(&self, case: &Case) -> StandsFor {
        let name = &case.name;
        if case.classname.is_empty() {
            return self.bare(name);
        }
        let joined = |separator| format!("{}{separator}{name}", case.classname);
        let mut joined: Vec<_> = SEPARATORS.into_iter().map(joined).collect();
        joined.retain(|id| self.ids.contains(id));
        match (joined.len(), joined.pop()) {
            (1, Some(id)) => StandsFor::One(id),
            (_, Some(last)) => StandsFor::Several([joined, vec![last]].concat()),
            (_, None) if self.any_ends_in(name) => StandsFor::Nothing,
            (_, None) => self.bare(name),
        }
    }

    fn bare(&self, name: &str) -> StandsFor {
        match self.ids.get(name) {
            Some(id) => StandsFor::One(id.clone()),
            None => StandsFor::Nothing,
        }
    }

    /// Whether an id is some class joined with this name.
    fn any_ends_in(&self, name: &str) -> bool {
        SEPARATORS.iter().any(|separator| {
            let end: Vec<u8> = separator.bytes().chain(name.bytes()).rev().collect();
            let place = self.reversed.partition_point(|id| *id < end);
            let found = self.reversed.get(place);
            found.is_some_and(|id| id.starts_with(&end))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::junit::parse;

    fn meant(known: &KnownIds, classname: &str, name: &str) -> StandsFor {
        let xml = format!("<testcase classname='{classname}' name='{name}'/>");
        let report = parse(&xml).expect("is a report");
        known.meant_by(&report.cases[0])
    }

    #[test]
    fn a_class_tells_tests_of_one_name_apart() {
        let known = KnownIds::of(["run", "a.run", "b::run", "walk"].into_iter());
        let one = |id: &str| StandsFor::One(id.to_owned());
        assert_eq!(meant(&known, "a", "run"), one("a.run"));
        assert_eq!(meant(&known, "b", "run"), one("b::run"));
        assert_eq!(meant(&known, "", "run"), one("run"));
        let three = meant(&known, "strange", "run");
        assert_eq!(three, StandsFor::Nothing, "three ids would fit");
        assert_eq!(meant(&known, "strange", "walk"), one("walk"));
        assert_eq!(meant(&known, "", "jump"), StandsFor::Nothing);
    }

    #[test]
    fn ids_that_differ_in_how_they_are_joined_are_not_told_apart() {
        let ids = ["a::b", "a.b", "a/c"];
        let known = KnownIds::of(ids.into_iter());
        let several = StandsFor::Several(vec!["a::b".to_owned(), "a.b".to_owned()]);
        assert_eq!(meant(&known, "a", "b"), several);
        assert_eq!(meant(&known, "a", "c"), StandsFor::One("a/c".to_owned()));
        assert_eq!(meant(&known, "", "a.b"), StandsFor::One("a.b".to_owned()));
    }

    proptest! {
        #[test]
        fn an_end_is_found_as_if_each_id_was_looked_at(
            ids in prop::collection::vec("[ab.:/]{0,6}", 0..12),
            name in "[ab.:/]{0,4}",
        ) {
            let known = KnownIds::of(ids.iter().map(String::as_str));
            let ends = |id: &String| {
                let class = id.strip_suffix(name.as_str());
                class.is_some_and(|class| SEPARATORS.iter().any(|it| class.ends_with(it)))
            };
            prop_assert_eq!(known.any_ends_in(&name), ids.iter().any(ends));
        }
    }
}
