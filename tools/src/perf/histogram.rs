//! `--histogram`: the latencies as an HdrHistogram log, interval by interval.

use super::{series::Interval, tally::Tally};
use anyhow::Context;
use hdrhistogram::{
    Histogram,
    serialization::{
        V2DeflateSerializer,
        interval_log::{IntervalLogWriter, IntervalLogWriterBuilder, Tag},
    },
};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The file, until it is written to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl LogFile {
    /// Made at once: what can't be written is found out before the run.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path: path.into(), file: BufWriter::new(file) })
    }

    /// Calls `body` with a log that starts now, and sees that all is written.
    pub fn write<T>(
        mut self,
        title: &str,
        kinds: bool,
        body: impl FnOnce(&mut dyn Log) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let about = || format!("writing {}", self.path.display());
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
            .begin_log_with(&mut self.file, &mut serializer)
            .with_context(about)?;
        let result = body(&mut Intervals { writer, kinds, path: &self.path })?;
        self.file.flush().with_context(about)?;
        Ok(result)
    }
}

/// Takes intervals.
pub trait Log {
    /// One of them.
    ///
    /// # Errors
    /// The file can't be written.
    fn push(&mut self, interval: &Interval, tally: &Tally) -> anyhow::Result<()>;
}

struct Intervals<'a> {
    writer: IntervalLogWriter<'a, 'a, BufWriter<File>, V2DeflateSerializer>,
    /// Reads and writes are told apart.
    kinds: bool,
    path: &'a Path,
}

impl Log for Intervals<'_> {
    fn push(&mut self, interval: &Interval, tally: &Tally) -> anyhow::Result<()> {
        let start = Duration::from_nanos(interval.start_ns);
        let length = Duration::from_nanos(interval.end_ns - interval.start_ns);
        let mut push = |latency: &Histogram<u64>, tag| {
            let written = self.writer.write_histogram(latency, start, length, tag);
            written.map_err(|error| anyhow::anyhow!("writing {}: {error:?}", self.path.display()))
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
