//! Reservations: Base, "Reservation Register command", "Reservation Report command", "Reservation Acquire command",
//! "Reservation Release command".

use bitfield_struct::bitfield;
use zerocopy::little_endian::U16;

use super::command::Command;
use super::fields::Value;
use super::identify::IdentifyNamespace;
use super::macros::{named_values, structure};
use super::opcode::NvmOpcode;

named_values! {
    /// The type of a reservation (RTYPE).
    ReservationType(u8) {
        WRITE_EXCLUSIVE = 0x1, "Write Exclusive";
        EXCLUSIVE_ACCESS = 0x2, "Exclusive Access";
        WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 0x3, "Write Exclusive - Registrants Only";
        EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 0x4, "Exclusive Access - Registrants Only";
        WRITE_EXCLUSIVE_ALL_REGISTRANTS = 0x5, "Write Exclusive - All Registrants";
        EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 0x6, "Exclusive Access - All Registrants";
    }
}

impl ReservationType {
    /// The types that the specification assigns.
    pub const ALL: [Self; 6] = [
        Self::WRITE_EXCLUSIVE,
        Self::EXCLUSIVE_ACCESS,
        Self::WRITE_EXCLUSIVE_REGISTRANTS_ONLY,
        Self::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY,
        Self::WRITE_EXCLUSIVE_ALL_REGISTRANTS,
        Self::EXCLUSIVE_ACCESS_ALL_REGISTRANTS,
    ];

    /// Returns `true` if hosts without access may not even read.
    #[must_use]
    pub const fn excludes_reads(self) -> bool {
        matches!(
            self,
            Self::EXCLUSIVE_ACCESS
                | Self::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
                | Self::EXCLUSIVE_ACCESS_ALL_REGISTRANTS
        )
    }

    /// Returns `true` if all registrants have the holder's access.
    #[must_use]
    pub const fn admits_registrants(self) -> bool {
        self.is_shared()
            || matches!(
                self,
                Self::WRITE_EXCLUSIVE_REGISTRANTS_ONLY | Self::EXCLUSIVE_ACCESS_REGISTRANTS_ONLY
            )
    }

    /// Returns `true` if each registrant is a holder of the reservation.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::WRITE_EXCLUSIVE_ALL_REGISTRANTS | Self::EXCLUSIVE_ACCESS_ALL_REGISTRANTS)
    }
}

named_values! {
    /// The action of a Reservation Register (RREGA).
    ReservationRegisterAction(u8) {
        REGISTER = 0x0, "Register Reservation Key";
        UNREGISTER = 0x1, "Unregister Reservation Key";
        REPLACE = 0x2, "Replace Reservation Key";
    }
}

named_values! {
    /// The action of a Reservation Acquire (RACQA).
    ReservationAcquireAction(u8) {
        ACQUIRE = 0x0, "Acquire";
        PREEMPT = 0x1, "Preempt";
        PREEMPT_AND_ABORT = 0x2, "Preempt and Abort";
    }
}

named_values! {
    /// The action of a Reservation Release (RRELA).
    ReservationReleaseAction(u8) {
        RELEASE = 0x0, "Release";
        CLEAR = 0x1, "Clear";
    }
}

named_values! {
    /// The change of a namespace's Persist Through Power Loss state (CPTPL).
    PersistenceChange(u8) {
        NONE = 0x0, "no change";
        CLEAR = 0x2, "lost with power";
        SET = 0x3, "persist through power loss";
    }
}

/// Reservation Register, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationRegisterDword10 {
    /// The action (RREGA).
    #[bits(3)]
    pub action: ReservationRegisterAction,
    /// The current key in the data is not compared (IEKEY).
    pub ignore_existing_key: bool,
    #[bits(26)]
    __: u32,
    /// Effect of a loss of power on registrations and reservations (CPTPL).
    #[bits(2)]
    pub persistence: PersistenceChange,
}

/// Reservation Acquire, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationAcquireDword10 {
    /// The action (RACQA).
    #[bits(3)]
    pub action: ReservationAcquireAction,
    /// The current key in the data is not compared (IEKEY); since version 1.3 a controller fails the command with it.
    pub ignore_existing_key: bool,
    #[bits(4)]
    __: u8,
    /// The type of the reservation (RTYPE).
    #[bits(8)]
    pub reservation_type: ReservationType,
    __: u16,
}

/// Reservation Release, command dword 10.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReservationReleaseDword10 {
    /// The action (RRELA).
    #[bits(3)]
    pub action: ReservationReleaseAction,
    /// The current key in the data is not compared (IEKEY); since version 1.3 a controller fails the command with it.
    pub ignore_existing_key: bool,
    #[bits(4)]
    __: u8,
    /// The type of the reservation that is released (RTYPE).
    #[bits(8)]
    pub reservation_type: ReservationType,
    __: u16,
}

bitflags::bitflags! {
    /// The reservations that a namespace can have (RESCAP).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct ReservationCapabilities: u8 {
        /// Reservations can persist through a loss of power.
        const PERSISTENCE = 1 << 0;
        /// Write Exclusive.
        const WRITE_EXCLUSIVE = 1 << 1;
        /// Exclusive Access.
        const EXCLUSIVE_ACCESS = 1 << 2;
        /// Write Exclusive - Registrants Only.
        const WRITE_EXCLUSIVE_REGISTRANTS_ONLY = 1 << 3;
        /// Exclusive Access - Registrants Only.
        const EXCLUSIVE_ACCESS_REGISTRANTS_ONLY = 1 << 4;
        /// Write Exclusive - All Registrants.
        const WRITE_EXCLUSIVE_ALL_REGISTRANTS = 1 << 5;
        /// Exclusive Access - All Registrants.
        const EXCLUSIVE_ACCESS_ALL_REGISTRANTS = 1 << 6;
        /// The flag Ignore Existing Key has the meaning of version 1.3 and later.
        const IGNORE_EXISTING_KEY = 1 << 7;
    }
}

