//! Reads results of `upcie perf --json`.

use crate::{
    files::Place,
    input::{self, Limit},
    perf::report::{Report, SCHEMA},
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{io, path::Path};

/// A run to draw.
#[derive(Debug)]
pub struct Run {
    /// File name without directory and suffix.
    pub name: String,
    /// Results.
    pub report: Report,
}

/// Results of a run: some 250 bytes for each interval.
const LARGEST: Limit<'static> =
    Limit { bytes: 256 << 20, reason: "the most of a run to draw: measure it with a longer --interval" };

/// Reads one file.
pub fn read(path: &Path) -> anyhow::Result<Run> {
    let (text, name) = match Place::input(path) {
        Place::Path(path) => {
            let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
            (input::read(path, LARGEST)?, name)
        }
        _ => (input::read_from(io::stdin(), "stdin", LARGEST)?, "stdin".to_owned()),
    };
    let report = parse(&text)
        .with_context(|| if path == Path::new("-") { name.clone() } else { path.display().to_string() })?;
    Ok(Run { name, report })
}

fn parse(text: &[u8]) -> anyhow::Result<Report> {
    let value: Value = serde_json::from_slice(text)
        .context("not JSON: the file must be the output of `upcie perf --json`")?;
    match value.get("schema") {
        Some(schema) if *schema == SCHEMA => {}
        Some(schema) => {
            bail!(
                "the file has schema {schema}, this program reads {SCHEMA}: run `upcie perf --json` of this version again"
            )
        }
        None => bail!("not the output of `upcie perf --json`: it has no schema"),
    }
    let report: Report = serde_json::from_value(value)
        .context("not the output of `upcie perf --json`, or only a part of it")?;
    if report.devices.is_empty() {
        bail!("not the output of `upcie perf --json`: it names no device");
    }
    // Check values that would break a chart: a negative length can't be drawn.
    if report.intervals.iter().any(|interval| interval.end_ns < interval.start_ns) {
        bail!("an interval ends before it starts");
    }
    if report.intervals.iter().any(|interval| !(0.0..=1e15).contains(&interval.iops)) {
        bail!("an interval has an impossible number of IOPS");
    }
    Ok(report)
}

/// Renames runs of equal file names to their paths.
pub fn make_names_unique(runs: &mut [Run], paths: &[impl AsRef<Path>]) {
    let names: Vec<_> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, path) in runs.iter_mut().zip(paths) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = path.as_ref().display().to_string();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{compare, draw, image};
    use std::fs;

    #[test]
    fn fuzz_any_report_is_drawn_or_refused() {
        let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/perf_reports");
        let files = fs::read_dir(kept).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.collect();
        files.sort();
        let seeds: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
        assert!(seeds.iter().any(|seed| parse(seed).is_ok()), "a whole report is drawn");
        upcie_core::testing::fuzz("perf_reports", 300, &seeds, |text| {
            let Ok(report) = parse(text) else { return };
            draw(&report).unwrap();
            let run = |name: &str| Run { name: name.into(), report: parse(text).unwrap() };
            let mut runs = [run("a"), run("a")];
            make_names_unique(&mut runs, &["a/a", "b/a"]);
            image(compare::size(&runs), |root| compare::paint(root, &runs)).unwrap();
        });
    }

    #[test]
    fn invalid_reports_are_refused_with_the_reason() {
        for (text, part) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "no schema"),
            ("{\"schema\": 1}", "schema 1, this program reads 2"),
            ("{\"schema\": \"x\"}", "schema \"x\""),
            ("{\"schema\": 2}", "missing field"),
        ] {
            let error = format!("{:#}", parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
