//! Base, "Identify – Power State Descriptor Data Structure".

use core::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::macros::assert_size;

/// A power state descriptor, 32 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PowerState {
    /// Maximum power, in 10 mW or, with bit 0 of `flags`, 0.1 mW; see [`Self::max_power`].
    pub mp: u16,
    /// Reserved.
    pub reserved2: u8,
    /// Bit 0 scale of `mp`, bit 1 non-operational.
    pub flags: u8,
    /// Entry latency, in µs.
    pub enlat: u32,
    /// Exit latency, in µs.
    pub exlat: u32,
    /// Relative read throughput, bits 4:0; lower is better.
    pub rrt: u8,
    /// Relative read latency, bits 4:0; lower is better.
    pub rrl: u8,
    /// Relative write throughput, bits 4:0; lower is better.
    pub rwt: u8,
    /// Relative write latency, bits 4:0; lower is better.
    pub rwl: u8,
    /// Idle power, in units of `ips`.
    pub idlp: u16,
    /// Idle power scale, bits 7:6: 1 is 0.1 mW, 2 is 10 mW.
    pub ips: u8,
    /// Reserved.
    pub reserved19: u8,
    /// Active power, in units of `apws`.
    pub actp: u16,
    /// Bits 2:0 active power workload, 7:6 scale: 1 is 0.1 mW, 2 is 10 mW.
    pub apws: u8,
    /// Emergency power fail recovery time, in units of bits 3:0 of `epfrts_fqvts`; 0 not reported (2.1).
    pub epfrt: u8,
    /// Forced quiescence vault time, in units of bits 7:4 of `epfrts_fqvts`; 0 not reported (2.1).
    pub fqvt: u8,
    /// Emergency power fail vault time, in units of bits 3:0 of `epfvts`; 0 not reported (2.1).
    pub epfvt: u8,
    /// Scales, as codes: bits 3:0 of the emergency power fail recovery time, 7:4 of the forced quiescence vault
    /// time (2.1).
    pub epfrts_fqvts: u8,
    /// Scale of the emergency power fail vault time, a code in bits 3:0 (2.1).
    pub epfvts: u8,
    /// Reserved.
    pub reserved28: [u8; 4],
}
assert_size!(PowerState, 32);

impl PowerState {
    /// Returns the maximum power in µW; 0 if it isn't reported.
    #[must_use]
    pub const fn max_power(&self) -> u64 {
        self.mp as u64 * if self.flags & 1 != 0 { 100 } else { 10_000 }
    }

    /// Returns `true` if the controller processes no I/O commands in this state.
    #[must_use]
    pub const fn is_non_operational(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Returns the longest time that entering the state takes.
    #[must_use]
    pub const fn entry_latency(&self) -> Duration {
        Duration::from_micros(self.enlat as u64)
    }

    /// Returns the longest time that leaving the state takes.
    #[must_use]
    pub const fn exit_latency(&self) -> Duration {
        Duration::from_micros(self.exlat as u64)
    }
}
