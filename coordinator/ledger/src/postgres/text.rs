//! Any text, for a database that takes any character but NUL.
//!
//! NUL and the character after it are written as two, so that every text reads back as it was and texts
//! are still ordered byte by byte.

use std::borrow::Cow;

const MARK: char = '\u{1}';

pub(super) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', MARK]) {
        return Cow::Borrowed(text);
    }
    let marked = text.replace(MARK, "\u{1}\u{2}");
    Cow::Owned(marked.replace('\0', "\u{1}\u{1}"))
}

pub(super) fn unescape(text: String) -> String {
    if !text.contains(MARK) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            MARK if characters.next() == Some('\u{1}') => '\0',
            other => other,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_read_back_and_keep_their_order(one in "[\0\u{1}\u{2}a]{0,6}", other in "[\0\u{1}\u{2}a]{0,6}") {
            let stored = escape(&one).into_owned();
            prop_assert!(!stored.contains('\0'));
            prop_assert_eq!(stored.as_str().cmp(&*escape(&other)), one.as_str().cmp(&other));
            prop_assert_eq!(unescape(stored), one);
        }
    }
}
