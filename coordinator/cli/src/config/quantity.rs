//! Amounts as people write them: `1h30m`, `512MiB`, `0.5`.

use std::time::Duration;

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// The text is no duration.
    #[error(
        "`{text}` is no duration; write numbers with units d, h, m, s or ms, like 10m or 1h30m"
    )]
    Duration {
        /// The text found.
        text: String,
    },
    /// The text is no size.
    #[error(
        "`{text}` is no size; write a whole number with one of the units B, kB, MB, GB, TB, KiB, MiB, GiB and TiB, like 512MiB"
    )]
    Size {
        /// The text found.
        text: String,
    },
    /// The text is no number of CPUs.
    #[error("`{text}` is no number of CPUs; write a number above 0, like 2 or 0.5")]
    Cpus {
        /// The text found.
        text: String,
    },
}

/// Reads a duration such as `90s`, `1h30m`, `7d` or `250ms`; it is longer than nothing.
///
/// # Errors
/// The text is no duration, or one of zero length.
pub fn parse_duration(text: &str) -> Result<Duration, ParseQuantityError> {
    duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| ParseQuantityError::Duration {
            text: text.to_owned(),
        })
}

fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_length = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_length);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        let part = Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(milliseconds)?);
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(total)
}

/// Splits `text` behind its leading digits, of which there is at least one.
fn split_number(text: &str) -> Option<(&str, &str)> {
    let length = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (length > 0).then(|| text.split_at(length))
}

/// Reads a size in bytes such as `512MiB`, `500MB` or `1024`.
///
/// # Errors
/// The text is no size.
pub fn parse_size(text: &str) -> Result<u64, ParseQuantityError> {
    size(text).ok_or_else(|| ParseQuantityError::Size {
        text: text.to_owned(),
    })
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Reads a number of CPUs such as `2` or `0.5`, in thousandths; it is above zero.
///
/// # Errors
/// The text is no such number, or has more than three decimals.
pub fn parse_cpus(text: &str) -> Result<u64, ParseQuantityError> {
    cpus(text)
        .filter(|milli| *milli > 0)
        .ok_or_else(|| ParseQuantityError::Cpus {
            text: text.to_owned(),
        })
}

fn cpus(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let (_, rest) = split_number(decimals)?;
    if !rest.is_empty() || decimals.len() > 3 {
        return None;
    }
    let milli = format!("{decimals:0<3}").parse::<u64>().ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000)?
        .checked_add(milli)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("500 MB"), Ok(500_000_000));
        assert_eq!(parse_size("1024"), Ok(1024));
        assert_eq!(parse_size("100TiB"), Ok(100 << 40));
        assert_eq!(parse_size("2TB"), Ok(2_000_000_000_000));
        assert_eq!(parse_cpus("2"), Ok(2000));
        assert_eq!(parse_cpus("0.25"), Ok(250));
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "10",
            "m",
            "1x",
            "-1s",
            "0s",
            "99999999999999999999h",
            "1 h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for text in ["", "0", "-1", "1.2345", "1.", "x"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
