//! Base, "Telemetry Host-Initiated" and "Telemetry Controller-Initiated".

use super::super::fields::{Field, Value};
use super::super::macros::structure;
use super::id::LogPageId;
use super::page::{LogHeader, VariableLog};

/// The telemetry log's unit of length, in bytes.
const BLOCK: u64 = 512;

/// The two telemetry pages have the same header but for three bytes.
macro_rules! telemetry {
    ($(#[$meta:meta])* $type:ident: $id:ident, $title:literal { $($row:tt)* }) => {
        structure! {
            $(#[$meta])*
            $type[512], $title {
                /// The identifier of the page.
                0 log_page_id: u8 => hex;
                1 reserved1: [u8; 4];
                /// IEEE OUI of the vendor that defines the data, little endian.
                5 ieee_oui: [u8; 3] => hex;
                /// The last block of data area 1; 0 if it is empty.
                8 data_area_1_last_block: u16 => number;
                /// The last block of data area 2, not before that of area 1.
                10 data_area_2_last_block: u16 => number;
                /// The last block of data area 3, not before that of area 2.
                12 data_area_3_last_block: u16 => number;
                14 reserved14: [u8; 2];
                /// The last block of data area 4, if the host enabled it; 0 if it is empty.
                16 data_area_4_last_block: u32 => number;
                20 reserved20: [u8; 360];
                $($row)*
                /// 1 if data that the controller collected by itself is available.
                382 controller_data_available: u8 => number;
                /// The generation of the controller-initiated data.
                383 controller_data_generation: u8 => number;
                /// The vendor's identifier of the reason.
                384 reason_identifier: [u8; 128] => bytes;
            }
        }

        impl $type {
            /// Returns the length of the page in bytes, the header included.
            #[must_use]
            pub fn total_len(&self) -> u64 {
                let last = u32::from(self.data_area_1_last_block.max(self.data_area_2_last_block));
                let last = last.max(self.data_area_3_last_block.into()).max(self.data_area_4_last_block);
                (u64::from(last) + 1) * BLOCK
            }
        }

        impl LogHeader for $type {
            const ID: LogPageId = LogPageId::$id;

            fn rest_len(&self, _: &[u8]) -> u64 {
                self.total_len() - BLOCK
            }

            fn rest_fields(&self, rest: &[u8]) -> Vec<Field> {
                vec![Field::new("data", Value::Bytes(rest.to_vec()))]
            }
        }
    };
}

telemetry! {
    /// The header of the Telemetry Host-Initiated page (07h). Bit 0 of the log-specific parameter makes the controller
    /// collect new data.
    TelemetryHostHeader: TELEMETRY_HOST, "Telemetry Host-Initiated" {
        /// The scope of the data: 0 not reported, 1 controller, 2 NVM subsystem (2.0).
        380 scope: u8 => names(&[(0, "not reported"), (1, "controller"), (2, "NVM subsystem")]);
        /// The generation of the host-initiated data (2.0).
        381 host_data_generation: u8 => number;
    }
}

telemetry! {
    /// The header of the Telemetry Controller-Initiated page (08h).
    TelemetryControllerHeader: TELEMETRY_CONTROLLER, "Telemetry Controller-Initiated" {
        380 reserved380: u8;
        /// The scope of the data: 0 not reported, 1 controller, 2 NVM subsystem (2.0).
        381 scope: u8 => names(&[(0, "not reported"), (1, "controller"), (2, "NVM subsystem")]);
    }
}

/// The Telemetry Host-Initiated page with its data areas.
pub type TelemetryHostLog = VariableLog<TelemetryHostHeader>;
/// The Telemetry Controller-Initiated page with its data areas.
pub type TelemetryControllerLog = VariableLog<TelemetryControllerHeader>;
