//! `--histogram`: the latencies as an HdrHistogram log, interval by interval.

use super::{series::Interval, tally::Tally};
use anyhow::{Context, anyhow};
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, IntervalLogWriterError, Tag},
    },
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// Where it goes.
#[derive(Debug)]
pub struct LogFile(pub PathBuf);

impl LogFile {
    /// Calls `body` with a log that starts now; gives what came of it, and whether all was written.
    pub fn write<T>(
        &self,
        title: &str,
        kinds: bool,
        body: impl FnOnce(&mut dyn Log) -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, anyhow::Result<()>)> {
        let about = || format!("writing {}", self.0.display());
        let mut file = BufWriter::new(File::create(&self.0).with_context(about)?);
        let mut serializer = V2DeflateSerializer::new();
        let now = SystemTime::now();
        // Titles have no line breaks, but a path in them might.
        let title = format!("upcie perf: {}", title.replace('\n', " "));
        let writer = IntervalLogWriterBuilder::new()
            .add_comment("[Histogram log format version 1.3]")
            .add_comment(&title)
            .add_comment("values are latencies in nanoseconds, Interval_Max in milliseconds")
            .with_start_time(now)
            .with_base_time(now)
            .with_max_value_divisor(1e6)
            .begin_log_with(&mut file, &mut serializer)
            .with_context(about)?;
        let mut intervals = Intervals { writer, kinds, written: Ok(()) };
        let result = body(&mut intervals)?;
        let Intervals { written, .. } = intervals;
        Ok((result, written.and_then(|()| Ok(file.flush()?)).with_context(about)))
    }
}

/// Takes intervals.
pub trait Log {
    /// One of them. The run does not end when it can't be written: its results are worth more.
    fn push(&mut self, interval: &Interval, tally: &Tally);
}

struct Intervals<'a> {
    writer: IntervalLogWriter<'a, 'a, BufWriter<File>, V2DeflateSerializer>,
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
        let start = Duration::from_nanos(interval.start_ns);
        let length = Duration::from_nanos(interval.end_ns - interval.start_ns);
        let mut push = |latency: &Histogram<u64>, tag| {
            self.writer.write_histogram(latency, start, length, tag).map_err(|error| match error {
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
