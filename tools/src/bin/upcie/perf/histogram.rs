//! `--histogram`: writes the latencies of each interval to an HdrHistogram log.

use super::{series::Interval, tally::Tally};
use crate::files::Output;
use anyhow::{Context, anyhow};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
    },
};
use std::{
    io::{self, BufWriter, Write},
    time::{Duration, SystemTime},
};

/// File of the log.
#[derive(Debug)]
pub struct LogFile(pub Output);

impl LogFile {
    /// Calls `body` with a log that starts with the first interval; returns the result of `body`, and whether
    /// the log was written.
    pub fn write<T>(
        self,
        title: &str,
        kinds: bool,
        body: impl FnOnce(&mut dyn Log) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, anyhow::Result<()>)> {
        let name = self.0.name().to_owned();
        let about = || format!("writing {name}");
        let mut file = BufWriter::new(self.0);
        let mut serializer = V2DeflateSerializer::new();
        // A title has no line breaks, but a path in it might.
        let title = format!("upcie perf: {}", title.replace(char::is_control, " "));
        let (result, written) = {
            let (to, by) = (&mut file, &mut serializer);
            let begin: Begin<'_> = Box::new(move |began| {
                IntervalLogWriterBuilder::new()
                    .add_comment("[Histogram log format version 1.3]")
                    .add_comment(&title)
                    .add_comment("values are latencies in nanoseconds, Interval_Max in milliseconds")
                    .with_start_time(began)
                    .with_base_time(began)
                    .with_max_value_divisor(1e6)
                    .begin_log_with(to, by)
            });
            let mut intervals = Intervals { begin: Some(begin), writer: None, kinds, written: Ok(()) };
            (body(&mut intervals)?, intervals.written)
        };
        Ok((result, written.and_then(|()| Ok(file.flush()?)).with_context(about)))
    }
}

/// Receives intervals.
pub trait Log {
    /// Adds an interval. An error is kept until the end: the results of the run are worth more than the log.
    fn push(&mut self, interval: &Interval, tally: &Tally);
}

type Writer<'a> = IntervalLogWriter<'a, 'a, BufWriter<Output>, V2DeflateSerializer>;

/// Starts the log of a run that began at this time.
type Begin<'a> = Box<dyn FnOnce(SystemTime) -> io::Result<Writer<'a>> + 'a>;

struct Intervals<'a> {
    /// Used up by the first interval, which tells the start of the run: a warm-up may come before it.
    begin: Option<Begin<'a>>,
    writer: Option<Writer<'a>>,
    /// True if reads and writes get histograms of their own.
    kinds: bool,
    /// First error; nothing is written after it.
    written: anyhow::Result<()>,
}

impl Log for Intervals<'_> {
    fn push(&mut self, interval: &Interval, tally: &Tally) {
        if self.written.is_ok() {
            self.written = self.write(interval, tally);
        }
    }
}

impl Intervals<'_> {
    fn write(&mut self, interval: &Interval, tally: &Tally) -> anyhow::Result<()> {
        if let Some(begin) = self.begin.take() {
            let now = SystemTime::now();
            let began = now.checked_sub(Duration::from_nanos(interval.end_ns)).unwrap_or(now);
            self.writer = Some(begin(began)?);
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let start = Duration::from_nanos(interval.start_ns);
        let length = Duration::from_nanos(interval.end_ns - interval.start_ns);
        let mut push = |latency: &Histogram<u64>, tag| {
            writer.write_histogram(latency, start, length, tag).map_err(|error| match error {
                IntervalLogWriterError::IoError(error) => error.into(),
                error => anyhow!("{error:?}"),
            })
        };
        push(&tally.all()?, None)?;
        if self.kinds {
            for (kind, name) in ["read", "write"].into_iter().enumerate() {
                push(&tally.histogram(kind)?, Tag::new(name))?;
            }
        }
        Ok(())
    }
}
