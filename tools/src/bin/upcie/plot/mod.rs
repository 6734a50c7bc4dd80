//! `upcie plot`: draws the results of `upcie perf --json`.

mod axis;
mod chart;
mod compare;
mod read;
mod single;

use crate::{
    cli,
    files::{self, Output, Place, Use},
    outcome::Outcome,
    perf::report::Report,
};
use anyhow::{Context, anyhow, ensure};
use chart::{Area, DrawResult};
use clap::Args;
use plotters::prelude::*;
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie perf emu --json > emu.json
  upcie plot emu.json --out emu.svg
      one run: latency by percentile, IOPS and p99 over time
  upcie plot qd1.json qd32.json qd128.json --out depths.svg
      several runs: IOPS, p99 and all latencies by percentile in one chart
  upcie perf emu --json | upcie plot - > emu.svg
      - is stdin; the image goes to stdout unless that is a terminal";

/// Largest number of runs that an image can show clearly.
const MOST: usize = 16;

/// Arguments of `upcie plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Output of `upcie perf --json`, or - for stdin; the file name is shown in the legend
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// Image to write, or - for stdout [default: stdout, or on a terminal a file named after the first
    /// FILE.json]
    #[arg(long, short = 'o', value_name = "FILE.svg")]
    out: Option<PathBuf>,
}

/// Runs `upcie plot`.
pub fn run(args: &PlotArgs) -> anyhow::Result<Outcome> {
    let files = &args.files;
    ensure!(files.len() <= MOST, "{} files are given: at most {MOST} fit into one image", files.len());
    let stdin = files.iter().filter(|file| matches!(Place::input(file), Place::Stdin)).count();
    ensure!(stdin <= 1, "- is given {stdin} times: stdin can be read only once");
    ensure!(stdin == 0 || !io::stdin().is_terminal(), "nothing to draw: name a file, or pipe results in");
    let out = match &args.out {
        Some(path) => path.clone(),
        None if io::stdout().is_terminal() => default_name(files),
        None => "-".into(),
    };
    let place = Place::output(&out);
    if let Place::Path(path) = place {
        files::check_is_svg("--out", path)?;
    }
    let mut uses = vec![Use::writes(format!("--out {}", out.display()), place)];
    uses.extend(files.iter().map(|file| Use::reads(file.display().to_string(), Place::input(file))));
    files::check_distinct(&uses)?;
    let mut runs = files.iter().map(|path| read::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    read::make_names_unique(&mut runs, files);
    let svg = match runs.as_slice() {
        [run] => draw(&run.report)?,
        runs => image(compare::size(runs), |root| compare::paint(root, runs))?,
    };
    let Place::Path(path) = place else {
        cli::print(svg.as_bytes())?;
        return Ok(Outcome::Done);
    };
    Output::open(path)?.write_all(svg.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    if args.out.is_none() {
        cli::message(&format!("upcie: the image is in {}", path.display()));
    }
    Ok(Outcome::Done)
}

/// Chooses the name of an image that is stored next to its results.
fn default_name(files: &[PathBuf]) -> PathBuf {
    match files {
        [one] if matches!(Place::input(one), Place::Path(_)) => one.with_extension("svg"),
        _ => "plot.svg".into(),
    }
}

/// Draws one run as an SVG image.
pub fn draw(report: &Report) -> anyhow::Result<String> {
    image(single::size(report), |root| single::paint(root, report))
}

fn image(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> DrawResult) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&root).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    }
    Ok(svg)
}
