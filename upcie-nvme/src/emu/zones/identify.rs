//! Identify data by command set, of controllers with zoned or key value namespaces, or command set profiles.

use super::super::{
    Options,
    formats::{FORMATS, named_format},
    identity::{Identifiers, Identity},
    key_value::{self, Keys},
    limits::Limits,
    namespace::Namespace,
    options::{EXTENSION_UNIT, GRANULARITY},
};
use crate::spec::{
    Cns, Command, Csi, IdentifyDword10, IdentifyDword11, NamespaceList, Status, ZonedController,
    ZonedNamespace,
};
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// Returns `true` for a structure that depends on the command set, if the controller has several of them.
pub(in super::super) fn has_structure(options: &Options, cns: Cns) -> bool {
    let by_set = matches!(
        cns,
        Cns::COMMAND_SET_NAMESPACE
            | Cns::COMMAND_SET_CONTROLLER
            | Cns::COMMAND_SET_FORMAT_NAMESPACE
            | Cns::COMMAND_SET_ALLOCATED_NAMESPACE
            | Cns::COMMAND_SET_ACTIVE_NAMESPACES
            | Cns::COMMAND_SET_ALLOCATED_NAMESPACES
            | Cns::COMMAND_SETS
    );
    by_set && options.has_command_sets()
}

/// Returns the 4096 bytes of such a structure. `format_progress` is FPI of the namespace in question, `identity` that of all
/// namespaces.
pub(in super::super) fn page(
    options: &Options,
    namespaces: &[Namespace],
    keys: &[Option<Keys>],
    command: &Command,
    format_progress: u8,
    identity: &Identity,
) -> Result<Vec<u8>, Status> {
    let csi = IdentifyDword11::from_bits(command.cdw11).csi();
    let is_known = match csi {
        Csi::NVM => true,
        Csi::ZONED => options.zones.any(),
        Csi::KEY_VALUE => options.keys.any(),
        _ => false,
    };
    if !is_known {
        return Err(INVALID_FIELD);
    }
    let cns = IdentifyDword10::from_bits(command.cdw10).cns();
    let mut page = match cns {
        // Namespaces with blocks have other data when they are detached.
        Cns::COMMAND_SET_ALLOCATED_NAMESPACE if csi != Csi::KEY_VALUE => return Err(INVALID_FIELD),
        Cns::COMMAND_SET_NAMESPACE | Cns::COMMAND_SET_ALLOCATED_NAMESPACE => {
            let index = command.nsid.wrapping_sub(1) as usize;
            let found = namespaces.get(index);
            let found = found.ok_or(Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry())?;
            let is_there = match cns {
                Cns::COMMAND_SET_NAMESPACE => found.is_active(),
                _ => found.is_allocated(),
            };
            match is_there {
                true if found.command_set() != csi => return Err(INVALID_FIELD),
                true if csi == Csi::ZONED => namespace(options, found.shift),
                true if csi == Csi::KEY_VALUE => {
                    let keys = keys.get(index).and_then(Option::as_ref).ok_or(Status::INTERNAL_ERROR)?;
                    let ids = Identifiers::new(identity, command.nsid, found.generation);
                    key_value::page(keys, options.ro || found.write_protection != 0, format_progress, &ids)
                }
                _ => Vec::new(),
            }
        }
        Cns::COMMAND_SET_CONTROLLER if csi == Csi::ZONED => {
            let mut id = ZonedController::new_zeroed();
            let limit = options.zones.append.map(|limit| (limit / options.mpsmin).max(1).ilog2() as u8);
            id.zone_append_size_limit = limit.unwrap_or(0);
            id.as_bytes().to_vec()
        }
        Cns::COMMAND_SET_CONTROLLER if csi == Csi::NVM => Limits::page(options),
        Cns::COMMAND_SET_FORMAT_NAMESPACE if csi == Csi::ZONED => {
            namespace(options, named_format(command)?.shift)
        }
        Cns::COMMAND_SET_FORMAT_NAMESPACE => return Err(INVALID_FIELD),
        Cns::COMMAND_SET_ACTIVE_NAMESPACES | Cns::COMMAND_SET_ALLOCATED_NAMESPACES => {
            let is_there = match cns {
                Cns::COMMAND_SET_ACTIVE_NAMESPACES => Namespace::is_active,
                _ => Namespace::is_allocated,
            };
            let mut list = NamespaceList::new_zeroed();
            let all = (1..).zip(namespaces);
            let named = all.filter(|(nsid, namespace)| {
                *nsid > command.nsid && is_there(namespace) && namespace.command_set() == csi
            });
            for (entry, (nsid, _)) in list.nsids.iter_mut().zip(named) {
                *entry = nsid;
            }
            list.as_bytes().to_vec()
        }
        Cns::COMMAND_SETS => {
            let keys = u64::from(options.keys.any()) << Csi::KEY_VALUE.0;
            let sets = u64::from(options.zones.any()) << Csi::ZONED.0 | keys | 1 << Csi::NVM.0;
            sets.to_le_bytes().to_vec()
        }
        _ => Vec::new(),
    };
    page.resize(4096, 0);
    Ok(page)
}

/// Returns the zones of a namespace with blocks of `1 << shift` bytes.
fn namespace(options: &Options, shift: u8) -> Vec<u8> {
    let zones = &options.zones;
    let limit = |limit: Option<u32>| limit.map_or(u32::MAX, |limit| limit - 1);
    let mut id = ZonedNamespace::new_zeroed();
    id.optional_commands = u16::from(zones.cross_reads) | u16::from(zones.random_write_area > 0) << 1;
    id.max_active_resources = limit(zones.max_active);
    id.max_open_resources = limit(zones.max_open);
    if zones.random_write_area > 0 {
        id.random_write_areas = zones.random_write_areas;
        id.random_write_area_size = (zones.random_write_area >> shift) as u16;
        id.random_write_area_flush_granularity = (GRANULARITY >> shift) as u16;
        // Zones can be flushed by command.
        id.random_write_area_capabilities = 1;
    }
    for (extension, format) in id.format_extensions.iter_mut().zip(FORMATS) {
        extension.zone_size = zones.size >> format.shift;
        extension.zone_descriptor_extension_size =
            (u64::from(zones.descriptor_extension) / EXTENSION_UNIT) as u8;
    }
    id.as_bytes().to_vec()
}
