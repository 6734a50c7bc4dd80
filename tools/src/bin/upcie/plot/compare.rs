//! Several runs in one image: bars of IOPS and p99, and curves of latency.

use super::{
    chart::{ALARM, Area, Curve, DrawResult, INK, colour, fitted, font, percentiles},
    read::Run,
};
use crate::units;
use plotters::prelude::*;

const WIDTH: u32 = 1100;
const CHART: u32 = 520;
const HEAD: u32 = 74;
const ROW: u32 = 58;
/// Additional height of a run that had problems.
const ALARM_ROW: u32 = 18;
/// Left ends of the bars' columns, and width of the largest bar.
const IOPS: i32 = 470;
const P99: i32 = 800;
const BAR: f64 = 190.0;

/// Returns the size of the image.
pub fn size(runs: &[Run]) -> (u32, u32) {
    (WIDTH, HEAD + rows(runs) + CHART)
}

fn height(run: &Run) -> u32 {
    if run.report.problems().is_empty() { ROW } else { ROW + ALARM_ROW }
}

fn rows(runs: &[Run]) -> u32 {
    runs.iter().map(height).sum()
}

/// Draws the image.
pub fn paint(root: &Area<'_>, runs: &[Run]) -> DrawResult {
    root.fill(&WHITE)?;
    let (head, chart) = root.split_vertically(HEAD + rows(runs));
    head.draw(&Text::new(format!("{} runs", runs.len()), (20, 14), font(20)))?;
    for (at, name) in [(IOPS, "IOPS"), (P99, "p99 latency")] {
        head.draw(&Text::new(name, (at, 46), font(14)))?;
    }
    let iops = |run: &Run| run.report.counts.total.iops;
    let p99 = |run: &Run| run.report.counts.total.latency_ns.as_ref().map(|latency| latency.p99 as f64);
    let most_iops = runs.iter().map(iops).fold(0.0, f64::max);
    let most_p99 = runs.iter().filter_map(p99).fold(0.0, f64::max);
    for (i, run) in runs.iter().enumerate() {
        let top = (HEAD + rows(&runs[..i])) as i32;
        row(&head, run, i, top)?;
        bar(&head, IOPS, top, colour(i), iops(run) / most_iops, &units::count(iops(run)))?;
        match p99(run) {
            Some(ns) => bar(&head, P99, top, colour(i), ns / most_p99, &units::nanos(ns))?,
            None => head.draw(&Text::new("no I/O succeeded", (P99, top + 16), font(13)))?,
        }
    }
    let curve = |(i, run): (usize, &Run)| Curve::of(run.name.clone(), &run.report.counts.total, i);
    let curves: Vec<_> = runs.iter().enumerate().filter_map(curve).collect();
    if curves.is_empty() {
        chart.draw(&Text::new("No I/O succeeded in any run.", (20, 20), font(16)))?;
    } else {
        // The rows above serve as the legend.
        percentiles(&chart, &curves)?;
    }
    Ok(root.present()?)
}

/// Draws a run's colour, name and parameters.
fn row(area: &Area<'_>, run: &Run, place: usize, top: i32) -> DrawResult {
    area.draw(&Rectangle::new([(20, top + 3), (32, top + 47)], colour(place).filled()))?;
    area.draw(&Text::new(fitted(&run.name, 14, 410), (42, top + 2), font(14)))?;
    let small = ("sans-serif", 11).into_font().color(&INK.mix(0.7));
    for (text, below) in [(run.report.title(), 21), (run.report.device_line(), 36)] {
        area.draw(&Text::new(fitted(&text, 11, 415), (42, top + below), small.clone()))?;
    }
    let problems: Vec<_> = run.report.problems().into_iter().map(|problem| problem.text).collect();
    if !problems.is_empty() {
        let red = ("sans-serif", 13).into_font().color(&ALARM);
        let text = fitted(&problems.join("; "), 13, WIDTH - 62);
        area.draw(&Text::new(text, (42, top + 53), red))?;
    }
    Ok(())
}

fn bar(area: &Area<'_>, left: i32, top: i32, colour: RGBAColor, share: f64, value: &str) -> DrawResult {
    // The share may be 0 / 0.
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let right = left + ((share * BAR) as i32).max(1);
    area.draw(&Rectangle::new([(left, top + 12), (right, top + 34)], colour.filled()))?;
    area.draw(&Text::new(value.to_owned(), (right + 8, top + 16), font(14)))?;
    Ok(())
}
