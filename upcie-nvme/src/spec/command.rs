//! Submission queue entries: Base, "Submission Queue Entry".

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::dwords::{
    AbortDword10, CreateCqDword11, CreateQueueDword10, CreateSqDword11, FeaturesDword10, IdentifyDword10,
    IdentifyDword11, LogPageDword10, LogPageDword11, QueuePriority, ReadWriteDword12,
};
use super::features::{FeatureId, FeatureSelect};
use super::identify::{Cns, Csi};
use super::log::LogPageId;
use super::macros::assert_size;
use super::opcode::{AdminOpcode, NvmOpcode};
use super::ranges::{DatasetDword10, DatasetDword11};

/// The namespace identifier that stands for all namespaces, where a command allows it.
pub const ALL_NAMESPACES: u32 = 0xffff_ffff;

/// A submission queue entry: 64 bytes.
///
/// The functions that make a command leave its identifier 0, because the queue sets it. They also leave the
/// data pointer 0, except if the command creates a queue.
///
/// Building a command is safe, whatever addresses it holds. Handing it to a device is not: the device follows
/// [`prp1`](Self::prp1), [`prp2`](Self::prp2) and [`mptr`](Self::mptr) as `flags` tells it, so safe code must
/// set all four itself.
// The functions that make a command are in the file of its command set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Command {
    /// Opcode: an [`AdminOpcode`] on the admin queue, an [`NvmOpcode`] on an I/O queue.
    pub opcode: u8,
    /// Bits 1:0 FUSE (fused operation), bits 7:6 PSDT: 0 if the data pointer is two PRP entries.
    pub flags: u8,
    /// Command identifier, unique among the queue's commands in flight; FFFFh is reserved.
    pub cid: u16,
    /// Namespace identifier; 0 if the command uses none.
    pub nsid: u32,
    /// Command dword 2.
    pub cdw2: u32,
    /// Command dword 3.
    pub cdw3: u32,
    pub(crate) mptr: u64,
    pub(crate) prp1: u64,
    pub(crate) prp2: u64,
    /// Command dword 10.
    pub cdw10: u32,
    /// Command dword 11.
    pub cdw11: u32,
    /// Command dword 12.
    pub cdw12: u32,
    /// Command dword 13.
    pub cdw13: u32,
    /// Command dword 14.
    pub cdw14: u32,
    /// Command dword 15.
    pub cdw15: u32,
}
assert_size!(Command, 64);

const ZERO: Command = Command {
    opcode: 0,
    flags: 0,
    cid: 0,
    nsid: 0,
    cdw2: 0,
    cdw3: 0,
    mptr: 0,
    prp1: 0,
    prp2: 0,
    cdw10: 0,
    cdw11: 0,
    cdw12: 0,
    cdw13: 0,
    cdw14: 0,
    cdw15: 0,
};

/// Admin commands.
impl Command {
    /// Makes an admin command for the passthrough, all other fields 0.
    #[must_use]
    pub const fn admin(opcode: AdminOpcode, nsid: u32) -> Self {
        Self { opcode: opcode.0, nsid, ..ZERO }
    }

    /// Makes an Identify command, which returns 4096 bytes. `nsid` and `cntid` are 0 if `cns` doesn't use them.
    #[must_use]
    pub const fn identify(cns: Cns, nsid: u32, cntid: u16) -> Self {
        let cdw10 = IdentifyDword10::new().with_cns(cns).with_cntid(cntid).into_bits();
        Self { cdw10, ..Self::admin(AdminOpcode::IDENTIFY, nsid) }
    }

    /// Makes an Identify command for a structure that depends on the command set, which has 4096 bytes.
    #[must_use]
    pub const fn identify_command_set(cns: Cns, nsid: u32, csi: Csi) -> Self {
        let cdw11 = IdentifyDword11::new().with_csi(csi).into_bits();
        Self { cdw11, ..Self::identify(cns, nsid, 0) }
    }

    /// Makes a Create I/O Completion Queue command for a queue at the device address `iova`, page-aligned and
    /// contiguous. `entries` is 2 to 65536 and at most CAP.MQES + 1. Without a `vector` the queue is polled.
    ///
    /// # Panics
    ///
    /// In debug builds, if `entries` is out of that range.
    #[must_use]
    pub const fn create_completion_queue(qid: u16, entries: u32, iova: u64, vector: Option<u16>) -> Self {
        let cdw11 = match vector {
            Some(iv) => CreateCqDword11::new().with_pc(true).with_ien(true).with_iv(iv),
            None => CreateCqDword11::new().with_pc(true),
        };
        Self {
            prp1: iova,
            cdw10: queue_dword(qid, entries),
            cdw11: cdw11.into_bits(),
            ..Self::admin(AdminOpcode::CREATE_CQ, 0)
        }
    }

