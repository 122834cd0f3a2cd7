//! Aligned columns.

use std::fmt::Write as _;

use crate::terminal::visible;

/// Rows under their headings, every column as wide as its widest cell. What cells say is others' choice: it is made
/// visible.
pub(super) fn table<const COLUMNS: usize>(
    headings: [&str; COLUMNS],
    rows: &[[String; COLUMNS]],
) -> String {
    let mut widths = headings.map(|heading| heading.chars().count());
    let cells = |row: &[String; COLUMNS]| row.each_ref().map(|cell| visible(cell).into_owned());
    let rows: Vec<_> = rows.iter().map(cells).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&headings, &widths);
    for row in &rows {
        let cells: Vec<&str> = row.iter().map(String::as_str).collect();
        text.push_str(&line(&cells, &widths));
    }
    text
}

fn line(cells: &[&str], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _infallible = write!(line, "{cell:<width$}  ");
    }
    let mut line = line.trim_end().to_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let rows = [
            ["a".to_owned(), "é".to_owned()],
            ["long".to_owned(), String::new()],
        ];
        assert_eq!(super::table(["X", "Y"], &rows), "X     Y\na     é\nlong\n");
        let rows = [["\x1b[2J".to_owned(), "b".to_owned()]];
        let shown = "X          Y\n\\u{1b}[2J  b\n";
        assert_eq!(super::table(["X", "Y"], &rows), shown);
    }
}
