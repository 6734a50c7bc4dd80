//! The table at the end of `cargo xtask test`: suites, places and results.

use std::time::Duration;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    /// `host`, or the name of the guest's boot.
    pub place: &'static str,
    /// Column of the matrix, if it is a suite of a mode.
    pub mode: Option<&'static str>,
    /// Capabilities that the mode lacks, as the suite reports them.
    pub lacks: Vec<String>,
    pub passed: u32,
    pub failed: u32,
    pub ignored: u32,
    pub time: Duration,
    /// Reason of a failure, in a few words.
    pub problem: Option<String>,
}

impl Row {
    /// Makes the row of a step without tests: it passes or fails.
    pub fn step(name: &str, place: &'static str, time: Duration, problem: Option<String>) -> Self {
        let failed = u32::from(problem.is_some());
        let (name, passed) = (name.to_owned(), 1 - failed);
        Self { name, place, mode: None, lacks: Vec::new(), passed, failed, ignored: 0, time, problem }
    }

    /// Makes the row of a suite from its output and exit code. With `strict` (in CI) ignored tests are a
    /// failure.
    pub fn suite(
        name: &str,
        place: &'static str,
        time: Duration,
        code: Option<i32>,
        text: &str,
        strict: bool,
    ) -> Self {
        let counts = Counts::of(text);
        let Counts { passed, failed, ignored } = counts.unwrap_or_default();
        let problem = match code {
            None => Some("missed its deadline".to_owned()),
            Some(137) => Some("killed, probably at its deadline".to_owned()),
            Some(_) if failed > 0 => Some("failed".to_owned()),
            Some(0) if counts.is_none() => Some("no test result".to_owned()),
            Some(0) if ignored > 0 && strict => Some("ignored tests, which CI does not allow".to_owned()),
            Some(0) => None,
            Some(code) => Some(format!("exit code {code}")),
        };
        let (name, lacks) = (name.to_owned(), lacks(text));
        Self { name, place, mode: None, lacks, passed, failed, ignored, time, problem }
    }

    /// Makes the row of a suite (`harness`) or of any other program.
    pub fn of(
        name: &str,
        place: &'static str,
        time: Duration,
        code: Option<i32>,
        text: &str,
        harness: bool,
        strict: bool,
    ) -> Self {
        if harness {
            return Self::suite(name, place, time, code, text, strict);
        }
        let problem = match code {
            Some(0) => None,
            Some(code) => Some(format!("exit code {code}")),
            None => Some("missed its deadline".to_owned()),
        };
        Self::step(name, place, time, problem)
    }

    /// Fails a suite without tests: it would pass by mistake.
    pub fn refuse_empty(mut self) -> Self {
        if self.problem.is_none() && self.passed + self.ignored == 0 {
            self.problem = Some("no test ran".to_owned());
        }
        self
    }

    /// Formats the row; the same line is printed at the end of the suite.
    pub fn line(&self, width: usize) -> String {
        let state = if self.problem.is_some() { "FAIL" } else { "ok" };
        let mut line = format!(
            "{state:4} {:width$} {:10} {:>6} {:>6} {:>7.1} s",
            self.name,
            self.mode.unwrap_or(self.place),
            self.passed,
            self.failed,
            self.time.as_secs_f64()
        );
        if self.ignored > 0 {
            line += &format!("  {} ignored", self.ignored);
        }
        if let Some(problem) = &self.problem {
            line += &format!("  {problem}");
        }
        line
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Counts {
    /// Adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
    fn of(text: &str) -> Option<Self> {
        let mut sum = None;
        for line in text.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            let counts: &mut Self = sum.get_or_insert_default();
            let words: Vec<_> = line.split([' ', ';']).filter(|word| !word.is_empty()).collect();
            for pair in words.windows(2) {
                let Ok(number) = pair[0].parse::<u32>() else { continue };
                match pair[1] {
                    "passed" => counts.passed += number,
                    "failed" => counts.failed += number,
                    "ignored" => counts.ignored += number,
                    _ => {}
                }
            }
        }
        sum
    }
}

/// Prefix of a suite's line about a capability that its mode lacks. The suite has checked that its use is
/// refused.
const LACKS: &str = "upcie-test: lacks: ";

/// Collects the missing capabilities from a suite's output, each once.
fn lacks(text: &str) -> Vec<String> {
    let mut all: Vec<_> =
        text.lines().filter_map(|line| Some(line.split_once(LACKS)?.1.trim().to_owned())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Prefix of a suite's line of a table that is to be seen although the suite passes.
const TABLE: &str = "upcie-test: table: ";

/// Returns the tables in a suite's output.
pub fn tables(text: &str) -> String {
    let lines = text.lines().filter_map(|line| Some(line.split_once(TABLE)?.1.trim_end()));
    lines.map(|line| format!("  {line}\n")).collect()
}

/// Formats the table of all steps without a mode, and of all failures.
pub fn table(rows: &[Row]) -> String {
    let rows = || rows.iter().filter(|row| row.mode.is_none() || row.problem.is_some());
    let width = rows().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text =
        format!("     {:width$} {:10} {:>6} {:>6} {:>9}\n", "suite", "where", "passed", "failed", "time");
    for row in rows() {
        text += &row.line(width);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Row, lacks, tables};

    const TEXT: &str = "running 4 tests\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";

    #[test]
    fn counts_are_added_up() {
        let row = Row::suite("a", "host", Duration::ZERO, Some(0), TEXT, false);
        assert_eq!((row.passed, row.failed, row.ignored, row.problem), (5, 0, 1, None));
    }

    #[test]
    fn a_suite_that_did_not_run_fails() {
        let problem =
            |code, text, strict| Row::suite("a", "host", Duration::ZERO, code, text, strict).problem;
        assert!(problem(Some(0), TEXT, true).is_some(), "ignored tests pass in CI");
        assert!(problem(Some(0), "", false).is_some(), "silence passes");
        assert!(problem(Some(101), TEXT, false).is_some(), "a bad exit code passes");
        assert!(problem(None, TEXT, false).is_some(), "a deadline passes");
    }

    #[test]
    fn a_table_of_a_suite_that_passes_is_found() {
        let text = "test a ... \nupcie-test: table: one  two \ntest b ... upcie-test: table: three\nok\n";
        assert_eq!(tables(text), "  one  two\n  three\n");
    }

    #[test]
    fn a_missing_capability_is_found_once() {
        let text = "test a ... \nupcie-test: lacks: interrupts: polling only\nok\ntest b ... upcie-test: lacks: \
                    interrupts: polling only\n";
        assert_eq!(lacks(text), ["interrupts: polling only"]);
        assert!(lacks("test a ... ok\n").is_empty());
    }
}
