//! Base, "Primary Controller Capabilities" and "Secondary Controller list": the resources of virtual functions.

use super::super::fields::{Value, show};
use super::super::macros::structure;
use super::Cns;
use super::data::identify_data;

structure! {
    /// Primary Controller Capabilities (CNS 14h). VQ: pairs of queues; VI: interrupt vectors.
    PrimaryController[4096], "Primary Controller Capabilities" {
        /// The controller (CNTLID).
        0 controller_id: u16 => number;
        /// The port (PORTID).
        2 port_id: u16 => number;
        /// Resources that can be moved: bit 0 VQ, bit 1 VI (CRT).
        4 resource_types: u8 => hex;
        5 reserved5: [u8; 27];
        /// Flexible VQ in all (VQFRT).
        32 vq_flexible_total: u32 => number;
        /// Flexible VQ that secondary controllers have (VQRFA).
        36 vq_flexible_assigned: u32 => number;
        /// Flexible VQ of this controller (VQRFAP).
        40 vq_flexible_of_primary: u16 => number;
        /// Private VQ (VQPRT).
        42 vq_private: u16 => number;
        /// Most flexible VQ of a secondary controller (VQFRSM).
        44 vq_max_of_secondary: u16 => number;
        /// Granularity of flexible VQ (VQGRAN).
        46 vq_granularity: u16 => number;
        48 reserved48: [u8; 16];
        /// Flexible VI in all (VIFRT).
        64 vi_flexible_total: u32 => number;
        /// Flexible VI that secondary controllers have (VIRFA).
        68 vi_flexible_assigned: u32 => number;
        /// Flexible VI of this controller (VIRFAP).
        72 vi_flexible_of_primary: u16 => number;
        /// Private VI (VIPRT).
        74 vi_private: u16 => number;
        /// Most flexible VI of a secondary controller (VIFRSM).
        76 vi_max_of_secondary: u16 => number;
        /// Granularity of flexible VI (VIGRAN).
        78 vi_granularity: u16 => number;
        80 reserved80: [u8; 4016];
    }
}

structure! {
    /// A secondary controller, 32 bytes.
    SecondaryController[32], "Secondary Controller Entry" {
        /// The controller (SCID).
        0 secondary_controller_id: u16 => number;
        /// Identifier of the primary controller (PCID).
        2 primary_controller_id: u16 => number;
        /// Bit 0: it is online (SCS).
        4 state: u8 => names(&[(0, "offline"), (1, "online")]);
        5 reserved5: [u8; 3];
        /// The virtual function, from 1 on; 0 if it is none (VFN).
        8 virtual_function: u16 => number;
        /// Flexible VQ that it has (NVQ).
        10 vq_flexible: u16 => number;
        /// Flexible VI that it has (NVI).
        12 vi_flexible: u16 => number;
        14 reserved14: [u8; 18];
    }
}

structure! {
    /// Secondary Controller list (CNS 15h), from the controller that Identify names on.
    SecondaryControllerList[4096], "Secondary Controller list" {
        /// Controllers in the list.
        0 count: u8 => number;
        1 reserved1: [u8; 31];
        /// The controllers; see [`Self::used`].
        32 controllers: [SecondaryController; 127] = shown;
    }
}

impl SecondaryControllerList {
    /// Returns the controllers in the list.
    #[must_use]
    pub fn used(&self) -> &[SecondaryController] {
        &self.controllers[..self.controllers.len().min(self.count.into())]
    }

    fn shown(&self) -> Value {
        show::each(self.used())
    }
}

identify_data! {
    PrimaryController: PRIMARY_CONTROLLER;
    SecondaryControllerList: SECONDARY_CONTROLLERS;
}
