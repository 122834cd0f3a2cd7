//! Tests whose failures do not count for now.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::Offset;
use regatta_model::Timestamp;
use toml::Spanned;
use toml::de::DeValue;

use super::error::ConfigError;
use super::section::Section;

const KEY: &str = "quarantine";
const KEYS: &[&str] = &["expires", "owner", "reason", "test"];
const EXPECTED: &str = "a list of tables, each a `[[...suite.quarantine]]`";

/// A test that is known to fail, with whoever sees to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantinedTest {
    /// Its id.
    pub test: String,
    /// Who sees to it.
    pub owner: String,
    /// The first moment at which its failures count again: midnight UTC after its last day.
    pub expires: Timestamp,
    /// Why; may be empty.
    pub reason: String,
}

/// The quarantine of a suite.
pub(super) fn read_quarantine(suite: &Section<'_>) -> Result<Vec<QuarantinedTest>, ConfigError> {
    let Some(value) = suite.value(KEY) else {
        return Ok(Vec::new());
    };
    let DeValue::Array(entries) = value.get_ref() else {
        return Err(suite.wrong_type(KEY, value, EXPECTED));
    };
    entries
        .iter()
        .map(|entry| read_entry(suite, entry))
        .collect()
}

fn read_entry(
    suite: &Section<'_>,
    entry: &Spanned<DeValue<'_>>,
) -> Result<QuarantinedTest, ConfigError> {
    let DeValue::Table(table) = entry.get_ref() else {
        return Err(suite.wrong_type(KEY, entry, EXPECTED));
    };
    let section = Section {
        source: suite.source,
        place: format!("[{}.{KEY}]", suite.place.trim_matches(['[', ']'])),
        span: entry.span(),
        table,
    };
    section.allow(KEYS)?;
    let needed = |key: &'static str| {
        let text = section.text(key)?.map(Spanned::into_inner);
        text.filter(|text| !text.trim().is_empty()).ok_or_else(|| {
            let detail = "is needed: a quarantine names a test, its owner and its last day";
            section.bad_value(key, &section.span, detail)
        })
    };
    Ok(QuarantinedTest {
        test: needed("test")?,
        owner: needed("owner")?,
        expires: expires(&section)?,
        reason: section
            .text("reason")?
            .map(Spanned::into_inner)
            .unwrap_or_default(),
    })
}

/// The end of the day that `expires` names.
fn expires(section: &Section<'_>) -> Result<Timestamp, ConfigError> {
    const KEY: &str = "expires";
    const EXPECTED: &str = "a day, like 2030-12-31";
    let Some(value) = section.value(KEY) else {
        let detail = "is needed, the last day on which a failure does not count";
        return Err(section.bad_value(KEY, &section.span, detail));
    };
    let day = match value.get_ref() {
        DeValue::Datetime(it) if it.time.is_none() && it.offset.is_none() => it.date,
        _ => None,
    };
    let day = day.ok_or_else(|| section.wrong_type(KEY, value, EXPECTED))?;
    midnight_after(day).ok_or_else(|| section.bad_value(KEY, &value.span(), "is no day"))
}

fn midnight_after(day: toml::value::Date) -> Option<Timestamp> {
    let (year, month) = (i16::try_from(day.year).ok()?, i8::try_from(day.month).ok()?);
    let date = Date::new(year, month, i8::try_from(day.day).ok()?).ok()?;
    let midnight = date.tomorrow().ok()?.at(0, 0, 0, 0);
    let midnight = Offset::UTC.to_timestamp(midnight).ok()?;
    let seconds = u64::try_from(midnight.as_second()).ok()?;
    Some(Timestamp::EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::super::{JobAction, parse};
    use super::*;

    fn read(entry: &str) -> Result<Vec<QuarantinedTest>, String> {
        let text = format!(
            "[jobs.check.suite]\nadapter = \"libtest\"\nrun = [\"./tests\"]\n[[jobs.check.suite.quarantine]]\n{entry}"
        );
        let pipeline = parse(&text, "regatta.toml".as_ref(), ".".as_ref());
        let pipeline = pipeline.map_err(|error| error.to_string())?;
        match &pipeline.jobs[0].action {
            JobAction::Suite(suite) => Ok(suite.quarantine.clone()),
            JobAction::Command(_) => panic!("it is a suite"),
        }
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let read = read("test = \"a\"\nowner = \"o\"\nexpires = 1970-01-01\n").expect("is good");
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(read[0].expires, Timestamp::EPOCH + day);
        assert_eq!((read[0].test.as_str(), read[0].owner.as_str()), ("a", "o"));
    }

    #[test]
    fn whoever_must_see_to_it_is_named() {
        for (entry, words) in [
            ("test = \"a\"\nexpires = 2030-01-01\n", "owner"),
            (
                "test = \"a\"\nowner = \" \"\nexpires = 2030-01-01\n",
                "owner",
            ),
            ("test = \"a\"\nowner = \"o\"\n", "expires"),
            (
                "test = \"a\"\nowner = \"o\"\nexpires = \"soon\"\n",
                "a day, like",
            ),
            (
                "test = \"a\"\nowner = \"o\"\nexpires = 2030-01-01T00:00:00Z\n",
                "a day, like",
            ),
            (
                "test = \"a\"\nowner = \"o\"\nexpire = 2030-01-01\n",
                "did you mean `expires`",
            ),
        ] {
            let error = read(entry).expect_err("is refused");
            assert!(error.contains(words), "{entry}: {error}");
        }
    }
}