    /// Makes a Create I/O Submission Queue command for a queue at the device address `iova`, page-aligned and
    /// contiguous, whose completions go to the completion queue `cqid`. `entries` is 2 to 65536 and at most
    /// CAP.MQES + 1.
    ///
    /// # Panics
    ///
    /// In debug builds, if `entries` is out of that range.
    #[must_use]
    pub const fn create_submission_queue(
        qid: u16,
        entries: u32,
        iova: u64,
        cqid: u16,
        priority: QueuePriority,
    ) -> Self {
        Self {
            prp1: iova,
            cdw10: queue_dword(qid, entries),
            cdw11: CreateSqDword11::new().with_pc(true).with_qprio(priority).with_cqid(cqid).into_bits(),
            ..Self::admin(AdminOpcode::CREATE_SQ, 0)
        }
    }

    /// Makes a Delete I/O Submission Queue command. The queue's commands in flight are aborted or finished before it
    /// completes.
    #[must_use]
    pub const fn delete_submission_queue(qid: u16) -> Self {
        Self { cdw10: qid as u32, ..Self::admin(AdminOpcode::DELETE_SQ, 0) }
    }

    /// Makes a Delete I/O Completion Queue command. All submission queues of that queue must have been deleted.
    #[must_use]
    pub const fn delete_completion_queue(qid: u16) -> Self {
        Self { cdw10: qid as u32, ..Self::admin(AdminOpcode::DELETE_CQ, 0) }
    }

    /// Makes a Set Features command for the controller, which saves nothing; `cdw11` is the feature's value. A feature
    /// of one namespace also needs `nsid`, and some need a data buffer.
    #[must_use]
    pub const fn set_features(fid: FeatureId, cdw11: u32) -> Self {
        let cdw10 = FeaturesDword10::new().with_fid(fid).into_bits();
        Self { cdw10, cdw11, ..Self::admin(AdminOpcode::SET_FEATURES, 0) }
    }

    /// Makes a Get Features command for the controller: the value is the completion's dword 0. A feature of one
    /// namespace also needs `nsid`, and some need a data buffer.
    #[must_use]
    pub const fn get_features(fid: FeatureId, sel: FeatureSelect) -> Self {
        let cdw10 = FeaturesDword10::new().with_fid(fid).with_sel(sel).into_bits();
        Self { cdw10, ..Self::admin(AdminOpcode::GET_FEATURES, 0) }
    }

    /// Makes a Get Log Page command, which returns `bytes` (a multiple of 4, at least 4) from byte `offset` (a multiple
    /// of 4) of the log, and clears the event that the log belongs to. `nsid` is [`ALL_NAMESPACES`] for logs of the
    /// controller.
    ///
    /// # Panics
    ///
    /// In debug builds, if `bytes` or `offset` is not such a multiple.
    #[must_use]
    pub const fn get_log_page(lid: LogPageId, nsid: u32, bytes: u32, offset: u64) -> Self {
        debug_assert!(bytes >= 4 && bytes % 4 == 0 && offset % 4 == 0);
        let numd = (bytes / 4).wrapping_sub(1);
        Self {
            cdw10: LogPageDword10::new().with_lid(lid).with_numdl(numd as u16).into_bits(),
            cdw11: LogPageDword11::new().with_numdu((numd >> 16) as u16).into_bits(),
            cdw12: offset as u32,
            cdw13: (offset >> 32) as u32,
            ..Self::admin(AdminOpcode::GET_LOG_PAGE, nsid)
        }
    }

    /// Makes an Abort command for the command `cid` of the submission queue `sqid`. Bit 0 of the completion's dword 0
    /// is clear if that command was aborted.
    #[must_use]
    pub const fn abort(sqid: u16, cid: u16) -> Self {
        let cdw10 = AbortDword10::new().with_sqid(sqid).with_cid(cid).into_bits();
        Self { cdw10, ..Self::admin(AdminOpcode::ABORT, 0) }
    }

    /// Makes an Asynchronous Event Request command, which completes when an event occurs: an
    /// [`AsyncEvent`](super::AsyncEvent) in dword 0.
    #[must_use]
    pub const fn asynchronous_event_request() -> Self {
        Self::admin(AdminOpcode::ASYNC_EVENT_REQUEST, 0)
    }
}

/// Commands of the NVM command set.
impl Command {
    /// Makes an I/O command for raw submission, all other fields 0.
    #[inline]
    #[must_use]
    pub const fn io(opcode: NvmOpcode, nsid: u32) -> Self {
        Self { opcode: opcode.0, nsid, ..ZERO }
    }

