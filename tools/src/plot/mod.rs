//! `upcie plot`: what `upcie perf --json` wrote, as an image.

mod axis;
mod chart;
mod compare;
mod read;
mod single;

use crate::{outcome::Outcome, perf::report::Report};
use anyhow::{Context, anyhow};
use chart::{Area, Drawn};
use clap::Args;
use plotters::prelude::*;
use std::{fs, path::PathBuf};

/// For `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie perf emu --json > emu.json
  upcie plot emu.json --out emu.svg
      one run: latency by percentile, IOPS and p99 over time
  upcie plot qd1.json qd32.json qd128.json --out depths.svg
      several: IOPS, p99, and their latencies by percentile in one chart";

/// More would not be told apart.
const MOST: usize = 16;

/// Arguments of `upcie plot`.
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// What `upcie perf --json` wrote; the legend has the files' names
    #[arg(value_name = "FILE.json", required = true)]
    files: Vec<PathBuf>,
    /// The image
    #[arg(long, short = 'o', value_name = "FILE.svg")]
    out: PathBuf,
}

/// Runs it.
pub fn run(args: &PlotArgs) -> anyhow::Result<Outcome> {
    let files = &args.files;
    anyhow::ensure!(files.len() <= MOST, "{} files are given: at most {MOST} are told apart", files.len());
    let out = fs::canonicalize(&args.out).ok();
    if let Some(file) = files.iter().find(|file| out.is_some() && fs::canonicalize(file).ok() == out) {
        anyhow::bail!("{}: --out would overwrite what is to be drawn", file.display());
    }
    let mut runs = files.iter().map(|path| read::read(path)).collect::<anyhow::Result<Vec<_>>>()?;
    read::tell_apart(&mut runs, files);
    let svg = match runs.as_slice() {
        [run] => draw(&run.report)?,
        runs => image(compare::size(runs), |root| compare::paint(root, runs))?,
    };
    fs::write(&args.out, svg).with_context(|| format!("writing {}", args.out.display()))?;
    Ok(Outcome::Done)
}

/// One run as an SVG image.
pub fn draw(report: &Report) -> anyhow::Result<String> {
    image(single::size(report), |root| single::paint(root, report))
}

fn image(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&root).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    }
    Ok(svg)
}
