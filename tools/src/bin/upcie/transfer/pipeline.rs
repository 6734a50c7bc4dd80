//! Runs commands over consecutive blocks, several in flight, and returns the finished ones in order.

use anyhow::{Context, bail};
use std::{collections::VecDeque, time::Duration};
use upcie_nvme::{Controller, Direction, DmaBuf, Io, Namespace, QueuePair, Wait, spec::Status};

/// Number of commands in flight.
const DEPTH: usize = 32;
/// Bytes per command, if the controller accepts as many.
const PIECE: usize = 256 << 10;
/// Stands for the first block of a Flush.
const FLUSH: u64 = u64::MAX;

/// A queue pair for consecutive transfers.
pub struct Pipeline {
    queue: QueuePair<u64>,
    namespace: Namespace,
    controller: Controller,
    idle: Vec<DmaBuf>,
    /// Commands in flight in the order of submission: first block, and result once it has completed.
    window: VecDeque<(u64, Option<Finished>)>,
    /// Number of the window's first command.
    first: u64,
    piece: usize,
    /// Bytes of a zone, if the namespace has zones.
    zone: Option<u64>,
    /// Placement identifier of writes.
    placement: Option<u16>,
    timeout: Duration,
}

/// Result of a command, and its buffer.
type Finished = (Result<(), Status>, DmaBuf);

/// A transfer that has succeeded.
pub struct Piece {
    /// First block.
    pub slba: u64,
    /// Data of the blocks.
    pub data: DmaBuf,
}

impl Pipeline {
    /// Makes the queue pair and the buffers.
    pub fn new(controller: &Controller, namespace: &Namespace, timeout: Duration) -> anyhow::Result<Self> {
        let block = namespace.block_size();
        let piece = PIECE.min(namespace.max_transfer()).max(block) / block * block;
        let depth = DEPTH.min(controller.max_depth() as usize - 1);
        let idle = (0..depth).map(|_| controller.alloc(piece)).collect::<Result<_, _>>();
        Ok(Self {
            queue: controller.queue_pair().depth(depth as u32 + 1).create()?,
            idle: idle.with_context(|| format!("{depth} buffers of {piece} bytes"))?,
            namespace: namespace.clone(),
            controller: controller.clone(),
            window: VecDeque::with_capacity(depth),
            first: 0,
            piece,
            zone: namespace.zones().ok().map(|zones| zones.zone_blocks() * block as u64),
            placement: None,
            timeout,
        })
    }

    /// Gives all further writes a placement.
    pub fn place(&mut self, placement: Option<u16>) {
        self.placement = placement;
    }

    /// Returns the most bytes of a command that begins at a byte: no command crosses the end of a zone.
    pub fn piece(&self, offset: u64) -> usize {
        let left = self.zone.map_or(u64::MAX, |zone| zone - offset % zone);
        left.min(self.piece as u64) as usize
    }

    /// Takes an idle buffer of `len` bytes, at most one command's; `None` if all are in flight, or if it is for a write that
    /// has to wait for the one before it, as in a zone.
    pub fn buffer(&mut self, len: usize, write: bool) -> Option<DmaBuf> {
        if write && self.zone.is_some() && !self.window.is_empty() {
            return None;
        }
        self.idle.pop().map(|buffer| if len < self.piece { buffer.slice(0..len) } else { buffer })
    }

    /// Takes back a buffer that is not used any more.
    pub fn give_back(&mut self, mut buffer: DmaBuf) {
        while buffer.len() < self.piece {
            match buffer.try_reunite() {
                Ok(whole) => buffer = whole,
                Err(_) => return,
            }
        }
        self.idle.push(buffer);
    }

    /// Submits a command for the whole buffer.
    pub fn send(&mut self, slba: u64, buffer: DmaBuf, write: bool) -> anyhow::Result<()> {
        let number = self.first + self.window.len() as u64;
        let mut turn = self.queue.turn()?;
        let direction = if write { Direction::Write } else { Direction::Read };
        let io = Io::new(direction, &self.namespace, slba);
        let io = match self.placement {
            Some(identifier) => io.placement(identifier),
            None => io,
        };
        let sent = turn.submit(io, buffer, number);
        drop(turn);
        sent.map_err(|refused| refused.reason).with_context(|| format!("{} at block {slba}", verb(write)))?;
        self.window.push_back((slba, None));
        Ok(())
    }

    /// Flushes the written data to stable storage. Call it with no command in flight. Uses the same queue
    /// pair, since the controller may have no other.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let number = self.first + self.window.len() as u64;
        let mut turn = self.queue.turn()?;
        let sent = turn.flush(&self.namespace, number);
        drop(turn);
        sent.map_err(|refused| refused.reason).context("flushing")?;
        self.window.push_back((FLUSH, None));
        self.oldest(true).map(drop)
    }

    /// Waits for the oldest command; returns `None` if none is in flight.
    pub fn oldest(&mut self, write: bool) -> anyhow::Result<Option<Piece>> {
        if self.window.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some((slba, outcome)) = self.window.front_mut()
                && let Some((result, data)) = outcome.take()
            {
                let slba = *slba;
                self.window.pop_front();
                self.first += 1;
                result.with_context(|| match slba {
                    FLUSH => "flushing".into(),
                    _ => format!("{} at block {slba}", verb(write)),
                })?;
                return Ok(Some(Piece { slba, data }));
            }
            if !self.reap()? && !self.queue.wait(Wait::Poll, self.timeout)? {
                bail!(
                    "{}: no completion within {:?} (--timeout); {}",
                    self.controller.name(),
                    self.timeout,
                    self.queue.diagnose()
                );
            }
        }
    }

    /// Reaps completions; returns true if there were any.
    fn reap(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        for done in self.queue.turn()? {
            let (number, result, data) = done.into_parts();
            if let Some(slot) = self.window.get_mut((number - self.first) as usize) {
                slot.1 = Some((result, data));
            }
            any = true;
        }
        Ok(any)
    }
}

fn verb(write: bool) -> &'static str {
    if write { "writing" } else { "reading" }
}