    /// Makes a Read command for `nlb` blocks, 1 to 65536, from block `slba` on.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[inline]
    #[must_use]
    pub const fn read(nsid: u32, slba: u64, nlb: u32) -> Self {
        Self::blocks(NvmOpcode::READ, nsid, slba, nlb)
    }

    /// Makes a Write command for `nlb` blocks, 1 to 65536, from block `slba` on.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[inline]
    #[must_use]
    pub const fn write(nsid: u32, slba: u64, nlb: u32) -> Self {
        Self::blocks(NvmOpcode::WRITE, nsid, slba, nlb)
    }

    /// Makes a Flush command. When it completes, every write to the namespace that completed before is on the media.
    #[inline]
    #[must_use]
    pub const fn flush(nsid: u32) -> Self {
        Self::io(NvmOpcode::FLUSH, nsid)
    }

    /// Makes a Write Zeroes command for `nlb` blocks, 1 to 65536, from block `slba` on.
    ///
    /// # Panics
    ///
    /// In debug builds, if `nlb` is out of that range.
    #[inline]
    #[must_use]
    pub const fn write_zeroes(nsid: u32, slba: u64, nlb: u32) -> Self {
        Self::blocks(NvmOpcode::WRITE_ZEROES, nsid, slba, nlb)
    }

    /// Makes a Dataset Management command that deallocates `count` ranges, 1 to 256: its data is as many
    /// [`DatasetRange`](super::DatasetRange)s.
    ///
    /// # Panics
    ///
    /// In debug builds, if `count` is out of that range.
    #[inline]
    #[must_use]
    pub const fn deallocate(nsid: u32, count: u32) -> Self {
        debug_assert!(count >= 1 && count <= 256);
        Self {
            cdw10: DatasetDword10::new().with_nr(count.wrapping_sub(1) as u8).into_bits(),
            cdw11: DatasetDword11::new().with_ad(true).into_bits(),
            ..Self::io(NvmOpcode::DATASET_MANAGEMENT, nsid)
        }
    }

    #[inline]
    const fn blocks(opcode: NvmOpcode, nsid: u32, slba: u64, nlb: u32) -> Self {
        debug_assert!(nlb >= 1 && nlb <= 65536);
        Self {
            cdw10: slba as u32,
            cdw11: (slba >> 32) as u32,
            cdw12: ReadWriteDword12::new().with_nlb(nlb.wrapping_sub(1) as u16).into_bits(),
            ..Self::io(opcode, nsid)
        }
    }

    /// Returns the first block of a Read, Write, Compare, Write Zeroes or Verify.
    #[inline]
    #[must_use]
    pub const fn slba(&self) -> u64 {
        self.cdw10 as u64 | (self.cdw11 as u64) << 32
    }

    /// Returns the number of blocks of a Read, Write, Compare, Write Zeroes or Verify: 1 to 65536.
    #[inline]
    #[must_use]
    pub const fn block_count(&self) -> u32 {
        (self.cdw12 & 0xffff) + 1
    }
}

/// Addresses, and the range of a Get Log Page.
impl Command {
    /// Returns the first PRP entry, a device address.
    #[inline]
    #[must_use]
    pub const fn prp1(&self) -> u64 {
        self.prp1
    }

    /// Returns the second PRP entry: a device address, of data or of a PRP list.
    #[inline]
    #[must_use]
    pub const fn prp2(&self) -> u64 {
        self.prp2
    }

    /// Returns the metadata pointer, a device address.
    #[inline]
    #[must_use]
    pub const fn mptr(&self) -> u64 {
        self.mptr
    }

    /// Sets both words of the data pointer, for raw submission: two PRP entries or, with PSDT in `flags`, an
    /// SGL descriptor.
    #[inline]
    pub const fn set_data_pointer(&mut self, prp1: u64, prp2: u64) {
        self.prp1 = prp1;
        self.prp2 = prp2;
    }

    /// Sets the metadata pointer, for raw submission.
    #[inline]
    pub const fn set_metadata_pointer(&mut self, mptr: u64) {
        self.mptr = mptr;
    }

    /// Returns the bytes that a Get Log Page asks for: 4 to 16 GiB.
    #[must_use]
    pub const fn log_page_bytes(&self) -> u64 {
        ((self.cdw10 >> 16) as u64 + ((self.cdw11 as u64 & 0xffff) << 16) + 1) * 4
    }

    /// Returns the offset in the log at which a Get Log Page starts, in bytes.
    #[must_use]
    pub const fn log_page_offset(&self) -> u64 {
        self.cdw12 as u64 | (self.cdw13 as u64) << 32
    }
}

const fn queue_dword(qid: u16, entries: u32) -> u32 {
    debug_assert!(entries >= 2 && entries <= 65536);
    CreateQueueDword10::new().with_qid(qid).with_qsize(entries.wrapping_sub(1) as u16).into_bits()
}
