//! The matrix at the end of `cargo xtask test`: suites by mode, with notes on missing capabilities.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::suites::row::Row;

/// Formats the matrix of all rows that belong to a mode. Leaves out columns without a row.
pub fn matrix(rows: &[Row], columns: impl Iterator<Item = &'static str>) -> String {
    let cells: BTreeMap<(&str, &str), &Row> =
        rows.iter().filter_map(|row| Some(((row.name.as_str(), row.mode?), row))).collect();
    let columns: Vec<_> = columns.filter(|column| cells.keys().any(|(_, mode)| mode == column)).collect();
    let mut suites: Vec<_> = cells.keys().map(|(suite, _)| *suite).collect();
    suites.dedup();
    let mut notes: Vec<&str> = Vec::new();
    let mut lines = vec![[vec!["suite"], columns.clone()].concat().iter().map(|&word| word.into()).collect()];
    for suite in suites {
        let mut line: Vec<String> = vec![suite.to_owned()];
        for column in &columns {
            line.push(cells.get(&(suite, *column)).map_or(String::new(), |row| cell(row, &mut notes)));
        }
        lines.push(line);
    }
    let widths: Vec<_> = (0..=columns.len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (word, &width) in line.iter().zip(&widths) {
            // Writing to a string can't fail.
            let _ = write!(out, "{word:width$}  ");
        }
        text += out.trim_end();
        text.push('\n');
    }
    for (number, note) in notes.iter().enumerate() {
        let _ = writeln!(text, "[{}] {note}", number + 1);
    }
    text
}

/// Formats the number of passed tests, or of passed and failed ones, and the numbers of notes.
fn cell<'a>(row: &'a Row, notes: &mut Vec<&'a str>) -> String {
    let mut text = match &row.problem {
        None => row.passed.to_string(),
        Some(_) => format!("{}/{} FAIL", row.passed, row.failed),
    };
    for lack in &row.lacks {
        let at = notes.iter().position(|note| note == lack).unwrap_or_else(|| {
            notes.push(lack);
            notes.len() - 1
        });
        let _ = write!(text, " [{}]", at + 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::matrix;
    use crate::suites::row::Row;

    fn row(suite: &str, mode: &'static str, problem: Option<&str>, lacks: &[&str]) -> Row {
        let mut row = Row::step(suite, mode, Duration::ZERO, problem.map(str::to_owned));
        row.mode = Some(mode);
        row.lacks = lacks.iter().map(|&text| text.to_owned()).collect();
        row
    }

    #[test]
    fn every_cell_is_below_its_mode() {
        let rows = [
            row("queues", "vfio", None, &[]),
            row("queues", "sysfs", None, &["interrupts"]),
            row("bring_up", "sysfs", Some("failed"), &["interrupts"]),
            Row::step("format", "host", Duration::ZERO, None),
        ];
        let text = matrix(&rows, ["emu", "vfio", "sysfs"].into_iter());
        let wanted = "suite     vfio  sysfs\n\
                      bring_up        0/1 FAIL [1]\n\
                      queues    1     1 [1]\n\
                      [1] interrupts\n";
        assert_eq!(text, wanted);
    }
}
