//! Definitions of the NVM Express specifications as plain data: registers, commands, completions, status
//! codes, identify structures, features and log pages.
//!
//! Nothing here touches a device. A structure is `#[repr(C)]` with its size checked at compile time and can
//! be read from and written to any bytes ([`FromBytes`], [`IntoBytes`]); registers and command dwords are bitfields. A value
//! that a controller supplies is a number with named constants, never a Rust enum, so no bytes are invalid.
//! Every helper returns an answer for all of them, without panic or overflow.
//!
//! Field names are the specification's mnemonics in lower case (`mdts`, `nsze`, `flbas`), with its units:
//! "0's based" means that 0 stands for one. Section names refer to the NVM Express Base Specification 2.0
//! ("Base") and the NVM Command Set Specification 1.0 ("NVM"); what 2.1 added is marked.
//!
//! ```
//! use upcie_nvme::spec::{Command, NvmOpcode, Status};
//!
//! let read = Command::read(1, 0x1000, 8); // namespace 1, 8 blocks from block 1000h
//! assert_eq!(read.opcode, NvmOpcode::READ.0);
//! assert_eq!((read.slba(), read.block_count()), (0x1000, 8));
//! assert_eq!(Status::LBA_OUT_OF_RANGE.name(), Some("LBA Out of Range"));
//! ```

#![deny(unsafe_code)]

#[cfg(not(all(target_endian = "little", target_pointer_width = "64")))]
compile_error!("NVMe structures are little endian and used in place: only 64-bit little-endian targets work");

#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod admin;
mod command;
mod completion;
mod device_memory;
mod dwords;
mod events;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod features;
mod fields;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod identify;
mod key_value;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod log;
mod macros;
pub mod offset;
mod opcode;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod placement;
mod protection;
mod ranges;
mod registers;
mod reservation_report;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod reservations;
#[cfg(feature = "serde")]
mod serialize;
mod sgl;
mod status;
mod transports;
#[allow(missing_debug_implementations, clippy::result_unit_err, reason = "derives in macros: `macros.rs`")]
mod zones;

#[cfg(test)]
mod tests;

/// The traits by which the structures are read from, and written to, bytes: zerocopy's.
pub use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub use admin::*;
pub use command::{ALL_NAMESPACES, Command};
pub use completion::CompletionEntry;
pub use device_memory::{CmbLocation, CmbMemorySpaceControl, CmbSize, PmrCapabilities, PmrStatus};
pub use dwords::{
    AbortDword10, CancelDword10, CancelDword11, CancelResult, CreateCqDword11, CreateQueueDword10,
    CreateSqDword11, FeaturesDword10, IdentifyDword10, IdentifyDword11, IoFlags, LogPageDword10,
    LogPageDword11, QueuePriority, ReadWriteDword12,
};
pub use events::{
    CommandSetEvent, ErrorEvent, EventKind, ImmediateEvent, NoticeEvent, OneShotEvent, SmartEvent,
};
pub use features::*;
pub use fields::{Field, FieldPlace, Structure, Value};
pub use identify::*;
pub use key_value::{InvalidKey, Key, KeyList, KeyValueOpcode, RetrieveOptions, StoreOptions};
pub use log::*;
pub use opcode::{AdminOpcode, DataDirection, NvmOpcode};
pub use placement::{HandleStatus, HandleStatusHeader, PlacementEventAttributes, PlacementEventSetting};
pub use protection::{
    ApplicationTagDword15, BlockTagDwords, ProtectionControl, ProtectionField, ProtectionFormat,
    REMAP_PROTECTION,
};
pub use ranges::{CopyDword12, CopyRange, DatasetDword10, DatasetDword11, DatasetRange, WideCopyRange};
pub use registers::{
    AdminQueueAttributes, ArbitrationMechanism, BootPartitionProperty, BootPartitionSelect, BootReadStatus,
    Capabilities, CommandSet, Configuration, ControllerStatus, NSSR_SIGNATURE, ReadyTimeouts,
    ShutdownNotification, ShutdownStatus, Version, doorbell_offset,
};
pub use reservation_report::{HostId, Registrant, ReservationReport};
pub use reservations::{
    ExtendedRegisteredController, PersistenceChange, RegisteredController, ReservationAcquireAction,
    ReservationAcquireData, ReservationAcquireDword10, ReservationCapabilities, ReservationRegisterAction,
    ReservationRegisterData, ReservationRegisterDword10, ReservationReleaseAction, ReservationReleaseData,
    ReservationReleaseDword10, ReservationStatus, ReservationType,
};
pub use sgl::SglDescriptor;
pub use status::{Status, StatusType};
pub use zones::{
    ZoneAction, ZoneAttributes, ZoneDescriptor, ZoneFilter, ZoneReceiveDword13, ZoneReportHeader,
    ZoneSendDword13, ZoneState, ZoneType,
};
