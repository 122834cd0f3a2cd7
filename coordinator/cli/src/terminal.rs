//! What others have printed, so that a terminal shows it and does nothing else. Pure.
//!
//! A test may print what moves the cursor, clears the screen or answers in the user's name. Colours and line
//! ends are let through; whatever else a terminal would act on is shown as a picture of itself. Names and messages
//! have no colours: [`visible`] leaves nothing in them that is not seen, wherever they go.

use std::borrow::Cow;
use std::fmt::Write as _;

/// More parameters than this are no colour (ECMA-48, "SGR").
const MAX_SEQUENCE_BYTES: usize = 32;
const ESCAPE: u8 = 0x1b;
const DELETE: u8 = 0x7f;
const CARRIAGE_RETURN: u8 = b'\r';
/// Begins the encoding of the control characters U+0080 to U+009F, which are others' escape sequences.
const LATIN_1: u8 = 0xc2;

/// Makes a stream of bytes harmless, wherever its pieces are cut.
#[derive(Debug, Default)]
pub struct HarmlessText {
    /// What has begun and may be a colour, a line end or a control character.
    held: Vec<u8>,
}

impl HarmlessText {
    /// All of a text.
    #[must_use]
    pub fn whole(text: &[u8]) -> Vec<u8> {
        let mut harmless = Self::default();
        let mut shown = harmless.piece(text);
        shown.extend(harmless.rest());
        shown
    }

    /// What to show of the next piece.
    #[must_use]
    pub fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(bytes.len());
        bytes.iter().for_each(|byte| self.byte(*byte, &mut shown));
        shown
    }

    /// What to show of what was held when nothing more comes.
    #[must_use]
    pub fn rest(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        self.let_go(&mut shown);
        shown
    }

    fn byte(&mut self, byte: u8, shown: &mut Vec<u8>) {
        let is_parameter = byte.is_ascii_digit() || matches!(byte, b';' | b':');
        match (self.held.as_slice(), byte) {
            ([CARRIAGE_RETURN], b'\n') | ([ESCAPE, b'[', ..], b'm') => {
                shown.append(&mut self.held);
                shown.push(byte);
            }
            ([LATIN_1], 0x80..=0x9f) => {
                self.held.clear();
                push(char::REPLACEMENT_CHARACTER, shown);
            }
            ([ESCAPE], b'[') => self.held.push(byte),
            ([ESCAPE, b'[', ..], _) if is_parameter && self.held.len() < MAX_SEQUENCE_BYTES => {
                self.held.push(byte);
            }
            ([], ESCAPE | CARRIAGE_RETURN | LATIN_1) => self.held.push(byte),
            ([], _) => show(byte, shown),
            (_, _) => {
                self.let_go(shown);
                self.byte(byte, shown);
            }
        }
    }

    /// It was nothing that may pass: each byte of it for itself.
    fn let_go(&mut self, shown: &mut Vec<u8>) {
        std::mem::take(&mut self.held)
            .into_iter()
            .for_each(|byte| show(byte, shown));
    }
}

fn show(byte: u8, shown: &mut Vec<u8>) {
    match byte {
        b'\n' | b'\t' => shown.push(byte),
        // Unicode's control pictures are in the order of the characters.
        0..0x20 => push(picture(u32::from(byte)), shown),
        DELETE => push(picture(0x21), shown),
        _ => shown.push(byte),
    }
}

fn picture(offset: u32) -> char {
    char::from_u32(0x2400 + offset).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn push(character: char, shown: &mut Vec<u8>) {
    shown.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// A name, such as a test's id, or a line of a message: what nobody would see, or what moves other text, is
/// written as `\u{1b}` is in Rust. Different texts stay different.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    shown_but(text, true, |_, _| false)
}

/// The same of a text with lines, which may begin with tabs. It tells nothing from anything else, so that what looks like
/// an escape, as in what Rust's tests say, stays as it is.
#[must_use]
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    shown_but(text, false, |character, after| {
        matches!(character, '\n' | '\t') || character == '\r' && after.starts_with('\n')
    })
}

/// The same of what a log says, in one line. Names are quoted there as Rust does, and what looks like an escape stays as it is.
#[must_use]
pub fn visible_value(text: &str) -> Cow<'_, str> {
    shown_but(text, false, |_, _| false)
}

/// JSON that holds the same, in which nothing is not seen. Only what is between quotes can be anything else.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    let is_hidden = |character| character != '\n' && is_hidden(character);
    if !json.contains(is_hidden) {
        return json.into();
    }
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if !is_hidden(character) {
            shown.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _infallible = write!(shown, "\\u{unit:04x}");
        }
    }
    shown.into()
}

fn shown_but(text: &str, distinct: bool, passes: fn(char, &str) -> bool) -> Cow<'_, str> {
    const ESCAPED: &str = "\\u{";
    let is_odd = text.contains(is_hidden) || distinct && text.contains(ESCAPED);
    if !is_odd {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        let after = &text[at + character.len_utf8()..];
        // What looks like an escape is none.
        let looks_escaped = distinct && text[at..].starts_with(ESCAPED);
        match (is_hidden(character) && !passes(character, after)) || looks_escaped {
            true => shown.extend(character.escape_unicode()),
            false => shown.push(character),
        }
    }
    shown.into()
}

