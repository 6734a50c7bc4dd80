//! The charts of an image.

use super::axis::{LogTime, Nines};
use crate::{
    perf::{
        report::{Direction, Problem},
        series::Interval,
    },
    units,
};
use plotters::{
    coord::{Shift, ranged1d::ValueFormatter},
    prelude::*,
};
use std::error::Error;

/// An area of an image.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Result of drawing.
pub type DrawResult = Result<(), Box<dyn Error>>;

/// Colour of text and axes.
pub const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Colour of results of all devices and kinds; no curve has it.
const WHOLE: RGBColor = RGBColor(0x3f, 0x4f, 0x63);
const FAINT: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Colours of curves. They differ in print, and for most people who see colours differently.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x1f, 0x5f, 0xa8),
    RGBColor(0xd9, 0x5f, 0x02),
    RGBColor(0x1b, 0x8a, 0x5a),
    RGBColor(0xb0, 0x2a, 0x6f),
    RGBColor(0x75, 0x70, 0xb3),
    RGBColor(0x8c, 0x6d, 0x1f),
    RGBColor(0x17, 0x9f, 0xb8),
    RGBColor(0x66, 0x66, 0x66),
];
/// Width of the marks' labels.
const LEFT: u32 = 84;
/// Largest number of nines on the axis; only a run of years has more.
const MOST_NINES: f64 = 8.0;

/// Returns the colour of a series; from the ninth on the colours are repeated in a lighter shade.
pub fn colour(place: usize) -> RGBAColor {
    let strength = if (place / COLOURS.len()).is_multiple_of(2) { 1.0 } else { 0.55 };
    COLOURS[place % COLOURS.len()].mix(strength)
}

/// Makes a text style of a size in pixels.
pub fn font(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Shortens a text to fit into `pixels`. Drops its middle, because addresses and paths differ at their ends.
pub fn fitted(text: &str, size: u32, pixels: u32) -> String {
    // A path may contain characters that XML forbids: control characters, and the last two of the plane.
    let is_text = |c: char| !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}');
    let all: Vec<char> = text.chars().map(|c| if is_text(c) { c } else { '\u{fffd}' }).collect();
    let room = f64::from(pixels) / f64::from(size);
    let width = |chars: &[char]| chars.iter().map(|&c| width(c)).sum::<f64>();
    if width(&all) <= room {
        return all.into_iter().collect();
    }
    // Find the longest text that fits, with equal parts of start and end.
    let half = |count: usize| (count.div_ceil(2), all.len() - count / 2);
    let fits = |&count: &usize| {
        let (head, tail) = half(count);
        width(&all[..head]) + width(&all[tail..]) + 1.0 <= room
    };
    // The narrowest characters are a third as wide as high.
    let most = all.len().min((room * 3.1) as usize);
    let (head, tail) = half((0..most).rev().find(fits).unwrap_or(0));
    all[..head].iter().chain(&['…']).chain(&all[tail..]).collect()
}

/// Estimates the width of a character as a fraction of the font's size; fonts differ.
fn width(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | ' ' | '.' | ',' | ':' | ';' | '\'' | '|' | '/' | '(' | ')' | '-' => 0.33,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.95,
        'A'..='Z' => 0.68,
        c if c.is_ascii() => 0.56,
        // Most of these characters are as wide as high.
        c if c >= '\u{1100}' => 1.0,
        _ => 0.62,
    }
}

/// Colour of problems.
pub const ALARM: RGBColor = RGBColor(0xb3, 0x12, 0x12);
/// Height of a line about a problem.
const ALARM_LINE: u32 = 22;
/// Gap below the band of problems.
const ALARM_GAP: u32 = 10;
/// Largest number of lines in the band.
const ALARM_LINES: usize = 5;

/// Returns the height of the band of problems; 0 without any.
pub fn alarm_height(problems: &[Problem]) -> u32 {
    match problems.len() {
        0 => 0,
        count => count.min(ALARM_LINES) as u32 * ALARM_LINE + 14 + ALARM_GAP,
    }
}

