//! A table of the configuration, read key by key with errors that name the place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigProblem, Position, nearest};
use super::quantity::{parse_duration, parse_size};

/// The file that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    pub(super) fn position(&self, offset: usize) -> Position {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Position {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    pub(super) fn error(&self, span: &Range<usize>, problem: ConfigProblem) -> ConfigError {
        ConfigError::new(
            self.file.to_owned(),
            Some(self.position(span.start)),
            problem,
        )
    }
}

/// A table and how to call it in errors.
#[derive(Clone, Debug)]
pub(super) struct Section<'a> {
    pub(super) source: Source<'a>,
    pub(super) place: String,
    pub(super) span: Range<usize>,
    pub(super) table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    /// Refuses every key but those `known`.
    pub(super) fn allow(&self, known: &'static [&'static str]) -> Result<(), ConfigError> {
        for key in self.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                return Err(self.unknown_key(key, known));
            }
        }
        Ok(())
    }

    fn unknown_key(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        known: &'static [&'static str],
    ) -> ConfigError {
        let name: &str = key.get_ref();
        let problem = ConfigProblem::UnknownKey {
            key: name.to_owned(),
            place: self.place.clone(),
            nearest: nearest(name, known.iter().copied()),
            known,
        };
        self.source.error(&key.span(), problem)
    }

    pub(super) fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    pub(super) fn wrong_type(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &'static str,
    ) -> ConfigError {
        let problem = ConfigProblem::WrongType {
            key: key.to_owned(),
            place: self.place.clone(),
            expected,
            found: kind(value.get_ref()),
        };
        self.source.error(&value.span(), problem)
    }

    pub(super) fn bad_value(
        &self,
        key: &str,
        span: &Range<usize>,
        detail: impl ToString,
    ) -> ConfigError {
        let problem = ConfigProblem::BadValue {
            key: key.to_owned(),
            place: self.place.clone(),
            detail: detail.to_string(),
        };
        self.source.error(span, problem)
    }

    /// The table under `key`, which is called `place`.
    pub(super) fn section(
        &self,
        key: &str,
        place: String,
    ) -> Result<Option<Section<'a>>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Some(Section {
                source: self.source,
                place,
                span: value.span(),
                table,
            })),
            _ => Err(self.wrong_type(key, value, "a table")),
        }
    }

    /// A text without NUL: it becomes a path, an argument or a name, and none of them can have one.
    fn whole(
        &self,
        key: &str,
        span: Range<usize>,
        text: &str,
    ) -> Result<Spanned<String>, ConfigError> {
        if text.contains('\0') {
            return Err(self.bad_value(key, &span, "a text cannot hold a NUL character"));
        }
        Ok(Spanned::new(span, text.to_owned()))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<Spanned<String>>, ConfigError> {
        self.value(key)
            .map(|value| match value.get_ref() {
                DeValue::String(text) => self.whole(key, value.span(), text),
                _ => Err(self.wrong_type(key, value, "a string")),
            })
            .transpose()
    }

    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<Spanned<String>>>, ConfigError> {
        const EXPECTED: &str = "a list of strings, like [\"a\", \"b\"]";
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let DeValue::Array(elements) = value.get_ref() else {
            return Err(self.wrong_type(key, value, EXPECTED));
        };
        elements
            .iter()
            .map(|element| match element.get_ref() {
                DeValue::String(text) => self.whole(key, element.span(), text),
                _ => Err(self.wrong_type(key, element, EXPECTED)),
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }

    pub(super) fn boolean(&self, key: &str) -> Result<Option<bool>, ConfigError> {
        self.value(key)
            .map(|value| match value.get_ref() {
                DeValue::Boolean(flag) => Ok(*flag),
                _ => Err(self.wrong_type(key, value, "true or false")),
            })
            .transpose()
    }

    /// A whole number from 0 to `limit`.
    pub(super) fn count(&self, key: &str, limit: u32) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(self.wrong_type(key, value, "a whole number"));
        };
        u32::from_str_radix(number.as_str(), number.radix())
            .ok()
            .filter(|number| *number <= limit)
            .map(Some)
            .ok_or_else(|| {
                let detail = format!("`{}` is not between 0 and {limit}", number.as_str());
                self.bad_value(key, &value.span(), detail)
            })
    }

    pub(super) fn duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let DeValue::String(text) = value.get_ref() else {
            return Err(self.wrong_type(
                key,
                value,
                "a string with a unit, like \"10m\" or \"90s\"",
            ));
        };
        parse_duration(text)
            .map(Some)
            .map_err(|error| self.bad_value(key, &value.span(), error))
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.as_str().to_owned(),
            _ => return Err(self.wrong_type(key, value, "a size, like \"512MiB\" or \"2GiB\"")),
        };
        parse_size(&text)
            .map(Some)
            .map_err(|error| self.bad_value(key, &value.span(), error))
    }

    /// A number of CPUs, in thousandths.
    pub(super) fn cpus(&self, key: &str) -> Result<Option<u64>, ConfigError> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let text = match value.get_ref() {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.wrong_type(key, value, "a number of CPUs, like 2 or 0.5")),
        };
        super::quantity::parse_cpus(text)
            .map(Some)
            .map_err(|error| self.bad_value(key, &value.span(), error))
    }

    /// A table of strings.
    pub(super) fn environment(&self, key: &str) -> Result<BTreeMap<String, String>, ConfigError> {
        let place = format!("{}.{key}]", self.place.trim_end_matches(']'));
        let Some(section) = self.section(key, place)? else {
            return Ok(BTreeMap::new());
        };
        let mut environment = BTreeMap::new();
        for (name, value) in section.table {
            let DeValue::String(text) = value.get_ref() else {
                return Err(section.wrong_type(name.get_ref(), value, "a string"));
            };
            let name: &str = name.get_ref();
            if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                let detail = "is no name and value of an environment variable";
                return Err(section.bad_value(name, &value.span(), detail));
            }
            environment.insert(name.to_owned(), text.to_string());
        }
        Ok(environment)
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