/// Whether a character is not seen, or has others be seen elsewhere (Unicode's "Default_Ignorable_Code_Point" and
/// "Bidi_Control", less what joins letters and emoji), or is none that XML may have.
const fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{0}'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{61c}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{fffe}'
            | '\u{ffff}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = HarmlessText::whole(text.as_bytes());
        assert_eq!(String::from_utf8_lossy(&shown), expected, "{text:?}");
    }

    #[test]
    fn colours_and_lines_pass_and_nothing_else_does() {
        for text in [
            "plain\ttext\r\n",
            "\x1b[1;38:5:208mbold\x1b[0m\x1b[m",
            "größe 文件 Â£",
        ] {
            check(text, text);
        }
        for (text, expected) in [
            ("\x1b[2J\x1b[Hgone", "␛[2J␛[Hgone"),
            ("\x1b]0;title\x07", "␛]0;title␇"),
            ("\x1b]52;c;aGk=\x1b\\", "␛]52;c;aGk=␛\\"),
            ("FAIL\rPASS", "FAIL␍PASS"),
            ("a\x08b\x7f\0", "a␈b␡␀"),
            ("\u{9b}2J\u{85}", "\u{fffd}2J\u{fffd}"),
            ("\x1b[?25l\x1b[31", "␛[?25l␛[31"),
            ("\x1b\x1b[31mred\r", "␛\x1b[31mred␍"),
        ] {
            check(text, expected);
        }
        let endless = format!("\x1b[{}m", "1".repeat(MAX_SEQUENCE_BYTES));
        check(&endless, &endless.replace('\x1b', "␛"));
    }

    fn names() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "\x0b",
            "\\",
            "u{",
            "b}",
            "\u{202e}",
            "a",
            "\n",
            "\u{e0041}",
            "\u{85}",
        ]);
        let pieces = prop::collection::vec(piece, 0..5);
        pieces.prop_map(|pieces| pieces.concat())
    }

    fn texts() -> impl Strategy<Value = Vec<u8>> {
        let bytes = prop::sample::select(b"\x1b\x1b[[m;1J\r\n\xc2\x9b\x80a\x07\xe2".to_vec());
        prop::collection::vec(bytes, 0..40)
    }

    #[test]
    fn names_hide_nothing() {
        for (name, shown) in [
            ("größe 文件 👩‍🚀 a\\b \\u", "größe 文件 👩‍🚀 a\\b \\u"),
            ("v\x0btz", "v\\u{b}tz"),
            ("\x1b[31mred\u{9b}m", "\\u{1b}[31mred\\u{9b}m"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("a\nb\r\n\tc\r", "a\\u{a}b\\u{d}\\u{a}\\u{9}c\\u{d}"),
            ("v\\u{b}tz", "v\\u{5c}u{b}tz"),
        ] {
            assert_eq!(visible(name), shown);
        }
        assert_eq!(
            visible_lines("a\nb\r\n\tc\rd\x1b"),
            "a\nb\r\n\tc\\u{d}d\\u{1b}"
        );
    }

    proptest! {
        #[test]
        fn different_names_are_seen_to_differ(one in names(), other in names()) {
            let (shown, other_shown) = (visible(&one), visible(&other));
            prop_assert!(!shown.contains(is_hidden), "{}", shown);
            prop_assert_eq!(one == other, shown == other_shown);
        }

        #[test]
        fn json_holds_the_same(name in names()) {
            let json = serde_json::to_string(&[&name]).expect("JSON") + "\n";
            let shown = visible_json(&json);
            prop_assert!(!shown.trim_end().contains(is_hidden), "{}", shown);
            let read: Vec<String> = serde_json::from_str(&shown).expect("JSON");
            prop_assert_eq!(read, [name]);
        }

        #[test]
        fn it_is_all_the_same_where_pieces_are_cut(text in texts(), at in any::<prop::sample::Index>()) {
            let (one, other) = text.split_at(at.index(text.len() + 1));
            let mut harmless = HarmlessText::default();
            let mut shown = harmless.piece(one);
            shown.extend(harmless.piece(other));
            shown.extend(harmless.rest());
            prop_assert_eq!(shown, HarmlessText::whole(&text));
        }

        #[test]
        fn what_is_harmless_stays_as_it_is(text in texts()) {
            let once = HarmlessText::whole(&text);
            prop_assert_eq!(&HarmlessText::whole(&once), &once);
        }

        #[test]
        fn no_terminal_acts_on_it(text in texts()) {
            let shown = HarmlessText::whole(&text);
            for (place, byte) in shown.iter().enumerate() {
                let after = &shown[place + 1..];
                match *byte {
                    ESCAPE => {
                        let end = after.iter().position(|byte| byte.is_ascii_alphabetic());
                        let end = end.expect("a sequence ends");
                        prop_assert_eq!((after[0], after[end]), (b'[', b'm'));
                    }
                    CARRIAGE_RETURN => prop_assert_eq!(after.first(), Some(&b'\n')),
                    LATIN_1 => prop_assert!(!matches!(after.first(), Some(0x80..=0x9f))),
                    other => prop_assert!(other >= 0x20 && other != DELETE || b"\n\t".contains(&other)),
                }
            }
        }
    }
}
