//! Memory of the host that a controller borrows for tables of its own: the host memory buffer (Base, "Host Memory Buffer").

use super::{Controller, Inner, Limit, lent::LentMemory, lock};
use crate::{
    Error, Result,
    engine::Retired,
    spec::{Command, FeatureId, HostMemoryBufferEnable, HostMemoryDescriptor, IdentifyController},
};
use upcie_core::{dma::DmaBuf, gate::Pass};
use zerocopy::IntoBytes;

/// Bytes of the units of HMPRE, HMMIN and HMMINDS.
const UNIT: u64 = 4096;
/// The largest piece that is asked of the heap: a huge page.
const LARGEST: u64 = 2 << 20;
/// The most pieces where the controller names no limit.
const PIECES: u64 = 4096;

impl Controller {
    /// Lends the controller memory for tables of its own (HMB): as much as it wishes (HMPRE), and at most `most` bytes.
    /// Returns the bytes: 0 if the controller wishes none. Solid-state drives without memory of their own are slow without it,
    /// in random reads over a large range for example.
    ///
    /// The controller keeps the memory, over resets too, until [`take_host_memory`](Self::take_host_memory) or until it is
    /// dropped. If it has some already, returns the bytes of that.
    ///
    /// All of it takes the controller's timeout at most, the wait for other threads that lend or take included.
    ///
    /// ```
    /// let controller = upcie_nvme::Controller::open("emu:size=1M,hmb=1M")?;
    /// assert_eq!(controller.lend_host_memory(64 << 20)?, 1 << 20);
    /// controller.take_host_memory()?;
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// - [`Failure::Argument`](crate::Failure::Argument): `most` is less than the controller can use (HMMIN).
    /// - No DMA memory is left, or it is in pieces that are too many or too small for the controller.
    /// - The controller's status, or a timeout: then the controller may use the memory, which is kept.
    pub fn lend_host_memory(&self, most: usize) -> Result<usize> {
        let inner = &self.inner;
        inner.check_owner(LEND)?;
        let mut limit = inner.limit();
        let _pass = inner.enter_host_buffer(&limit, LEND)?;
        let buffer = &inner.host_buffer;
        if let Some(bytes) = buffer.confirmed() {
            return Ok(bytes);
        }
        // After an earlier call that failed the controller may have memory.
        inner.end_lending(&mut limit)?;
        let budget = limit.budget();
        let made = inner.make_host_buffer(most as u64)?;
        drop(budget);
        *lock(&buffer.lent) = made;
        loop {
            let resets = inner.resets.count();
            let Some(command) = inner.lending(false) else { return Ok(0) };
            if let Err(error) = inner.send_lending(&command, &mut limit) {
                // A refusal may say that the controller has the memory; after any other error it may have it.
                if error.status().is_some() {
                    inner.end_lending(&mut limit)?;
                }
                return Err(error);
            }
            let mut lent = lock(&buffer.lent);
            // A reset that has begun meanwhile has made the controller forget the memory, or will.
            let forgotten = inner.resets.count() != resets;
            if let Some(lent) = lent.as_mut().filter(|_| !forgotten) {
                lent.confirmed = true;
                return Ok(lent.bytes as usize);
            }
            drop(lent);
            // It has the memory if the command came after the reset, and would refuse to be given it again.
            inner.disable_host_buffer(&mut limit)?;
        }
    }

    /// Returns the bytes of the memory that is [lent](Self::lend_host_memory) to the controller; 0 in a forked child.
    pub fn host_memory(&self) -> usize {
        if self.inner.is_inherited() {
            return 0;
        }
        self.inner.host_buffer.confirmed().unwrap_or(0)
    }

    /// Takes back the memory that was [lent](Self::lend_host_memory). Does nothing if the controller has none.
    ///
    /// # Errors
    /// The controller's status, or a timeout: the controller keeps the memory.
    pub fn take_host_memory(&self) -> Result<()> {
        let inner = &self.inner;
        inner.check_owner(TAKE)?;
        let mut limit = inner.limit();
        let _pass = inner.enter_host_buffer(&limit, TAKE)?;
        inner.end_lending(&mut limit)
    }
}

const LEND: &str = "lending the controller memory";
const TAKE: &str = "taking lent memory back";

/// The sizes that a controller states, in bytes.
struct PreferredSizes {
    preferred: u64,
    least: u64,
    least_piece: u64,
    most_pieces: u64,
}

impl PreferredSizes {
    fn of(identify: &IdentifyController, page: u64) -> Self {
        Self {
            preferred: u64::from(identify.hmpre) * UNIT,
            least: u64::from(identify.hmmin) * UNIT,
            least_piece: (u64::from(identify.hmminds) * UNIT).max(page),
            most_pieces: match identify.hmmaxd {
                0 => PIECES,
                most => u64::from(most).min(PIECES),
            },
        }
    }
}