/// Draws the problems white on red across the image.
pub fn alarm(area: &Area<'_>, problems: &[Problem]) -> DrawResult {
    let (right, bottom) = area.dim_in_pixel();
    area.draw(&Rectangle::new([(0, 0), (right as i32, (bottom - ALARM_GAP) as i32)], ALARM.filled()))?;
    let width = right - 40;
    for (i, problem) in problems.iter().take(ALARM_LINES).enumerate() {
        let white = ("sans-serif", 15).into_font().color(&WHITE);
        let top = (8 + i as u32 * ALARM_LINE) as i32;
        area.draw(&Text::new(fitted(&problem.text, 15, width), (20, top), white))?;
    }
    Ok(())
}

/// A curve of latencies.
pub struct Curve {
    /// Name in the legend.
    pub name: String,
    /// Percentiles and nanoseconds; the last point is the largest latency.
    pub points: Vec<(f64, u64)>,
    /// Number of I/Os.
    pub count: u64,
    pub colour: RGBAColor,
}

impl Curve {
    /// Makes the curve of a series; `None` without I/Os.
    pub fn of(name: String, direction: &Direction, place: usize) -> Option<Self> {
        let points = direction.latency_ns.as_ref()?.curve.clone();
        Some(Self { name, points, count: direction.ios, colour: colour(place) })
    }
}

/// Starts a chart with a caption, and with space for its axes.
fn frame<'a, 'b>(area: &'a Area<'b>, caption: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut frame = ChartBuilder::on(area);
    frame
        .caption(caption, font(16))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(44)
        .y_label_area_size(LEFT);
    frame
}

/// Draws latency by percentile. The axes count nines and are logarithmic, so that the tail gets space.
pub fn percentiles(area: &Area<'_>, curves: &[Curve]) -> DrawResult {
    // The curve ends at the percentile of a single I/O, 1 - 1/n.
    let end = |curve: &Curve| (curve.count.max(1) as f64).log10().clamp(1.0, MOST_NINES);
    let nines = curves.iter().map(end).fold(1.0, f64::max);
    let values = curves.iter().flat_map(|curve| &curve.points).map(|&(_, ns)| ns as f64);
    let mut chart =
        frame(area, "Latency by percentile").build_cartesian_2d(Nines(nines), LogTime::around(values))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK.mix(0.5))
        .label_style(font(13))
        .x_desc("percentile")
        .y_desc("latency")
        .x_labels(10)
        .y_labels(14)
        .draw()?;
    for curve in curves {
        let last = end(curve);
        let at = |percent: f64| if percent >= 100.0 { last } else { Nines::of(percent).min(last) };
        let points = curve.points.iter().map(|&(percent, ns)| (at(percent), ns.max(1) as f64));
        let style = curve.colour.stroke_width(2);
        chart.draw_series(LineSeries::new(points, style))?;
    }
    Ok(())
}

/// Number of legend entries side by side.
const COLUMNS: usize = 2;
/// Height of a row of a legend.
const ENTRY: u32 = 20;

/// Returns the height of a legend.
pub fn legend_height(entries: usize) -> u32 {
    entries.div_ceil(COLUMNS) as u32 * ENTRY + 6
}

/// Draws the names of curves in an area of their own: inside the chart they would cover a curve.
pub fn legend(area: &Area<'_>, curves: &[Curve]) -> DrawResult {
    let width = (area.dim_in_pixel().0 - 40) / COLUMNS as u32;
    for (i, curve) in curves.iter().enumerate() {
        let x = (20 + i % COLUMNS * width as usize) as i32;
        let y = (i / COLUMNS) as i32 * ENTRY as i32;
        area.draw(&PathElement::new([(x, y + 7), (x + 18, y + 7)], curve.colour.stroke_width(2)))?;
        area.draw(&Text::new(fitted(&curve.name, 13, width - 40), (x + 26, y), font(13)))?;
    }
    Ok(())
}

/// Draws IOPS over time.
pub fn rates(area: &Area<'_>, intervals: &[Interval]) -> DrawResult {
    let high = intervals.iter().map(|interval| interval.iops).fold(1.0, f64::max) * 1.1;
    let name = |value: &f64| units::short(&units::count(*value));
    let points: Vec<_> = steps(intervals, |interval| Some(interval.iops)).concat();
    over_time(area, "IOPS over time", "IOPS", intervals, 0.0..high, &name, |chart| {
        let area = AreaSeries::new(points, 0.0, WHOLE.mix(0.15));
        chart.draw_series(area.border_style(WHOLE.stroke_width(2)))?;
        Ok(())
    })
}

