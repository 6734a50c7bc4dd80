//! The report of a namespace's reservations: the registrants, and the reservation that one of them holds.

use crate::spec::{ExtendedRegisteredController, RegisteredController, ReservationStatus, ReservationType};
use std::fmt;
use zerocopy::FromBytes;

/// The identifier of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostId {
    /// An identifier of 64 bits.
    Short(u64),
    /// An identifier of 128 bits: the bytes that the host has set.
    Extended([u8; 16]),
}

/// Prints hexadecimal digits: `0x7`, or 32 of them.
impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short(id) => write!(f, "{id:#x}"),
            Self::Extended(id) => id.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// A registrant on a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registrant {
    /// The controller that the host uses; `None` if it uses none now.
    pub controller: Option<u16>,
    /// The host holds the reservation.
    pub holds: bool,
    /// The host.
    pub host: HostId,
    /// The host's key.
    pub key: u64,
}

/// The reservation and the registrants of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReservationReport {
    /// A number that changes with each change of registrations; it wraps.
    pub generation: u32,
    /// The type of the reservation, if one is held.
    pub kind: Option<ReservationType>,
    /// Registrations and the reservation outlast a loss of power.
    pub persists: bool,
    /// The registrants, each once for each controller that it uses.
    pub registrants: Vec<Registrant>,
}

/// Returns the report in `bytes`, or the bytes that it needs to be whole.
pub(super) fn decode(bytes: &[u8], extended: bool) -> Result<ReservationReport, usize> {
    let (header, size) = match extended {
        false => (size_of::<ReservationStatus>(), size_of::<RegisteredController>()),
        true => (ReservationStatus::EXTENDED, size_of::<ExtendedRegisteredController>()),
    };
    let (status, _) = ReservationStatus::read_from_prefix(bytes).map_err(|_| header)?;
    let count = usize::from(status.registered_controllers.get());
    let needs = header + count * size;
    let all = bytes.get(header..needs).ok_or(needs)?.chunks_exact(size);
    let registrants = all.filter_map(|bytes| match extended {
        false => RegisteredController::read_from_bytes(bytes)
            .ok()
            .map(|one| registrant(one.controller_id, one.status, HostId::Short(one.host_id), one.key)),
        true => ExtendedRegisteredController::read_from_bytes(bytes)
            .ok()
            .map(|one| registrant(one.controller_id, one.status, HostId::Extended(one.host_id), one.key)),
    });
    Ok(ReservationReport {
        generation: status.generation,
        kind: status.kind(),
        persists: status.persists & 1 != 0,
        registrants: registrants.collect(),
    })
}

fn registrant(controller: u16, status: u8, host: HostId, key: u64) -> Registrant {
    let controller = Some(controller).filter(|&id| id != u16::MAX);
    Registrant { controller, holds: status & 1 != 0, host, key }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upcie_core::testing::Random;

    #[test]
    fn both_forms_of_a_report_are_decoded() {
        let mut short = vec![0; 24 + 2 * 24];
        (short[0], short[4], short[5], short[9]) = (9, 2, 2, 1);
        short[24..26].fill(0xff);
        (short[26], short[32], short[40]) = (1, 7, 8);
        (short[48], short[56], short[64]) = (3, 4, 5);
        let report = decode(&short, false).unwrap();
        assert_eq!((report.generation, report.kind), (9, Some(ReservationType::EXCLUSIVE_ACCESS)));
        let first = Registrant { controller: None, holds: true, host: HostId::Short(7), key: 8 };
        let second = Registrant { controller: Some(3), holds: false, host: HostId::Short(4), key: 5 };
        assert_eq!((report.persists, report.registrants), (true, vec![first, second]));
        let mut extended = vec![0; 64 + 64];
        (extended[5], extended[64], extended[72], extended[80]) = (1, 2, 6, 9);
        let report = decode(&extended, true).unwrap();
        let mut id = [0; 16];
        id[0] = 9;
        let only = Registrant { controller: Some(2), holds: false, host: HostId::Extended(id), key: 6 };
        assert_eq!((report.kind, report.persists, report.registrants), (None, false, vec![only]));
        assert_eq!(HostId::Extended(id).to_string(), "09000000000000000000000000000000");
    }

    #[test]
    fn a_report_that_is_cut_off_names_its_length() {
        let mut bytes = vec![0; 4096];
        (bytes[5], bytes[6]) = (0xff, 0xff);
        assert_eq!(decode(&bytes, false), Err(24 + 65535 * 24));
        assert_eq!(decode(&bytes, true), Err(64 + 65535 * 64));
        assert_eq!(decode(&bytes[..8], false), Err(24));
        let mut random = Random(3);
        for _ in 0..1000 {
            let mut bytes = vec![0; random.below(1024)];
            bytes.iter_mut().for_each(|byte| *byte = random.next() as u8);
            let extended = random.below(2) == 1;
            match decode(&bytes, extended) {
                Ok(report) => assert!(report.registrants.len() * 24 <= bytes.len()),
                Err(needs) => assert!(needs > bytes.len()),
            }
        }
    }
}
