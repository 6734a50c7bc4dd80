//! Runs commands over consecutive blocks, several in flight, and returns the finished ones in order.

use super::blocks::Layout;
use anyhow::{Context, bail};
use std::{collections::VecDeque, time::Duration};
use upcie_nvme::{Controller, Direction, DmaBuf, Namespace, QueuePair, Wait, WithMetadata, spec::Status};

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
    layout: Layout,
    /// First block of the whole copy.
    origin: u64,
    idle: Vec<Buffers>,
    /// Commands in flight in the order of submission: first block, and result once it has completed.
    window: VecDeque<(u64, Option<Finished>)>,
    /// Number of the window's first command.
    first: u64,
    /// Blocks per command.
    most: usize,
    /// Blocks of a zone, if the namespace has zones.
    zone: Option<u64>,
    /// Placement identifier of writes.
    placement: Option<u16>,
    timeout: Duration,
}

/// Memory of a command: data, and metadata where that has a buffer of its own, empty otherwise.
pub type Buffers = WithMetadata;

/// Result of a command, and its buffers.
type Finished = (Result<(), Status>, Buffers);

/// A transfer that has succeeded.
pub struct Piece {
    /// First block.
    pub slba: u64,
    /// Data and metadata of the blocks.
    pub buffers: Buffers,
}

impl Pipeline {
    /// Makes the queue pair and the buffers, for a copy from block `origin` on.
    pub fn new(
        controller: &Controller,
        namespace: &Namespace,
        layout: Layout,
        origin: u64,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let limit = namespace.max_transfer() / namespace.block_size().max(1);
        let most = (PIECE / layout.moved.max(1)).min(limit).max(1);
        let depth = DEPTH.min(controller.max_depth() as usize - 1);
        let apart = if layout.is_apart { most * layout.metadata } else { 0 };
        let buffers = || -> upcie_nvme::Result<Buffers> {
            let metadata = if apart == 0 { DmaBuf::empty() } else { controller.alloc(apart)? };
            Ok(Buffers { data: controller.alloc(most * layout.moved)?, metadata })
        };
        let idle = (0..depth).map(|_| buffers()).collect::<Result<_, _>>();
        Ok(Self {
            queue: controller.queue_pair().depth(depth as u32 + 1).create()?,
            idle: idle
                .with_context(|| format!("{depth} buffers of {} bytes", most * layout.moved + apart))?,
            namespace: namespace.clone(),
            controller: controller.clone(),
            layout,
            origin,
            window: VecDeque::with_capacity(depth),
            first: 0,
            most,
            zone: namespace.zones().ok().map(|zones| zones.zone_blocks()),
            placement: None,
            timeout,
        })
    }

    /// Gives all further writes a placement.
    pub fn place(&mut self, placement: Option<u16>) {
        self.placement = placement;
    }

    /// Returns how the blocks are moved.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Returns the most blocks of a command that begins at a block: no command crosses the end of a zone.
    pub fn most(&self, slba: u64) -> u64 {
        self.zone.map_or(u64::MAX, |zone| zone - slba % zone).min(self.most as u64)
    }

    /// Takes idle buffers for `blocks` blocks, at most one command's; `None` if all are in flight, or if they are for a write
    /// that has to wait for the one before it, as in a zone.
    pub fn buffers(&mut self, blocks: usize, write: bool) -> Option<Buffers> {
        if write && self.zone.is_some() && !self.window.is_empty() {
            return None;
        }
        self.idle.pop().map(|buffers| self.cut(buffers, blocks))
    }

    /// Leaves the first `blocks` blocks of buffers.
    pub fn cut(&self, Buffers { data, metadata }: Buffers, blocks: usize) -> Buffers {
        let cut = |buffer: DmaBuf, len: usize| if len < buffer.len() { buffer.slice(0..len) } else { buffer };
        Buffers {
            data: cut(data, blocks * self.layout.moved),
            metadata: if metadata.is_empty() {
                metadata
            } else {
                cut(metadata, blocks * self.layout.metadata)
            },
        }
    }

    /// Takes back buffers that are not used any more.
    pub fn give_back(&mut self, Buffers { data, metadata }: Buffers) {
        let apart = if metadata.is_empty() { 0 } else { self.most * self.layout.metadata };
        let (Some(data), Some(metadata)) =
            (whole(data, self.most * self.layout.moved), whole(metadata, apart))
        else {
            return;
        };
        self.idle.push(Buffers { data, metadata });
    }

    /// Submits a command for all of the buffers.
    pub fn send(&mut self, slba: u64, buffers: Buffers, write: bool) -> anyhow::Result<()> {
        let number = self.first + self.window.len() as u64;
        let direction = if write { Direction::Write } else { Direction::Read };
        let io = self.layout.io(direction, &self.namespace, slba, self.origin);
        let mut turn = self.queue.turn()?;
        let io = match self.placement {
            Some(identifier) => io.placement(identifier),
            None => io,
        };
        let sent = match buffers.metadata.is_empty() {
            true => turn.submit(io, buffers.data, number),
            false => turn.submit_with_metadata(io, buffers, number),
        };
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
                && let Some((result, buffers)) = outcome.take()
            {
                let slba = *slba;
                self.window.pop_front();
                self.first += 1;
                result.with_context(|| match slba {
                    FLUSH => "flushing".into(),
                    _ => format!("{} at block {slba}", verb(write)),
                })?;
                return Ok(Some(Piece { slba, buffers }));
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
            let (number, result, buffer) = done.into_parts();
            let buffers = match self.layout.is_apart {
                true => Buffers::from(buffer),
                false => Buffers { data: buffer, metadata: DmaBuf::empty() },
            };
            if let Some(slot) = self.window.get_mut((number - self.first) as usize) {
                slot.1 = Some((result, buffers));
            }
            any = true;
        }
        Ok(any)
    }
}

/// Gives a part of a buffer the length again that it had, `len`; `None` if the rest is in use.
fn whole(mut buffer: DmaBuf, len: usize) -> Option<DmaBuf> {
    while buffer.len() < len {
        buffer = buffer.try_reunite().ok()?;
    }
    Some(buffer)
}

fn verb(write: bool) -> &'static str {
    if write { "writing" } else { "reading" }
}
