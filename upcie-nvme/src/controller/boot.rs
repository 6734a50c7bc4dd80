//! Boot partitions, read by the controller's properties (Base, "Boot Partitions"): without queues of their own.

use super::{Controller, Inner, Limit, transitions};
use crate::{
    Error, Result,
    spec::{BootPartitionProperty, BootPartitionSelect, BootReadStatus, offset},
};
use std::mem::ManuallyDrop;
use upcie_core::dma::DmaBuf;

/// Unit of BPROF and BPRSZ in bytes, and the alignment of the buffer.
const UNIT: u64 = 4096;
/// Unit of BPSZ in bytes.
const SIZE_UNIT: u64 = 128 << 10;
/// Bytes of one read.
const PIECE: u64 = 128 << 10;
const READ: &str = "reading a boot partition";

/// The boot partitions of a controller: two of one size.
///
/// ```
/// let controller = upcie_nvme::Controller::open("emu:size=1M,boot-partitions=256K")?;
/// if let Some(partitions) = controller.boot_partitions()? {
///     let mut image = vec![0; partitions.size as usize];
///     controller.read_boot_partition(partitions.active, 0, &mut image)?;
/// }
/// # Ok::<(), upcie_nvme::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BootPartitions {
    /// Bytes of each (BPINFO.BPSZ).
    pub size: u64,
    /// The partition that a system boots from (BPINFO.ABPID): 0 or 1.
    pub active: u8,
}

impl Controller {
    /// Returns the size of the boot partitions, and which of them is active; `None` if the controller has none (CAP.BPS).
    ///
    /// ```
    /// let controller = upcie_nvme::Controller::open("emu:size=1M,boot-partitions=256K")?;
    /// let partitions = controller.boot_partitions()?.expect("as the options say");
    /// assert_eq!((partitions.size, partitions.active), (256 << 10, 0));
    /// # Ok::<(), upcie_nvme::Error>(())
    /// ```
    ///
    /// # Errors
    /// The device is gone.
    pub fn boot_partitions(&self) -> Result<Option<BootPartitions>> {
        let registers = self.inner.registers();
        if !registers.capabilities().bps() {
            return Ok(None);
        }
        let property = self.inner.boot_property()?;
        Ok(Some(BootPartitions {
            size: u64::from(property.bpsz()) * SIZE_UNIT,
            active: property.abpid().into(),
        }))
    }

    /// Reads the bytes of boot partition `id` (0 or 1) from byte `at` on into all of `data`, by the properties BPMBL, BPRSEL
    /// and BPINFO (Base, "Boot Partition Read Select"). The log page 15h
    /// ([`BootPartitionLog`](crate::spec::BootPartitionLog)) has the same bytes by an admin command.
    ///
    /// It takes the controller's timeout and a second for each MiB at most, the wait for other threads that read included, and
    /// the timeout for each 128 KiB.
    ///
    /// An image gets into a partition by [`download_firmware`](Self::download_firmware) and a
    /// [`FirmwareCommit`](crate::spec::FirmwareCommit) that replaces the partition.
    ///
    /// # Errors
    /// - [`Failure::Unsupported`](crate::Failure::Unsupported): the controller has no boot partitions (CAP.BPS is 0).
    /// - [`Failure::Argument`](crate::Failure::Argument): there is no partition `id`, `at` is no multiple of 4096, or the range
    ///   does not end within the partition.
    /// - [`Failure::Protocol`](crate::Failure::Protocol): the controller could not read (BPINFO.BRS is 11b).
    /// - No DMA memory is left, or a timeout: then the controller may still use the memory of the read, which is never freed.
    pub fn read_boot_partition(&self, id: u8, at: u64, data: &mut [u8]) -> Result<()> {
        let inner = &self.inner;
        inner.check_owner(READ)?;
        let Some(partitions) = self.boot_partitions()? else {
            return Err(Error::unsupported(inner.name(), "it has no boot partitions (CAP.BPS is 0)"));
        };
        let refuse = |reason: String| Err(Error::argument(inner.name(), reason));
        if id > 1 {
            return refuse(format!("there is no boot partition {id}: 0 and 1 are"));
        }
        if at % UNIT != 0 {
            return refuse(format!(
                "a boot partition is read from multiples of {UNIT} bytes on, and {at} is none"
            ));
        }
        if at.checked_add(data.len() as u64).is_none_or(|end| end > partitions.size) {
            return refuse(format!(
                "{} bytes from byte {at} on do not end within boot partition {id} of {} bytes",
                data.len(),
                partitions.size
            ));
        }
        let mut limit = inner.limit_for(data.len() as u64);
        let _alone = inner.enter_boot_reads(&limit, READ)?;
        let _budget = limit.budget();
        let piece = PIECE.min((data.len() as u64).next_multiple_of(UNIT)).max(UNIT);
        let mut buffer = inner.heap().alloc_aligned(piece as usize, UNIT as usize)?;
        // The controller is given one address: memory in pieces serves a page at a time.
        let piece = if buffer.is_linear() { piece } else { UNIT } as usize;
        let mut at = at;
        for part in data.chunks_mut(piece) {
            let (len, mut limit) = ((part.len() as u64).next_multiple_of(UNIT), limit.part(inner.timeout()));
            buffer = inner.read_boot_piece(id, at, len, buffer, &mut limit)?;
            buffer.read_at(0, part);
            at += part.len() as u64;
        }
        Ok(())
    }
}

