//! The copy loop: one controller reads into a buffer, then the other writes from it.

use crate::{signal, transfer::progress};
use anyhow::{Context, bail};
use std::time::{Duration, Instant};
use upcie_nvme::{Controller, DmaBuf, Namespace, QueueGroup, QueuePair, Wait, queue::GroupMember};

/// One of the two controllers.
pub struct Side {
    queue: QueuePair<u64>,
    namespace: Namespace,
    verb: &'static str,
}

impl Side {
    /// Makes a queue pair for `depth` commands in flight.
    pub fn new(
        controller: &Controller,
        namespace: &Namespace,
        depth: u32,
        verb: &'static str,
    ) -> anyhow::Result<Self> {
        let queue = controller.queue_pair().depth(depth + 1).create()?;
        Ok(Self { queue, namespace: namespace.clone(), verb })
    }

    /// Reaps completions; returns each command's offset in the copy and its buffer.
    fn reap(&mut self) -> anyhow::Result<Vec<(u64, DmaBuf)>> {
        let (verb, nsid) = (self.verb, self.namespace.nsid());
        let done = self.queue.turn()?.map(|completion| {
            let (at, result, buffer) = completion.into_parts();
            result.with_context(|| format!("{verb} namespace {nsid}, at byte {at} of the copy"))?;
            Ok((at, buffer))
        });
        done.collect()
    }

    fn block(namespace: &Namespace, byte: u64) -> u64 {
        byte / namespace.block_size() as u64
    }
}

impl GroupMember for Side {
    type Tag = u64;

    fn queue_pair(&mut self) -> Option<&mut QueuePair<u64>> {
        Some(&mut self.queue)
    }
}

/// Range and settings of a copy, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    pub start: u64,
    pub to_start: u64,
    pub size: u64,
    /// Bytes per command.
    pub piece: u64,
    /// True if the buffers are in the memory of the controller that writes: see [`run`].
    pub behind: bool,
    pub timeout: Duration,
}

/// Progress of a copy.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub bytes: u64,
    pub time: Duration,
}

/// Copies through `buffers`.
pub fn run(
    (mut from, mut to): (Side, Side),
    mut buffers: Vec<DmaBuf>,
    job: &Job,
    what: &'static str,
) -> anyhow::Result<Copied> {
    let bar = progress(what, Some(job.size));
    let (mut sent, mut done, mut in_flight) = (0, 0, 0);
    let (start, mut group) = (Instant::now(), QueueGroup::new());
    loop {
        let mut moved = false;
        for (at, mut buffer) in to.reap()? {
            done += buffer.len() as u64;
            bar.set_position(done);
            in_flight -= 1;
            moved = true;
            while (buffer.len() as u64) < job.piece {
                buffer = buffer
                    .try_reunite()
                    .ok()
                    .with_context(|| format!("the buffer of byte {at} is in parts"))?;
            }
            buffers.push(buffer);
        }
        let filled = from.reap()?;
        if !filled.is_empty() {
            moved = true;
            let mut turn = to.queue.turn()?;
            for (at, buffer) in filled {
                if job.behind {
                    // The completion went to the host, but the data went to the other device and may still be
                    // on its way. A read follows it on the bus and returns after it has arrived.
                    buffer.read_at(buffer.len() - 1, &mut [0]);
                }
                let slba = Side::block(&to.namespace, job.to_start + at);
                turn.write(&to.namespace, slba, buffer, at).map_err(|refused| refused.reason)?;
            }
        }
        if sent < job.size && !buffers.is_empty() && !signal::interrupted() {
            let mut turn = from.queue.turn()?;
            while sent < job.size
                && let Some(buffer) = buffers.pop()
            {
                let len = job.piece.min(job.size - sent);
                let buffer = if len < job.piece { buffer.slice(0..len as usize) } else { buffer };
                let slba = Side::block(&from.namespace, job.start + sent);
                turn.read(&from.namespace, slba, buffer, sent).map_err(|refused| refused.reason)?;
                sent += len;
                in_flight += 1;
                moved = true;
            }
        }
        if in_flight == 0 {
            bar.finish_and_clear();
            return Ok(Copied { bytes: done, time: start.elapsed() });
        }
        if !moved && !group.wait(&mut [&mut from, &mut to], Wait::Poll, job.timeout)? {
            bail!(
                "no completion within {:?} (--timeout); {}: {}; {}: {}",
                job.timeout,
                from.verb,
                from.queue.diagnose(),
                to.verb,
                to.queue.diagnose()
            );
        }
    }
}

/// Compares both ranges through the host's memory; returns the first byte of the copy that differs. The outer
/// `None` means that `stop` ended the comparison early.
pub fn verify(
    (from, source): (&Controller, &Namespace),
    (to, copy): (&Controller, &Namespace),
    job: &Job,
    stop: impl Fn() -> bool,
) -> anyhow::Result<Option<Option<u64>>> {
    let bar = progress("verifying", Some(job.size));
    let mut at = 0;
    while at < job.size {
        if stop() {
            bar.finish_and_clear();
            return Ok(None);
        }
        let len = job.piece.min(job.size - at);
        let (mut first, mut second) = (from.alloc(len as usize)?, to.alloc(len as usize)?);
        source.read(Side::block(source, job.start + at), &mut first)?;
        copy.read(Side::block(copy, job.to_start + at), &mut second)?;
        if let Some(byte) = first.to_vec().iter().zip(&second.to_vec()).position(|(a, b)| a != b) {
            bar.finish_and_clear();
            return Ok(Some(Some(at + byte as u64)));
        }
        at += len;
        bar.set_position(at);
    }
    bar.finish_and_clear();
    Ok(Some(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn an_interrupted_comparison_is_not_a_verification() {
        let open = || Controller::open("emu:size=1M").unwrap();
        let (from, to) = (open(), open());
        let (source, copy) = (from.namespace(1).unwrap(), to.namespace(1).unwrap());
        let job = Job {
            start: 0,
            to_start: 0,
            size: 64 << 10,
            piece: 4096,
            behind: false,
            timeout: Duration::from_secs(30),
        };
        let verify = |stop: &dyn Fn() -> bool| verify((&from, &source), (&to, &copy), &job, stop).unwrap();
        assert_eq!(verify(&|| false), Some(None));
        let pieces = Cell::new(0);
        assert_eq!(verify(&|| pieces.replace(pieces.get() + 1) == 15), None);
        let mut buffer = to.alloc(4096).unwrap();
        buffer.write_at(7, &[1]);
        copy.write((60 << 10) / 512, &mut buffer).unwrap();
        assert_eq!(verify(&|| false), Some(Some((60 << 10) + 7)));
    }
}
