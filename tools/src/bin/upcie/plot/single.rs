//! One run as an image: latency by percentile, and IOPS and p99 over time.

use super::chart::{
    Area, Curve, DrawResult, INK, alarm, alarm_height, fitted, font, legend, legend_height, p99s,
    percentiles, rates,
};
use crate::perf::report::{Direction, Report};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 1010);
const TITLE: u32 = 66;
const PERCENTILES: u32 = 400;
const RATES: u32 = 272;
/// Largest number of devices that get a curve each.
const MOST_CURVES: usize = 16;

/// Returns the size of the image.
pub fn size(report: &Report) -> (u32, u32) {
    (SIZE.0, SIZE.1 + legend_of(&curves(report)) + alarm_height(&report.problems()))
}

/// Returns the height of the legend; 0 if none is needed.
fn legend_of(curves: &[Curve]) -> u32 {
    if curves.len() > 1 { legend_height(curves.len()) } else { 0 }
}

/// Draws the image.
pub fn paint(root: &Area<'_>, report: &Report) -> DrawResult {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(TITLE);
    let width = SIZE.0 - 40;
    head.draw(&Text::new(fitted(&report.title(), 19, width), (20, 14), font(19)))?;
    let small = ("sans-serif", 14).into_font().color(&INK.mix(0.7));
    head.draw(&Text::new(fitted(&report.device_line(), 14, width), (20, 42), small))?;
    let problems = report.problems();
    let (band, body) = body.split_vertically(alarm_height(&problems));
    if !problems.is_empty() {
        alarm(&band, &problems)?;
    }
    let curves = curves(report);
    if curves.is_empty() {
        body.draw(&Text::new("No I/O succeeded.", (20, 20), font(16)))?;
        return Ok(root.present()?);
    }
    let (names, body) = body.split_vertically(legend_of(&curves));
    if curves.len() > 1 {
        legend(&names, &curves)?;
    }
    let (upper, rest) = body.split_vertically(PERCENTILES);
    let (middle, lower) = rest.split_vertically(RATES);
    percentiles(&upper, &curves)?;
    rates(&middle, &report.intervals)?;
    p99s(&lower, &report.intervals)?;
    Ok(root.present()?)
}

/// Makes a curve for each of several devices, else for each of two kinds of I/O, else one for all.
fn curves(report: &Report) -> Vec<Curve> {
    let mut named: Vec<(String, &Direction)> = Vec::new();
    if report.devices.len() > 1 {
        let devices = report.devices.iter().enumerate().take(MOST_CURVES);
        named.extend(
            devices.map(|(i, device)| (format!("{}: {}", i + 1, device.address), &device.counts.total)),
        );
    } else if let (Some(read), Some(write)) = (&report.counts.read, &report.counts.write) {
        named.extend([("reads".into(), read), ("writes".into(), write)]);
    } else {
        named.push(("all".into(), &report.counts.total));
    }
    let curve = |(i, (name, direction))| Curve::of(name, direction, i);
    named.into_iter().enumerate().filter_map(curve).collect()
}
