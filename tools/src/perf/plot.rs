//! The run as an image: how latencies are distributed, and IOPS over time.

use super::{
    report::{Report, total},
    stats::Stats,
};
use crate::units;
use anyhow::anyhow;
use hdrhistogram::Histogram;
use plotters::{
    coord::{
        Shift,
        ranged1d::{KeyPointHint, NoDefaultFormatting, ValueFormatter},
    },
    prelude::*,
};
use std::ops::Range;

const SIZE: (u32, u32) = (960, 760);
const TITLE_HEIGHT: u32 = 66;
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
const COLOURS: [RGBColor; 3] =
    [RGBColor(0x1f, 0x5f, 0xa8), RGBColor(0x2a, 0x8a, 0x4a), RGBColor(0xc7, 0x5b, 0x12)];
/// Points of the rate's curve.
const STEPS: usize = 200;

/// The percentiles that the axis names.
const NAMED: [&str; 8] = ["0", "50", "90", "99", "99.9", "99.99", "99.999", "99.9999"];

/// The axis of percentiles: by their number of nines, `-log10(1 - p)`, from 0 to this.
#[derive(Debug, Clone)]
struct Nines(f64);

impl Nines {
    fn of(percent: &str) -> f64 {
        -(1.0 - percent.parse::<f64>().unwrap_or(0.0) / 100.0).log10()
    }
}

impl Ranged for Nines {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (value / self.0 * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        NAMED.iter().map(|percent| Self::of(percent)).filter(|at| *at <= self.0 + 1e-6).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0
    }
}

impl ValueFormatter<f64> for Nines {
    fn format_ext(&self, value: &f64) -> String {
        let named = NAMED.iter().find(|percent| (Self::of(percent) - value).abs() < 1e-6);
        named.map_or_else(String::new, |percent| (*percent).into())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws it; gives the SVG's text.
pub fn draw(report: &Report, stats: &Stats) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        paint(&root, report, stats).map_err(|error| anyhow!("drawing the plot: {error}"))?;
    }
    Ok(svg)
}

fn paint(root: &Area<'_>, report: &Report, stats: &Stats) -> Result<(), Box<dyn std::error::Error>> {
    root.fill(&WHITE)?;
    let (head, body) = root.split_vertically(TITLE_HEIGHT);
    head.draw(&Text::new(report.title(), (20, 14), ("sans-serif", 20).into_font().color(&INK)))?;
    head.draw(&Text::new(
        report.device_line(),
        (20, 42),
        ("sans-serif", 14).into_font().color(&INK.mix(0.7)),
    ))?;
    let all = total(stats);
    if all.is_empty() {
        body.draw(&Text::new("No I/O succeeded.", (20, 20), ("sans-serif", 16).into_font().color(&INK)))?;
        return Ok(root.present()?);
    }
    let (upper, lower) = body.split_vertically((SIZE.1 - TITLE_HEIGHT) * 55 / 100);
    latencies(&upper, &all, stats)?;
    rates(&lower, stats)?;
    Ok(root.present()?)
}

/// Latency by percentile. The tail gets the room that it needs: the axis counts nines, and latency is logarithmic.
fn latencies(area: &Area<'_>, all: &Histogram<u64>, stats: &Stats) -> Result<(), Box<dyn std::error::Error>> {
    // As far as one I/O decides: the largest of n is the percentile 1 - 1/n.
    let nines = (all.len() as f64).log10().clamp(1.0, 6.0);
    let (low, high) = log_bounds(all.min().max(1) as f64, all.max().max(1) as f64);
    let mut chart = ChartBuilder::on(area)
        .caption("Latency by percentile", ("sans-serif", 16).into_font().color(&INK))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(Nines(nines), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(FAINT.mix(0.5))
        .bold_line_style(FAINT)
        .axis_style(INK.mix(0.5))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_desc("percentile")
        .y_desc("latency")
        .x_labels(NAMED.len())
        .y_label_formatter(&|&value| units::short(&units::nanos(value)))
        .draw()?;
    let [reads, writes] = &stats.latency;
    let mut series = vec![("all", all)];
    if !reads.is_empty() && !writes.is_empty() {
        series = vec![("reads", reads), ("writes", writes)];
    }
    let several = series.len() > 1;
    for ((name, latency), colour) in series.into_iter().zip(&COLOURS[1..]) {
        let colour = if several { *colour } else { COLOURS[0] };
        let points = (0..=600).map(|i| {
            let at = nines * f64::from(i) / 600.0;
            (at, latency.value_at_quantile(1.0 - 10_f64.powf(-at)).max(1) as f64)
        });
        let drawn = chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?;
        if several {
            drawn
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
    }
    if several {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .label_font(("sans-serif", 13).into_font().color(&INK))
            .background_style(WHITE.mix(0.8))
            .border_style(FAINT)
            .draw()?;
    }
    Ok(())
}

fn rates(area: &Area<'_>, stats: &Stats) -> Result<(), Box<dyn std::error::Error>> {
    let rates = stats.samples.rates(STEPS);
    let end = (stats.end_ns - stats.start_ns).max(1) as f64 / 1e9;
    let high = rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("IOPS over time", ("sans-serif", 16).into_font().color(&INK))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end, 0.0..high)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK.mix(0.5))
        .label_style(("sans-serif", 13).into_font().color(&INK))
        .x_desc("time")
        .y_desc("IOPS")
        .x_labels(11)
        .y_labels(6)
        .x_label_formatter(&|&seconds| units::short(&units::nanos(seconds * 1e9)))
        .y_label_formatter(&|&rate| units::short(&units::count(rate)))
        .draw()?;
    // The first and the last half step, so that the curve spans the run.
    let first = rates.first().map(|&(_, rate)| (0.0, rate));
    let last = rates.last().map(|&(_, rate)| (end, rate));
    let points: Vec<_> = first.into_iter().chain(rates.iter().copied()).chain(last).collect();
    chart.draw_series(
        AreaSeries::new(points, 0.0, COLOURS[0].mix(0.15)).border_style(COLOURS[0].stroke_width(2)),
    )?;
    Ok(())
}

/// Bounds of a logarithmic axis: the decades around the values.
fn log_bounds(low: f64, high: f64) -> (f64, f64) {
    let below = 10_f64.powf(low.log10().floor());
    (below, 10_f64.powf(high.log10().ceil()).max(below * 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_round_and_hold_the_values() {
        assert_eq!(log_bounds(1500.0, 73_000.0), (1000.0, 100_000.0));
        assert_eq!(log_bounds(1000.0, 1000.0), (1000.0, 10_000.0));
        assert_eq!(log_bounds(1.0, 10.0), (1.0, 10.0));
    }
}
