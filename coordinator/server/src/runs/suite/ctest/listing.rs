//! What CTest lists (`ctest --show-only=json-v1`; cmake's manual, ctest(1)). Pure.

use std::collections::BTreeSet;

/// What `--show-only=json-v1` prints, as far as it is of use.
#[derive(serde::Deserialize)]
struct Listing {
    kind: String,
    tests: Vec<ListedTest>,
}

/// A test, with the properties that CMake gave it.
#[derive(serde::Deserialize)]
pub(super) struct ListedTest {
    pub(super) name: String,
    #[serde(default)]
    properties: Vec<Property>,
}

#[derive(serde::Deserialize)]
struct Property {
    name: String,
    #[serde(default)]
    value: serde_json::Value,
}

impl ListedTest {
    fn value(&self, property: &str) -> Option<&serde_json::Value> {
        let mut properties = self.properties.iter();
        let found = properties.find(|it| it.name == property)?;
        Some(&found.value)
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.value("DISABLED") == Some(&serde_json::Value::Bool(true))
    }

    /// What a property names: fixtures, or tests.
    pub(super) fn names(&self, property: &str) -> impl Iterator<Item = &str> {
        let names = self.value(property).and_then(serde_json::Value::as_array);
        names
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_str)
    }

    /// The fixtures that it sets up or cleans up.
    pub(super) fn served(&self) -> impl Iterator<Item = &str> {
        let sets_up = self.names("FIXTURES_SETUP");
        sets_up.chain(self.names("FIXTURES_CLEANUP"))
    }

    /// Whether ctest brings the other one, or this one, by itself. It says of such tests that one depends on the other.
    pub(super) fn is_tied_by_fixture(&self, other: &Self) -> bool {
        let required: BTreeSet<&str> = self.names("FIXTURES_REQUIRED").collect();
        let cleaned: BTreeSet<&str> = self.names("FIXTURES_CLEANUP").collect();
        let mut concerned = other.names("FIXTURES_REQUIRED").chain(other.served());
        other.serves(&required) || concerned.any(|fixture| cleaned.contains(fixture))
    }

    /// Whether it runs with each test that requires one of these fixtures.
    fn serves(&self, required: &BTreeSet<&str>) -> bool {
        self.served().any(|fixture| required.contains(fixture))
    }
}

/// The names in a list: of what sets up and cleans up fixtures, too, which ctest counts as it counts all others.
pub(in crate::runs::suite) fn parse_listing(text: &str) -> Result<Vec<String>, String> {
    let tests = read(text)?;
    Ok(tests.into_iter().map(|test| test.name).collect())
}

/// The names of those in a list that are not to be run.
pub(in crate::runs::suite) fn parse_disabled(text: &str) -> Result<Vec<String>, String> {
    let mut tests = read(text)?;
    tests.retain(ListedTest::is_disabled);
    Ok(tests.into_iter().map(|test| test.name).collect())
}

/// The tests of a list.
pub(super) fn read(text: &str) -> Result<Vec<ListedTest>, String> {
    let listing: Listing = serde_json::from_str(text)
        .map_err(|error| format!("it is not what ctest 3.14 or later prints ({error})"))?;
    match listing.kind.as_str() {
        "ctestInfo" => Ok(listing.tests),
        other => Err(format!("it is a list of `{other}`, not of ctest's")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let listing = r#"{"kind": "ctestInfo", "version": {"major": 1, "minor": 0}, "tests": [
            {"name": "plain", "command": ["/b/ok"], "properties": [{"name": "TIMEOUT", "value": 1.5}]},
            {"name": "off", "properties": [{"name": "DISABLED", "value": true}]},
            {"name": "setup", "properties": [{"name": "FIXTURES_SETUP", "value": ["db", "x"]}]},
            {"name": "cleanup", "properties": [{"name": "FIXTURES_CLEANUP", "value": ["db"]}]},
            {"name": "uses", "properties": [{"name": "FIXTURES_REQUIRED", "value": ["db"]}]}]}"#;
        let ids = parse_listing(listing).expect("is a list");
        assert_eq!(ids, ["plain", "off", "setup", "cleanup", "uses"]);
        assert_eq!(parse_disabled(listing).expect("is a list"), ["off"]);
        for text in ["", "Hello", "{}", r#"{"kind": "other", "tests": []}"#] {
            assert!(parse_listing(text).is_err(), "{text}");
        }
    }
}
