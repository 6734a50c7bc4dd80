//! Base 2.1, "Controller State Data Structure" of Migration Send and Migration Receive: the I/O queues of a controller, and
//! what the vendor adds.

use zerocopy::FromBytes;

use super::super::fields::{Field, Structure, Value, show};
use super::super::macros::{bits, printed, structure};

bits! {
    /// Attributes of a controller's state.
    ControllerStateAttributes(u8), "Controller State Attributes" {
        /// The controller was suspended while its state was read (CP).
        suspended: bool[1] => flag;
        __: u8[7];
    }
}

structure! {
    /// The beginning of a controller's state, 48 bytes: the sizes of its two parts.
    ControllerStateHeader[48], "Controller State" {
        /// Version of the structure: 0 (VER).
        0 version: u16 => number;
        /// Attributes (CSATTR).
        2 attributes: ControllerStateAttributes => fields;
        3 reserved3: [u8; 13];
        /// Size of the NVMe Controller State, dwords, little endian (NVMECSS).
        16 nvme_state_size: [u8; 16] => unit("dwords");
        /// Size of the vendor's state, dwords, little endian (VSS).
        32 vendor_specific_size: [u8; 16] => unit("dwords");
    }
}

impl ControllerStateHeader {
    /// Returns the bytes of the state, this header included; `None` if they do not fit into memory.
    #[must_use]
    pub fn total(&self) -> Option<usize> {
        let parts = bytes(self.nvme_state_size)?.checked_add(bytes(self.vendor_specific_size)?)?;
        parts.checked_add(size_of::<Self>())
    }
}

/// Returns the bytes of a number of dwords.
fn bytes(dwords: [u8; 16]) -> Option<usize> {
    usize::try_from(u128::from_le_bytes(dwords)).ok()?.checked_mul(4)
}

structure! {
    /// The beginning of the NVMe Controller State, 8 bytes; the submission queues and the completion queues follow it.
    NvmeStateHeader[8], "NVMe Controller State" {
        /// Version of the structure: 0 (VER).
        0 version: u16 => number;
        /// I/O submission queues (NIOSQ).
        2 submission_queues: u16 => number;
        /// I/O completion queues (NIOCQ).
        4 completion_queues: u16 => number;
        6 reserved6: [u8; 2];
    }
}

bits! {
    /// Attributes of a submission queue (IOSQA).
    SubmissionQueueAttributes(u16), "I/O Submission Queue Attributes" {
        /// The address is that of the queue, and not of a PRP list (IOSQPC).
        contiguous: bool[1] => flag;
        /// Priority (IOSQQPRIO).
        priority: u8[2] => names(&[(0, "urgent"), (1, "high"), (2, "medium"), (3, "low")]);
        __: u16[13];
    }
}

structure! {
    /// An I/O submission queue, 24 bytes.
    SubmissionQueueState[24], "I/O Submission Queue State" {
        /// Address of the queue or of its PRP list (IOSQPRP1).
        0 address: u64 => hex;
        /// Entries, 0's based (IOSQQSIZE).
        8 size: u16 => zeros_based;
        /// The queue (IOSQQID).
        10 queue_id: u16 => number;
        /// The completion queue (IOSQCQID).
        12 completion_queue_id: u16 => number;
        /// Attributes (IOSQA).
        14 attributes: SubmissionQueueAttributes => fields;
        /// Head (IOSQHP).
        16 head: u16 => number;
        /// Tail (IOSQTP).
        18 tail: u16 => number;
        20 reserved20: [u8; 4];
    }
}

bits! {
    /// Attributes of a completion queue (IOCQA).
    CompletionQueueAttributes(u32), "I/O Completion Queue Attributes" {
        /// The address is that of the queue, and not of a PRP list (IOCQPC).
        contiguous: bool[1] => flag;
        /// Completions raise interrupts (IOCQIEN).
        interrupts_enabled: bool[1] => flag;
        /// Phase tag of the first entry (S0PT).
        first_phase: bool[1] => flag;
        __: u16[13];
        /// Interrupt vector (IOCQIV).
        interrupt_vector: u16[16] => number;
    }
}

structure! {
    /// An I/O completion queue, 24 bytes.
    CompletionQueueState[24], "I/O Completion Queue State" {
        /// Address of the queue or of its PRP list (IOCQPRP1).
        0 address: u64 => hex;
        /// Entries, 0's based (IOCQQSIZE).
        8 size: u16 => zeros_based;
        /// The queue (IOCQQID).
        10 queue_id: u16 => number;
        /// Head (IOCQHP).
        12 head: u16 => number;
        /// Tail (IOCQTP).
        14 tail: u16 => number;
        /// Attributes (IOCQA).
        16 attributes: CompletionQueueAttributes => fields;
        20 reserved20: [u8; 4];
    }
}

/// The state of a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerState {
    /// The sizes of the parts.
    pub header: ControllerStateHeader,
    /// The I/O submission queues.
    pub submission_queues: Vec<SubmissionQueueState>,
    /// The I/O completion queues.
    pub completion_queues: Vec<CompletionQueueState>,
    /// The vendor's state.
    pub vendor_specific: Vec<u8>,
}

impl ControllerState {
    /// Makes the state of its bytes; `None` if they are too few, or have more queues than they have room for. Bytes after the
    /// state are ignored.
    #[must_use]
    pub fn from_bytes(state: &[u8]) -> Option<Self> {
        let (header, rest) = ControllerStateHeader::read_from_prefix(state).ok()?;
        let (nvme, rest) = rest.split_at_checked(bytes(header.nvme_state_size)?)?;
        let vendor_specific = rest.get(..bytes(header.vendor_specific_size)?)?.to_vec();
        let (submission_queues, completion_queues) =
            if nvme.is_empty() { Default::default() } else { queues(nvme)? };
        Some(Self { header, submission_queues, completion_queues, vendor_specific })
    }
}

fn queues(nvme: &[u8]) -> Option<(Vec<SubmissionQueueState>, Vec<CompletionQueueState>)> {
    let (header, rest) = NvmeStateHeader::read_from_prefix(nvme).ok()?;
    let (submission, rest) = entries(rest, header.submission_queues)?;
    let (completion, _) = entries(rest, header.completion_queues)?;
    Some((submission, completion))
}

/// Returns the entries, and the bytes after them.
fn entries<T: FromBytes>(all: &[u8], count: u16) -> Option<(Vec<T>, &[u8])> {
    let (all, rest) = all.split_at_checked(usize::from(count) * size_of::<T>())?;
    let entries = all.chunks_exact(size_of::<T>()).filter_map(|entry| T::read_from_bytes(entry).ok());
    Some((entries.collect(), rest))
}

impl Structure for ControllerState {
    const TITLE: &'static str = "Controller State";

    fn fields(&self) -> Vec<Field> {
        let mut all = self.header.fields();
        all.push(Field::new("submission_queues", show::each(&self.submission_queues)));
        all.push(Field::new("completion_queues", show::each(&self.completion_queues)));
        all.push(Field::new("vendor_specific", Value::Bytes(self.vendor_specific.clone())));
        all
    }
}
printed!(ControllerState);