impl Inner {
    fn boot_property(&self) -> Result<BootPartitionProperty> {
        let value = self.registers().peek(offset::BPINFO)?;
        if value == u32::MAX {
            return Err(Error::gone(self.name(), "reading BPINFO"));
        }
        Ok(BootPartitionProperty::from_bits(value))
    }

    /// Reads `len` bytes, which are in the buffer's first contiguous ones then.
    fn read_boot_piece(
        &self,
        id: u8,
        at: u64,
        len: u64,
        buffer: DmaBuf,
        limit: &mut Limit<'_>,
    ) -> Result<DmaBuf> {
        let _budget = limit.budget();
        let registers = self.registers();
        let select = BootPartitionSelect::new()
            .with_bprsz((len / UNIT) as u16)
            .with_bprof((at / UNIT) as u32)
            .with_bpid(id == 1);
        let status = || Ok::<_, Error>(self.boot_property()?.brs());
        // A read of somebody else may be under way: neither property may change before its end.
        let idle = || Ok::<_, Error>(status()? != BootReadStatus::IN_PROGRESS);
        let wait = |limit: &mut Limit<'_>, operation: &str| {
            let waited = transitions::wait(registers.clock(), limit.left(), self.name(), operation, idle);
            waited.map_err(|error| limit.tell(error))
        };
        wait(limit, "waiting for an earlier read of a boot partition")?;
        if limit.left().is_zero() {
            return Err(Error::timeout(self.name(), READ, limit.whole()));
        }
        // SAFETY: the address names `buffer`, which is the controller's from the next write on, and `len` bytes of it are
        // contiguous; it is not given back, read or freed before the read has ended.
        unsafe { registers.write_u64(offset::BPMBL, buffer.iova(0)) }?;
        // No reset of the controller is known to end a read, so the memory is freed after the end alone. An error may end the
        // wait before, and so may a panic of the program's clock.
        let buffer = ManuallyDrop::new(buffer);
        // SAFETY: the read that this begins writes to the memory that BPMBL names.
        unsafe { registers.write_u32(offset::BPRSEL, select.into_bits()) }?;
        wait(limit, READ)?;
        let buffer = ManuallyDrop::into_inner(buffer);
        match status()? {
            BootReadStatus::COMPLETED => Ok(buffer),
            other => Err(Error::protocol(
                self.name(),
                format!("{READ} ({len} bytes of partition {id} from byte {at} on)"),
                format!("BPINFO.BRS is {:02b}b, not 10b (completed)", other.0),
            )),
        }
    }
}