impl Inner {
    fn enter_host_buffer(&self, limit: &Limit<'_>, operation: &str) -> Result<Pass<'_, ()>> {
        self.link.enter(&self.host_buffer.calls, limit, || operation.into(), "lent memory")
    }

    /// Allocates what the controller wishes; `None` if it wishes nothing.
    fn make_host_buffer(&self, most: u64) -> Result<Option<LentMemory>> {
        let page = 1_u64 << self.page_shift();
        let preferred = PreferredSizes::of(self.identify(), page);
        if preferred.preferred == 0 {
            return Ok(None);
        }
        let wanted = preferred.preferred.min(most) / page * page;
        if wanted < preferred.least || wanted == 0 {
            let reason =
                format!("the controller can use {} bytes at least, {most} are offered", preferred.least);
            return Err(Error::argument(self.name(), reason));
        }
        let mut size = LARGEST.max(wanted.div_ceil(preferred.most_pieces).next_power_of_two());
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        while bytes < wanted && (pieces.len() as u64) < preferred.most_pieces {
            let piece = size.min(wanted - bytes);
            if piece < preferred.least_piece {
                break;
            }
            match self.memory.private.alloc_aligned(piece as usize, page as usize) {
                Ok(memory) => {
                    bytes += piece;
                    pieces.push(memory);
                }
                // Smaller pieces may be side by side.
                Err(_) if size / 2 >= preferred.least_piece => size /= 2,
                Err(error) if bytes < preferred.least || bytes == 0 => return Err(error.into()),
                Err(_) => break,
            }
        }
        if bytes < preferred.least || bytes == 0 {
            let what = format!(
                "{bytes} bytes in {} pieces are to be had; it needs {} in pieces of {} or more",
                pieces.len(),
                preferred.least,
                preferred.least_piece
            );
            return Err(Error::argument(self.name(), what));
        }
        let mut list =
            self.memory.private.alloc_aligned(pieces.len() * size_of::<HostMemoryDescriptor>(), 16)?;
        for (index, piece) in pieces.iter().enumerate() {
            let size = (piece.len() as u64 / page) as u32;
            let entry = HostMemoryDescriptor { address: piece.iova(0), size, reserved12: 0 };
            list.write_at(index * size_of::<HostMemoryDescriptor>(), entry.as_bytes());
        }
        Ok(Some(LentMemory { pieces, list, bytes, confirmed: false, unanswered: false }))
    }

    /// Tells the controller to let go of the memory, if it may have some.
    fn end_lending(&self, limit: &mut Limit<'_>) -> Result<()> {
        match &mut *lock(&self.host_buffer.lent) {
            Some(lent) => lent.confirmed = false,
            None => return Ok(()),
        }
        self.disable_host_buffer(limit)?;
        let lent = lock(&self.host_buffer.lent).take();
        if let Some(LentMemory { mut pieces, list, unanswered: true, .. }) = lent {
            pieces.push(list);
            self.keep(Retired(pieces));
        }
        Ok(())
    }

    /// Tells the controller to use no memory of the host.
    fn disable_host_buffer(&self, limit: &mut Limit<'_>) -> Result<()> {
        let command = Command::set_features(FeatureId::HOST_MEMORY_BUFFER, 0);
        self.admin_data(&command, DmaBuf::empty(), TAKE, limit).map(drop)
    }

    /// Returns the command that lends the memory, if there is some. `again`: the controller had it before a reset.
    fn lending(&self, again: bool) -> Option<Command> {
        let lent = lock(&self.host_buffer.lent);
        let lent = lent.as_ref().filter(|lent| lent.confirmed == again)?;
        let list = lent.list.iova(0);
        let enable = HostMemoryBufferEnable::new().with_enabled(true).with_memory_return(again);
        Some(Command {
            cdw12: (lent.bytes >> self.page_shift()) as u32,
            cdw13: list as u32,
            cdw14: (list >> 32) as u32,
            cdw15: lent.pieces.len() as u32,
            ..Command::set_features(FeatureId::HOST_MEMORY_BUFFER, enable.into_bits())
        })
    }

    fn send_lending(&self, command: &Command, limit: &mut Limit<'_>) -> Result<()> {
        let sent = self.admin_data(command, DmaBuf::empty(), LEND, limit).map(drop);
        if sent.as_ref().is_err_and(|error| error.status().is_none()) {
            lock(&self.host_buffer.lent).iter_mut().for_each(|lent| lent.unanswered = true);
        }
        sent
    }

    /// Returns the memory to the controller, which a reset has made forget it.
    pub(super) fn restore_host_buffer(&self, limit: &mut Limit<'_>) -> Result<()> {
        let Some(command) = self.lending(true) else { return Ok(()) };
        let lent = self.send_lending(&command, limit);
        if lent.is_err() {
            lock(&self.host_buffer.lent).iter_mut().for_each(|lent| lent.confirmed = false);
        }
        lent
    }
}
