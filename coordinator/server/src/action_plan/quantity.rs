//! Amounts of CPU and memory, as people write them into platform properties.

/// Why a text is no amount. Fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct ParseQuantityError {
    text: String,
    expected: &'static str,
}

const CPU: &str = "a number of CPUs such as `2`, `0.5` or `500m`, more than zero";
const MEMORY: &str = "a number of bytes such as `1073741824`, `512M` or `2GiB`, more than zero";

/// Thousandths of a CPU: `2` and `0.5` are CPUs, `500m` is thousandths of one.
///
/// # Errors
/// The text is neither, or is zero.
pub fn parse_cpu_milli(text: &str) -> Result<u64, ParseQuantityError> {
    let parsed = match text.strip_suffix('m') {
        Some(milli) => decimal(milli),
        None => thousandths(text),
    };
    above_zero(parsed, text, CPU)
}

/// Bytes: a plain number, or one with K, M, G or T (and optionally `i`, `B` or `iB`), all of them powers
/// of 1024 as Docker and systemd have it.
///
/// # Errors
/// The text is neither, is zero, or exceeds what 64 bits hold.
pub fn parse_memory_bytes(text: &str) -> Result<u64, ParseQuantityError> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = &text[digits.len()..];
    let parsed =
        shift_of(unit).and_then(|shift| decimal(digits)?.checked_mul(1u64.checked_shl(shift)?));
    above_zero(parsed, text, MEMORY)
}

fn above_zero(
    parsed: Option<u64>,
    text: &str,
    expected: &'static str,
) -> Result<u64, ParseQuantityError> {
    parsed
        .filter(|amount| *amount > 0)
        .ok_or_else(|| ParseQuantityError {
            text: text.to_owned(),
            expected,
        })
}

fn shift_of(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    match unit {
        "" => Some(0),
        "k" => Some(10),
        "m" => Some(20),
        "g" => Some(30),
        "t" => Some(40),
        _ => None,
    }
}

/// A number of digits alone, which `str::parse` is too generous for.
fn decimal(text: &str) -> Option<u64> {
    let all_digits = !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    all_digits.then(|| text.parse().ok())?
}

/// A decimal fraction with at most three places, in thousandths.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    if places.len() > 3 {
        return None;
    }
    let milli = decimal(&format!("{places:0<3}"))?;
    decimal(places)?;
    decimal(whole)?.checked_mul(1000)?.checked_add(milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_whole_fractions_or_thousandths() {
        let check = |text, milli| assert_eq!(parse_cpu_milli(text).ok(), milli, "{text}");
        check("2", Some(2000));
        check("0.5", Some(500));
        check("1.25", Some(1250));
        check("250m", Some(250));
        for bad in [
            "", "0", "0m", "-1", "+1", "1.", ".5", "1.2345", "two", "1e3", "m",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn memory_is_bytes_or_powers_of_1024() {
        let check = |text, bytes| assert_eq!(parse_memory_bytes(text).ok(), bytes, "{text}");
        check("1000", Some(1000));
        check("512M", Some(512 << 20));
        check("512MiB", Some(512 << 20));
        check("2g", Some(2 << 30));
        check("3Ki", Some(3 << 10));
        check("4kB", Some(4 << 10));
        for bad in [
            "",
            "0",
            "M",
            "-1M",
            "1.5G",
            "1X",
            "99999999999T",
            "1 GB",
            "é",
        ] {
            check(bad, None);
        }
    }
}
