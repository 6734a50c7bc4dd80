//! Zones of a namespace, as fio's `zonemode=zbd` asks for them: in bytes.

use crate::{errors::Failure, ffi::Zone, job::Job, target::Target};
use std::ffi::c_void;
use upcie_nvme::{ZoneSelect, Zones, spec::ZoneState};

/// Returns the zones of a file.
pub(crate) fn of(job: &Job, target: *mut c_void) -> Result<Zones, Failure> {
    Ok(file(job, target)?.namespace.zones()?)
}

fn file(job: &Job, target: *mut c_void) -> Result<&Target, Failure> {
    job.target(target).ok_or_else(|| Failure::new(libc::EINVAL, "the file is not open"))
}

/// Reports at most `most` zones from the one of byte `offset` on.
pub(crate) fn report(job: &Job, target: *mut c_void, offset: u64, most: usize) -> Result<Vec<Zone>, Failure> {
    let (zones, block) = (of(job, target)?, file(job, target)?.block().bytes);
    let bytes = |blocks: u64| blocks.saturating_mul(block);
    let len = bytes(zones.zone_blocks());
    let found = zones.report(offset / block, most)?;
    let zone = |zone: &upcie_nvme::spec::ZoneDescriptor| {
        let end = zone.start.saturating_add(zone.capacity);
        // fio takes the write pointer of a full zone for the end of its data.
        let pointer = match zone.state() {
            ZoneState::FULL => end,
            state if state.has_write_pointer() => zone.write_pointer,
            _ => zone.start,
        };
        Zone {
            start: bytes(zone.start),
            write_pointer: bytes(pointer),
            len,
            capacity: bytes(zone.capacity),
            kind: zone.kind().0.into(),
            state: zone.state().0.into(),
        }
    };
    Ok(found.iter().map(zone).collect())
}

/// Resets the zones of `len` bytes from byte `offset` on.
pub(crate) fn reset(job: &Job, target: *mut c_void, offset: u64, len: u64) -> Result<(), Failure> {
    let (zones, block) = (of(job, target)?, file(job, target)?.block().bytes);
    let end = offset.saturating_add(len) / block;
    let mut zone = zones.zone_of(offset / block);
    while zone < end {
        zones.reset(ZoneSelect::At(zone))?;
        zone = zone.saturating_add(zones.zone_blocks());
    }
    Ok(())
}
