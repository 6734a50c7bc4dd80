//! `--histogram`: the latencies as an HdrHistogram log, interval by interval.

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

/// Where it goes.
#[derive(Debug)]
pub struct LogFile(pub Output);

impl LogFile {
    /// Calls `body` with a log that starts when the first interval does; gives what came of it, and whether all was written.
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
        // Titles have no line breaks, but a path in them might.
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

/// Takes intervals.
pub trait Log {
    /// One of them. The run does not end when it can't be written: its results are worth more.
    fn push(&mut self, interval: &Interval, tally: &Tally);
}

type Writer<'a> = IntervalLogWriter<'a, 'a, BufWriter<Output>, V2DeflateSerializer>;

/// Begins the log of a run that began at this time.
type Begin<'a> = Box<dyn FnOnce(SystemTime) -> io::Result<Writer<'a>> + 'a>;

struct Intervals<'a> {
    /// Until the first interval tells when the run began: there may be a warm-up before.
    begin: Option<Begin<'a>>,
    writer: Option<Writer<'a>>,
    /// Reads and writes are told apart.
    kinds: bool,
    /// After the first failure nothing more is.
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
            for (name, latency) in ["read", "write"].into_iter().zip(&tally.latency) {
                push(latency, Tag::new(name))?;
            }
        }
        Ok(())
    }
}
