//! Telemetry: what the controller records of itself, on request (Telemetry Host-Initiated) or when something happens (Telemetry
//! Controller-Initiated). The vendor defines the data; here:
//!
//! | data area | contents |
//! |---|---|
//! | 1 | text: the reason, the time since power-on in ms, and counters, a line each; zeros behind it |
//! | 2 | the Error Information log page |
//! | 3 | blocks of 512 bytes, each of which repeats its number in the log page as 32 bits: more than a host reads at once |
//! | 4 | as area 3; only for a host that has enabled it (Host Behavior Support, ETDAS) |
//!
//! A log page stays as it was collected until it is collected again, so that it can be read in pieces.

use crate::spec::{LogPageId, TelemetryControllerHeader, TelemetryHostHeader};
use zerocopy::{FromZeros, IntoBytes};

/// The unit of lengths and offsets, in bytes.
pub(super) const BLOCK: usize = 512;
/// Blocks of data areas 3 and 4.
const AREA_3: usize = 400;
const AREA_4: usize = 100;
/// Scope: the controller.
const CONTROLLER: u8 = 1;

/// Data areas that were collected.
#[derive(Debug, Default, Clone)]
struct Collected {
    /// The last block of areas 1 to 3, and of area 4 if there is one.
    last: [usize; 4],
    data: Vec<u8>,
    reason: &'static str,
    generation: u8,
}

impl Collected {
    /// Takes the data of areas 1 and 2, and makes the others.
    fn new(text: &str, errors: &[u8], has_area_4: bool, reason: &'static str, generation: u8) -> Self {
        let mut all = Self { reason, generation, ..Self::default() };
        for (area, data) in [text.as_bytes(), errors].into_iter().enumerate() {
            all.data.extend_from_slice(data);
            all.data.resize(all.data.len().next_multiple_of(BLOCK), 0);
            all.last[area] = all.data.len() / BLOCK;
        }
        for (area, blocks) in [(2, AREA_3), (3, if has_area_4 { AREA_4 } else { 0 })] {
            let first = all.data.len() / BLOCK + 1;
            for number in first..first + blocks {
                let number = (number as u32).to_le_bytes();
                all.data.extend(number.into_iter().cycle().take(BLOCK));
            }
            all.last[area] = if blocks == 0 { 0 } else { first + blocks - 1 };
        }
        all
    }
}

/// A collection.
#[derive(Debug, Default)]
pub(super) struct Telemetry {
    host: Collected,
    controller: Collected,
    /// The host has not yet said that it has read the controller's own data.
    is_available: bool,
}

impl Telemetry {
    /// Notes that the host is done with the controller's own data: the next occasion replaces it.
    pub fn read(&mut self) {
        self.is_available = false;
    }

    /// Takes the data of areas 1 and 2 for a host that asks for it.
    pub fn collect_host(&mut self, text: &str, errors: &[u8], has_area_4: bool, reason: &'static str) {
        let generation = self.host.generation.wrapping_add(1);
        self.host = Collected::new(text, errors, has_area_4, reason, generation);
    }

    /// Takes the data of areas 1 and 2 as the controller's own.
    pub fn collect_own(&mut self, text: &str, errors: &[u8], has_area_4: bool, reason: &'static str) {
        let generation = self.controller.generation.wrapping_add(1);
        self.controller = Collected::new(text, errors, has_area_4, reason, generation);
        self.is_available = true;
    }

    /// Returns whether there is data of the controller's own that no host has read.
    pub fn is_available(&self) -> bool {
        self.is_available
    }

    /// Returns a telemetry log page.
    pub fn page(&self, id: LogPageId) -> Vec<u8> {
        let of = if id == LogPageId::TELEMETRY_HOST { &self.host } else { &self.controller };
        // Both headers are the same but for three bytes.
        let mut header = TelemetryHostHeader::new_zeroed();
        header.log_page_id = id.0;
        let [one, two, three, four] = of.last;
        header.data_area_1_last_block = one as u16;
        header.data_area_2_last_block = two as u16;
        header.data_area_3_last_block = three as u16;
        header.data_area_4_last_block = four as u32;
        header.controller_data_available = self.is_available.into();
        header.controller_data_generation = self.controller.generation;
        header.reason_identifier[..of.reason.len()].copy_from_slice(of.reason.as_bytes());
        let mut page = if id == LogPageId::TELEMETRY_HOST {
            header.scope = CONTROLLER;
            header.host_data_generation = of.generation;
            header.as_bytes().to_vec()
        } else {
            let mut own = TelemetryControllerHeader::new_zeroed();
            own.as_mut_bytes().copy_from_slice(header.as_bytes());
            own.scope = CONTROLLER;
            own.as_bytes().to_vec()
        };
        page.extend_from_slice(&of.data);
        page
    }
}