/// Draws the 99th percentile over time.
pub fn p99s(area: &Area<'_>, intervals: &[Interval]) -> DrawResult {
    let values = intervals.iter().filter_map(|interval| interval.p99_ns).map(|ns| ns as f64);
    let axis = LogTime::around(values);
    let name = {
        let axis = axis.clone();
        move |value: &f64| axis.format_ext(value)
    };
    let pieces = steps(intervals, |interval| interval.p99_ns.map(|ns| ns as f64));
    over_time(area, "p99 over time", "latency", intervals, axis, &name, |chart| {
        for points in pieces {
            chart.draw_series(LineSeries::new(points, WHOLE.stroke_width(2)))?;
        }
        Ok(())
    })
}

type TimeChart<'a, 'b, Y> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>;

fn over_time<'b, Y, A>(
    area: &Area<'b>,
    caption: &str,
    what: &str,
    intervals: &[Interval],
    axis: A,
    name: &dyn Fn(&f64) -> String,
    draw: impl FnOnce(&mut TimeChart<'_, 'b, Y>) -> DrawResult,
) -> DrawResult
where
    A: plotters::coord::ranged1d::AsRangedCoord<CoordDescType = Y, Value = f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let end = intervals.last().map_or(1, |interval| interval.end_ns.max(1)) as f64 / 1e9;
    let mut chart = frame(area, caption).build_cartesian_2d(0.0..end, axis)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .axis_style(INK.mix(0.5))
        .label_style(font(13))
        .x_desc("time")
        .y_desc(what)
        .x_labels(11)
        .y_labels(6)
        .x_label_formatter(&|&seconds| units::short(&units::nanos(seconds * 1e9)))
        .y_label_formatter(&|value| name(value))
        .draw()?;
    draw(&mut chart)
}

/// Makes two points per interval, one at each end, since its value holds for all of it. Starts a new piece
/// after an interval without a value. Leaves out a last interval that is much shorter than the others: its
/// value means little.
fn steps(intervals: &[Interval], value: impl Fn(&Interval) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
    let length = |interval: &Interval| interval.end_ns - interval.start_ns;
    let shown = match intervals {
        [before @ .., last] if before.last().is_some_and(|usual| length(last) < length(usual) / 4) => before,
        all => all,
    };
    let mut pieces = vec![Vec::new()];
    for interval in shown {
        match (value(interval), pieces.last_mut()) {
            (Some(value), Some(piece)) => {
                piece.extend([interval.start_ns, interval.end_ns].map(|ns| (ns as f64 / 1e9, value)));
            }
            _ => pieces.push(Vec::new()),
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_is_cut_in_the_middle() {
        assert_eq!(fitted("short", 14, 200), "short");
        let text = fitted("vfio-user:/a/very/long/path/to/some/socket/of/mine.sock", 14, 160);
        assert!(
            text.chars().count() <= 24 && text.starts_with("vfio-us") && text.ends_with("mine.sock"),
            "{text}"
        );
        assert_eq!(fitted("äöü", 10, 0), "…");
        // Wide characters take more space.
        let count = |c: &str| fitted(&c.repeat(200), 14, 410).chars().count();
        assert!(count("M") <= 31 && count("漢") <= 29 && count("x") > 45, "{} {}", count("M"), count("x"));
        assert_eq!(fitted("a\x1b[31m\n\u{fffe}b", 14, 200), "a\u{fffd}[31m\u{fffd}\u{fffd}b");
    }

    #[test]
    fn an_empty_interval_is_a_gap_and_a_rest_is_left_out() {
        let interval = |start: u64, end: u64, p99| Interval {
            start_ns: start * 1_000_000_000,
            end_ns: end * 1_000_000_000,
            ios: 1,
            bytes: 1,
            errors: 0,
            iops: 1.0,
            bytes_per_second: 1.0,
            p50_ns: p99,
            p99_ns: p99,
        };
        let all = [
            interval(0, 8, Some(5)),
            interval(8, 16, None),
            interval(16, 24, Some(7)),
            interval(24, 25, Some(9)),
        ];
        let pieces = steps(&all, |interval| interval.p99_ns.map(|ns| ns as f64));
        assert_eq!(pieces, [vec![(0.0, 5.0), (8.0, 5.0)], vec![(16.0, 7.0), (24.0, 7.0)]]);
    }
}