impl ReservationCapabilities {
    /// Returns `true` if the namespace can have reservations of a type.
    #[must_use]
    pub const fn has(self, kind: ReservationType) -> bool {
        matches!(kind.0, 1..=6) && self.bits() & 1 << kind.0 != 0
    }
}

impl IdentifyNamespace {
    /// Returns the reservations that the namespace can have (RESCAP).
    #[must_use]
    pub const fn reservation_capabilities(&self) -> ReservationCapabilities {
        ReservationCapabilities::from_bits_retain(self.rescap)
    }
}

structure! {
    /// The data of a Reservation Register.
    ReservationRegisterData[16], "Reservation Register" {
        /// The host's current key (CRKEY); not used to register.
        0 current_key: u64 => hex;
        /// The host's new key (NRKEY); not used to unregister.
        8 new_key: u64 => hex;
    }
}

structure! {
    /// The data of a Reservation Acquire.
    ReservationAcquireData[16], "Reservation Acquire" {
        /// The host's key (CRKEY).
        0 current_key: u64 => hex;
        /// The key of the registrants to unregister (PRKEY).
        8 preempted_key: u64 => hex;
    }
}

structure! {
    /// The data of a Reservation Release.
    ReservationReleaseData[8], "Reservation Release" {
        /// The host's key (CRKEY).
        0 current_key: u64 => hex;
    }
}

structure! {
    /// The beginning of a report: 24 bytes, then [`RegisteredController`]s; or 64 bytes, the last 40 reserved, then
    /// [`ExtendedRegisteredController`]s.
    ReservationStatus[24], "Reservation Status" {
        /// The number of changes of registrations and reservations, which wraps (GEN).
        0 generation: u32 => number;
        /// The type of the reservation that is held; 0 if none is (RTYPE).
        4 reservation_type: u8 = shown_type;
        /// The registered controllers that follow (REGCTL).
        5 registered_controllers: U16 => number;
        7 reserved7: [u8; 2];
        /// Registrations and reservations persist through a loss of power (PTPLS).
        9 persists: u8 => number;
        10 reserved10: [u8; 14];
    }
}

impl ReservationStatus {
    /// Bytes of the extended form.
    pub const EXTENDED: usize = 64;

    /// Returns the type of the reservation that is held.
    #[must_use]
    pub const fn kind(&self) -> Option<ReservationType> {
        match self.reservation_type {
            0 => None,
            kind => Some(ReservationType(kind)),
        }
    }

    fn shown_type(&self) -> Value {
        match self.kind() {
            None => Value::Text("none".into()),
            Some(kind) => super::fields::show::named(&kind),
        }
    }
}

structure! {
    /// A controller whose host is a registrant.
    RegisteredController[24], "Registered Controller" {
        /// The controller (CNTLID); FFFFh if none has the host's identifier now.
        0 controller_id: u16 => hex;
        /// Bit 0: the host holds the reservation (RCSTS).
        2 status: u8 => hex;
        3 reserved3: [u8; 5];
        /// The host's identifier (HOSTID).
        8 host_id: u64 => hex;
        /// The host's key (RKEY).
        16 key: u64 => hex;
    }
}

structure! {
    /// A controller whose host is a registrant, with a host identifier of 128 bits.
    ExtendedRegisteredController[64], "Registered Controller Extended" {
        /// The controller (CNTLID); FFFFh if none has the host's identifier now.
        0 controller_id: u16 => hex;
        /// Bit 0: the host holds the reservation (RCSTS).
        2 status: u8 => hex;
        3 reserved3: [u8; 5];
        /// The host's key (RKEY).
        8 key: u64 => hex;
        /// The host's identifier (HOSTID).
        16 host_id: [u8; 16] => bytes;
        32 reserved32: [u8; 32];
    }
}

/// Reservation commands.
impl Command {
    /// Makes a Reservation Register command, whose data is a [`ReservationRegisterData`].
    #[must_use]
    pub const fn reservation_register(nsid: u32, dword10: ReservationRegisterDword10) -> Self {
        Self { cdw10: dword10.into_bits(), ..Self::io(NvmOpcode::RESERVATION_REGISTER, nsid) }
    }

    /// Makes a Reservation Acquire command, whose data is a [`ReservationAcquireData`].
    #[must_use]
    pub const fn reservation_acquire(nsid: u32, dword10: ReservationAcquireDword10) -> Self {
        Self { cdw10: dword10.into_bits(), ..Self::io(NvmOpcode::RESERVATION_ACQUIRE, nsid) }
    }

    /// Makes a Reservation Release command, whose data is a [`ReservationReleaseData`].
    #[must_use]
    pub const fn reservation_release(nsid: u32, dword10: ReservationReleaseDword10) -> Self {
        Self { cdw10: dword10.into_bits(), ..Self::io(NvmOpcode::RESERVATION_RELEASE, nsid) }
    }

    /// Makes a Reservation Report command, which returns `bytes` (a multiple of 4, at least 4) of a
    /// [`ReservationStatus`] and what follows it, in the `extended` form (EDS) or in the other.
    ///
    /// # Panics
    ///
    /// In debug builds, if `bytes` is not such a multiple.
    #[must_use]
    pub const fn reservation_report(nsid: u32, bytes: u32, extended: bool) -> Self {
        debug_assert!(bytes >= 4 && bytes % 4 == 0);
        Self {
            cdw10: (bytes / 4).wrapping_sub(1),
            cdw11: extended as u32,
            ..Self::io(NvmOpcode::RESERVATION_REPORT, nsid)
        }
    }
}
