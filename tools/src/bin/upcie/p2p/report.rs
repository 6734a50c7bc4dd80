//! The report of a copy, as a table or as JSON.

use super::{
    copy::{Copied, Job},
    memory::{BufferOwner, controller},
};
use crate::{cli, units};
use serde_json::{Value, json};
use std::io::Write;
use upcie_nvme::{Controller, Namespace, controller::Cmb};

/// Everything that the report shows.
pub struct Report<'r> {
    pub from: &'r Controller,
    pub to: &'r Controller,
    pub namespaces: &'r (Namespace, Namespace),
    pub job: &'r Job,
    pub depth: u32,
    pub whose: BufferOwner,
    pub memory: &'r Cmb,
    pub direct: Copied,
    pub host: Option<Copied>,
    /// `None` if the copy was not verified, else the first byte that differs, if one does.
    pub difference: Option<Option<u64>>,
}

impl Report<'_> {
    /// Prints the report on stdout.
    pub fn print(&self, as_json: bool) -> anyhow::Result<()> {
        let mut text = Vec::new();
        if as_json {
            serde_json::to_writer_pretty(&mut text, &self.json())?;
            writeln!(text)?;
        } else {
            self.table(&mut text)?;
        }
        cli::print(&text)
    }

    fn copies(&self) -> impl Iterator<Item = (&'static str, Copied)> {
        [("peer-to-peer", Some(self.direct)), ("host memory", self.host)]
            .into_iter()
            .filter_map(|(name, copied)| Some((name, copied?)))
    }

    fn json(&self) -> Value {
        let side = |controller: &Controller, namespace: &Namespace, start| {
            json!({ "address": controller.name(), "namespace": namespace.nsid(),
                    "block_size": namespace.block_size(), "start": start })
        };
        let copies = self.copies().map(|(path, copied)| {
            json!({ "path": path, "bytes": copied.bytes, "seconds": copied.time.as_secs_f64(),
                    "bytes_per_second": rate(copied) })
        });
        json!({
            "from": side(self.from, &self.namespaces.0, self.job.start),
            "to": side(self.to, &self.namespaces.1, self.job.to_start),
            "size": self.job.size,
            "command_bytes": self.job.piece,
            "depth": self.depth,
            "buffer": {
                "of": controller(self.whose, self.from, self.to).name(),
                "size": self.memory.size(),
                "caching": self.memory.caching().to_string(),
            },
            "copies": copies.collect::<Vec<_>>(),
            "verified": self.difference.map(|difference| difference.is_none()),
            "differs_at": self.difference.flatten(),
        })
    }

    fn table(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let (from, to) = self.namespaces;
        writeln!(
            out,
            "{} namespace {} to {} namespace {}: {} in commands of {}, {} in flight",
            self.from.name(),
            from.nsid(),
            self.to.name(),
            to.nsid(),
            units::bytes(self.job.size),
            units::bytes(self.job.piece),
            self.depth
        )?;
        writeln!(
            out,
            "through the memory buffer of {} ({}, {} for this process)",
            controller(self.whose, self.from, self.to).name(),
            units::bytes(self.memory.size() as u64),
            self.memory.caching()
        )?;
        writeln!(out, "\n{:<14} {:>12} {:>12} {:>14}", "PATH", "COPIED", "TIME", "RATE")?;
        for (name, copied) in self.copies() {
            writeln!(
                out,
                "{name:<14} {:>12} {:>12} {:>12}/s",
                units::bytes(copied.bytes),
                units::nanos(copied.time.as_nanos() as f64),
                units::bytes(rate(copied) as u64)
            )?;
        }
        match self.difference {
            Some(None) => writeln!(out, "\nverified: both ranges are equal")?,
            Some(Some(at)) => writeln!(out, "\nNOT equal: byte {at} of the copy differs")?,
            None => {}
        }
        Ok(())
    }
}

/// Computes the rate in bytes per second.
fn rate(copied: Copied) -> f64 {
    copied.bytes as f64 / copied.time.as_secs_f64().max(1e-9)
}
