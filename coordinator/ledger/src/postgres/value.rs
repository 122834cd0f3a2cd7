//! What statements are given, and what rows give back.

use bytes::Bytes;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::text::{escape, unescape};
use crate::LedgerError;
use crate::rows::{Columns, corrupt};

/// A parameter of a statement. Lists are spread over rows by `UNNEST`.
#[derive(Debug)]
pub(super) enum Value<'a> {
    Text(Option<String>),
    Number(Option<i64>),
    Texts(Vec<Option<String>>),
    Numbers(Vec<Option<i64>>),
    Blobs(Vec<&'a [u8]>),
}

impl Value<'_> {
    pub(super) fn text(text: &str) -> Self {
        Self::optional_text(Some(text))
    }

    pub(super) fn optional_text(text: Option<&str>) -> Self {
        Self::Text(text.map(|text| escape(text).into_owned()))
    }

    pub(super) const fn number(number: i64) -> Self {
        Self::Number(Some(number))
    }

    pub(super) fn texts<'b>(texts: impl IntoIterator<Item = &'b str>) -> Self {
        Self::optional_texts(texts.into_iter().map(Some))
    }

    pub(super) fn optional_texts<'b>(texts: impl IntoIterator<Item = Option<&'b str>>) -> Self {
        let escaped = |text: Option<&str>| text.map(|text| escape(text).into_owned());
        Self::Texts(texts.into_iter().map(escaped).collect())
    }

    pub(super) fn numbers(numbers: impl IntoIterator<Item = i64>) -> Self {
        Self::Numbers(numbers.into_iter().map(Some).collect())
    }

    /// With its type, so that nobody has to ask the database for it first.
    pub(super) fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Number(number) => (number, Type::INT8),
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
            Self::Blobs(blobs) => (blobs, Type::BYTEA_ARRAY),
        }
    }
}

fn column<'a, Wanted: FromSql<'a>>(row: &'a Row, index: usize) -> Result<Wanted, LedgerError> {
    row.try_get(index).map_err(corrupt)
}

impl Columns for Row {
    fn text(&self, index: usize) -> Result<String, LedgerError> {
        column(self, index).map(unescape)
    }

    fn optional_text(&self, index: usize) -> Result<Option<String>, LedgerError> {
        column::<Option<String>>(self, index).map(|text| text.map(unescape))
    }

    fn number(&self, index: usize) -> Result<i64, LedgerError> {
        column(self, index)
    }

    fn optional_number(&self, index: usize) -> Result<Option<i64>, LedgerError> {
        column(self, index)
    }

    fn bytes(&self, index: usize) -> Result<Bytes, LedgerError> {
        column::<&[u8]>(self, index).map(Bytes::copy_from_slice)
    }
}
