//! The reasons for refusing a command.

use std::fmt;

/// The reason why a command was refused.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is full: every slot has a command in flight. Reap some first.
    Full,
    /// During this turn the controller completed a command that was not in flight, or was reset, which closed the queue:
    /// the next turn's error has the reason.
    Closed,
    /// The buffer needs a PRP list, and all list memory of the queue is in use: reap some commands first, or
    /// make the queue with more
    /// ([`QueuePairBuilder::list_memory`](crate::queue::QueuePairBuilder::list_memory)).
    ListsInUse,
    /// The buffer has no bytes, or not a whole number of blocks; a number of blocks or ranges is 0; the slice
    /// or the ranges exceed the buffer; or there are more ranges than a command takes.
    Length,
    /// The transfer exceeds the controller's limit for one command (MDTS; 65536 blocks; for Write Zeroes
    /// WZSL, for Verify VSL, for Write Uncorrectable WUSL): split it.
    TooLong,
    /// The controller does not have the command, which is optional
    /// ([`optional_commands`](crate::spec::IdentifyController::optional_commands)).
    NoCommand,
    /// The controller takes no source ranges of this format in a Copy (CDFS): ranges of other namespaces need formats 2 and 3, which
    /// [`ControllerBuilder::copy_between_namespaces`](crate::ControllerBuilder::copy_between_namespaces) turns on.
    CopyFormat,
    /// The source ranges of a Copy exceed the limits of the namespace that is written
    /// ([`identify`](crate::Namespace::identify): `msrc`, `mssrl`, `mcl`): make several of it.
    CopyLimits,
    /// The ranges of a Dataset Management exceed the controller's limits (DMRL, DMRSL, DMSL of
    /// [`IdentifyNvmController`](crate::spec::IdentifyNvmController)): make several of it.
    DatasetLimits,
    /// The controller does not write so many blocks there as a whole ([`AtomicUnit`](crate::AtomicUnit)).
    NotAtomic,
    /// The controller does not have the fused operation Compare and Write
    /// ([`has_compare_and_write`](crate::spec::IdentifyController::has_compare_and_write)).
    NoFused,
    /// The queue can't hold both commands of a fused operation: make it with a depth of at least 3.
    Small,
    /// The blocks have metadata apart from their data: submit it with the command
    /// ([`Turn::submit_with_metadata`](crate::Turn::submit_with_metadata)), or let the controller insert and strip
    /// it, where it is protection information alone ([`Protect::action`](crate::protection::Protect::action)).
    Metadata,
    /// The command has a buffer for metadata, and none is transferred apart from the data: the blocks have no such metadata,
    /// or the controller inserts and strips all of it.
    NoMetadata,
    /// The metadata buffer does not have exactly the metadata of the blocks, or a range exceeds it.
    MetadataLength,
    /// The metadata buffer is not contiguous for the device, or not aligned to dwords.
    MetadataPlace,
    /// The command has protection, and the namespace's blocks have no protection information.
    Unprotected,
    /// A block of the transfer is at or beyond the end of the namespace.
    OutOfRange,
    /// The buffer is not aligned to dwords, and the controller takes no data at such an address by scatter gather lists
    /// (SGLs), or the queue may not use them ([`SglUse`](crate::queue::SglUse)).
    Unaligned,
    /// A segment can't be part of the command.
    Segment {
        /// The number of the segment, from 0 on.
        number: u32,
        /// The reason.
        fault: SegmentFault,
    },
    /// The buffer is in another device's address space.
    ForeignBuffer,
    /// The buffer is in the controller's own memory, which takes no data in this direction
    /// ([`Cmb`](crate::controller::Cmb)).
    Direction,
    /// Some segments are in the controller's own memory and some are not, which the controller does not allow
    /// in one command.
    Mixed,
    /// The namespace belongs to another controller.
    ForeignNamespace,
    /// The Cancel was made for another controller.
    ForeignCancel,
    /// No command is in flight in the slot that a Cancel names.
    NotInFlight,
    /// The namespaces of the controller have changed since this handle was made: get a new one.
    StaleNamespace,
    /// The namespace has no zones, so the command is not for it.
    NotZoned,
    /// The block is not the first one of a zone.
    ZoneStart,
    /// The namespace has keys and values, not blocks: use [`Namespace::keys`](crate::Namespace::keys), or a
    /// [`KeyCommand`](crate::KeyCommand).
    HasKeys,
    /// The namespace has blocks, not keys, so the command is not for it.
    NotKeyValue,
    /// The key is longer than keys of the namespace may be ([`KeyValue::max_key`](crate::KeyValue::max_key)).
    KeyLength,
    /// The value is longer than the namespace or one command takes, or the buffer for it is longer than one command may
    /// transfer ([`KeyValue::max_value`](crate::KeyValue::max_value),
    /// [`max_transfer`](crate::KeyValue::max_transfer)).
    ValueLength,
    /// The namespace's format or command set is not supported for I/O: see
    /// [`Namespace::check_usable`](crate::Namespace::check_usable).
    Unsupported,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the queue is full: reap completions first",
            Self::Closed => "the queue was closed during this turn: the next turn's error has the reason",
            Self::ListsInUse => "all PRP list memory of the queue is in use: reap completions first",
            Self::Length => {
                "the length is not a positive number of whole blocks, or of ranges, that the buffer holds"
            }
            Self::NoCommand => "the controller does not have this optional command (Identify, ONCS)",
            Self::CopyFormat => {
                "the controller takes no source ranges of this format (Identify, CDFS), or those of other namespaces are not turned \
                 on (`ControllerBuilder::copy_between_namespaces`)"
            }
            Self::CopyLimits => {
                "there are more source ranges, blocks of one, or blocks in all than a Copy to the namespace takes (Identify \
                 Namespace: MSRC, MSSRL, MCL): make several of it"
            }
            Self::DatasetLimits => {
                "there are more ranges, blocks of one, or blocks in all than the controller takes at once (DMRL, DMRSL, DMSL): \
                 make several of it"
            }
            Self::NotAtomic => "the controller does not write so many blocks there as a whole (`Namespace::atomic_units`)",
            Self::NoFused => "the controller does not have the fused Compare and Write (Identify, FUSES)",
            Self::Small => "the queue can't hold both commands of a fused operation: make it with a depth of 3",
            Self::TooLong => "it is longer than one command may be: split it",
            Self::Metadata => {
                "the blocks have metadata apart from their data: give a buffer for it, or let the controller insert and \
                 strip it"
            }
            Self::NoMetadata => "no metadata is transferred apart from the data: leave its buffer out",
            Self::MetadataLength => "the metadata buffer does not have exactly the metadata of the blocks",
            Self::MetadataPlace => "the metadata buffer is not contiguous for the device, or not aligned to dwords",
            Self::Unprotected => "the namespace's blocks have no protection information: leave the protection out",
            Self::OutOfRange => "the blocks are beyond the end of the namespace",
            Self::Unaligned => "the buffer is not aligned as PRPs need it",
            Self::Segment { number, fault } => return write!(f, "segment {number} {fault}"),
            Self::ForeignBuffer => "the buffer is in another device's address space",
            Self::Direction => {
                "the controller's own memory, where the buffer is, takes no data in this direction"
            }
            Self::Mixed => {
                "the controller takes no data that is partly in its own memory and partly elsewhere"
            }
            Self::ForeignNamespace => "the namespace belongs to another controller",
            Self::ForeignCancel => "the Cancel was made for another controller (`Controller::cancel`)",
            Self::NotInFlight => "no command is in flight in that slot: it was reaped, or never submitted",
            Self::StaleNamespace => "the controller's namespaces have changed: get the namespace again",
            Self::NotZoned => "the namespace has no zones: write to its blocks instead",
            Self::ZoneStart => {
                "the block is not the first one of a zone: name the zone by its first block (`Zones::start_of`)"
            }
            Self::HasKeys => "the namespace has keys and values, not blocks: store and retrieve these (`Namespace::keys`)",
            Self::NotKeyValue => "the namespace has blocks, not keys: read and write these",
            Self::KeyLength => "the key is longer than the namespace takes (`KeyValue::max_key`)",
            Self::ValueLength => {
                "the value, or the buffer for it, is longer than one command of the namespace transfers \
                 (`KeyValue::max_value`, `max_transfer`)"
            }
            Self::Unsupported => "the namespace's format or command set is not supported for I/O",
        })
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Refusal {}

/// The reason why a segment can't be part of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SegmentFault {
    /// The segment begins, or the previous one ends, within a page (the first one: within a dword), and the controller has
    /// no scatter gather lists for that, or the queue may not use them ([`SglUse`](crate::queue::SglUse)).
    Unaligned,
    /// The segment is in another device's address space.
    Foreign,
    /// The segment has no bytes, or exceeds its buffer.
    Length,
}

impl fmt::Display for SegmentFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unaligned => {
                "begins, or the one before it ends, where the controller takes no segment (within a page, or a dword)"
            }
            Self::Foreign => "is in another device's address space",
            Self::Length => "has no bytes, or exceeds its buffer",
        })
    }
}
