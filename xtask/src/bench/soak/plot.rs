//! A picture of a few figures over time, in plain characters.

/// How large it is, without what is written beside it.
const WIDTH: usize = 60;
const HEIGHT: usize = 8;

/// A figure over time. Of two in one place, the later one is seen.
pub(super) struct Line {
    pub(super) mark: char,
    pub(super) what: &'static str,
    pub(super) values: Vec<f64>,
}

/// Draws figures that have one unit, from 0 on.
pub(super) fn draw(unit: &str, lines: &[Line], length: &str) -> String {
    let values = lines.iter().flat_map(|line| &line.values);
    let most = values.copied().fold(0.0, f64::max);
    let step = round_up(most / HEIGHT as f64);
    let mut rows = [[' '; WIDTH]; HEIGHT];
    for line in lines {
        for (column, value) in columns(&line.values).enumerate() {
            let row = rows.iter_mut().enumerate().find(|(row, _)| {
                // What is exactly on a line is above it.
                value < step * (*row + 1) as f64
            });
            if let Some((_, row)) = row {
                row[column] = line.mark;
            }
        }
    }
    let legend: Vec<String> = lines
        .iter()
        .map(|line| format!("{} {}", line.mark, line.what))
        .collect();
    let mut picture = format!("{unit:>6}    {}\n", legend.join(", "));
    for (number, row) in rows.iter().enumerate().rev() {
        let row: String = row.iter().collect();
        let label = step * number as f64;
        picture.push_str(&format!("{label:>6} |{}\n", row.trim_end()));
    }
    picture.push_str(&format!("{:>6} +{}\n", "", "-".repeat(WIDTH)));
    picture.push_str(&format!("{:>6}  0{length:>width$}", "", width = WIDTH - 1));
    picture
}

/// What a column shows: the most of its part of the time.
fn columns(values: &[f64]) -> impl Iterator<Item = f64> {
    let count = if values.is_empty() { 0 } else { WIDTH };
    (0..count).map(move |column| {
        let from = column * values.len() / WIDTH;
        let to = ((column + 1) * values.len()).div_ceil(WIDTH);
        values[from..to].iter().copied().fold(0.0, f64::max)
    })
}

/// The next number that is easy to read; more than `least`, so that the most is within the picture.
fn round_up(least: f64) -> f64 {
    let steps = [
        1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0, 200.0, 250.0, 500.0, 1000.0,
    ];
    let step = steps.into_iter().find(|step| *step > least);
    step.unwrap_or_else(|| least.ceil() + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_where_they_belong() {
        let line = |mark, values: Vec<f64>| Line {
            mark,
            what: "it",
            values,
        };
        let rising: Vec<f64> = (0..360).map(|it| f64::from(it) / 360.0 * 79.0).collect();
        let picture = draw("MiB", &[line('r', rising), line('f', vec![25.0])], "60 min");
        let rows: Vec<&str> = picture.lines().collect();
        assert_eq!(rows.len(), HEIGHT + 3);
        assert!(rows.iter().all(|row| row.len() <= 70), "{picture}");
        assert_eq!(rows[0], "   MiB    r it, f it");
        let flat = format!("    20 |{}", "f".repeat(WIDTH));
        assert_eq!(rows[6], flat, "{picture}");
        assert!(
            rows[1].starts_with("    70 |  ") && rows[1].ends_with("rrr"),
            "{picture}"
        );
        assert!(rows[8].starts_with("     0 |rrr"), "{picture}");
        assert!(rows[10].ends_with("60 min"));
    }

    #[test]
    fn nothing_is_a_picture_too() {
        let nothing = Line {
            mark: 'n',
            what: "nothing",
            values: Vec::new(),
        };
        assert_eq!(draw("MiB", &[nothing], "0 min").lines().count(), HEIGHT + 3);
    }
}
