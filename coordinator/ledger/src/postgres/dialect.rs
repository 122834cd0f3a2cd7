//! The schema in PostgreSQL's words. It is written once, in SQLite's: two texts would drift apart.

/// How a table ends whose rows SQLite numbers in the order in which they came.
const NUMBERED: &str = ") STRICT;";
/// How one ends whose rows have no such number.
const UNNUMBERED: &str = ") STRICT, WITHOUT ROWID;";

/// A migration in PostgreSQL's words. Text is compared byte by byte, as SQLite does.
pub(super) fn migration(sqlite: &str) -> String {
    let numbered = ", rowid BIGINT GENERATED ALWAYS AS IDENTITY);";
    let tables = sqlite.replace(UNNUMBERED, ");").replace(NUMBERED, numbered);
    let mut words = String::with_capacity(2 * tables.len());
    for piece in tables.split_inclusive(|it: char| !it.is_ascii_alphanumeric() && it != '_') {
        let end = piece.trim_end_matches(|it: char| !it.is_ascii_alphanumeric() && it != '_');
        let (word, rest) = piece.split_at(end.len());
        words.push_str(match word {
            "BLOB" => "BYTEA",
            "INTEGER" => "BIGINT",
            "TEXT" => "TEXT COLLATE \"C\"",
            other => other,
        });
        words.push_str(rest);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::MIGRATIONS;

    #[track_caller]
    fn check(sqlite: &str, expected: &str) {
        assert_eq!(migration(sqlite), expected);
    }

    #[test]
    fn types_and_tables_are_put_into_other_words() {
        check(
            "CREATE TABLE a (x INTEGER NOT NULL, y BLOB) STRICT, WITHOUT ROWID;",
            "CREATE TABLE a (x BIGINT NOT NULL, y BYTEA);",
        );
        check(
            "CREATE TABLE a (x TEXT PRIMARY KEY) STRICT;",
            "CREATE TABLE a (x TEXT COLLATE \"C\" PRIMARY KEY, \
             rowid BIGINT GENERATED ALWAYS AS IDENTITY);",
        );
        check(
            "ALTER TABLE a ADD COLUMN CONTEXT_INTEGER INTEGER",
            "ALTER TABLE a ADD COLUMN CONTEXT_INTEGER BIGINT",
        );
    }

    #[test]
    fn nothing_of_sqlite_is_left_in_any_migration() {
        for sqlite in MIGRATIONS {
            let postgres = migration(sqlite);
            for word in [
                "STRICT",
                "WITHOUT",
                "BLOB",
                "INTEGER",
                "AUTOINCREMENT",
                "PRAGMA",
            ] {
                assert!(!postgres.contains(word), "{word} in {postgres}");
            }
        }
    }
}
