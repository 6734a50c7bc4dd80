//! Identifies a namespace: asks its controller, and decides whether this driver can do I/O on it.

use super::{key_limits, zone_limits};
use crate::{
    Error, Result,
    controller::{IDS, Inner, Limit, Shape},
    engine::{CopyLimits, Extent, KeyLimits, ZoneLimits, parts},
    protection::BlockFormat,
    spec::{
        Cns, Command, Csi, IdentifyNamespace, KeyValueNamespace, NvmNamespace, OptionalCommands,
        ZonedNamespace,
    },
};
use zerocopy::{FromBytes, FromZeros};

/// The properties of a namespace.
pub(super) struct Known {
    pub(super) extent: Extent,
    pub(super) identify: IdentifyNamespace,
    /// The reason why it can't be used for I/O, if it can't.
    pub(super) unusable: Option<String>,
    pub(super) command_set: Csi,
    pub(super) zones: Option<ZonedNamespace>,
    pub(super) keys: Option<KeyValueNamespace>,
}

/// Asks the controller for the namespace `nsid`, within `limit`.
pub(super) fn ask(controller: &Inner, nsid: u32, limit: &mut Limit<'_>) -> Result<Known> {
    let what = || format!("namespace {nsid}");
    controller.check_owner_of(&what)?;
    controller.wait_for_reset(limit, &what)?;
    // Before anything is read: a change during the reads makes the handle stale.
    let stamp = controller.live().stamp();
    // After the stamp was read: a change that ends before this check has made the stamp stale.
    controller.subsystem().check_settled(controller.name(), &what())?;
    // FFFFFFFFh stands for all namespaces, so no namespace has it.
    let possible = nsid != 0 && nsid != u32::MAX;
    let known = possible && controller.active_above(nsid - 1, limit)?.first() == Some(&nsid);
    if !known {
        let first = controller.active_above(0, limit)?;
        let more = if first.len() < IDS { "" } else { " and more" };
        return Err(Error::argument(
            controller.name(),
            format!("there is no namespace {nsid}; the active ones are {first:?}{more}"),
        ));
    }
    let command_set = controller.command_set(nsid, limit)?;
    let command = Command::identify(Cns::NAMESPACE, nsid, 0);
    let page = controller.identify_page(&command, "Identify (namespace)", limit);
    let mut identify = match page {
        Ok(page) => IdentifyNamespace::read_from_bytes(&page[..]).expect("one page"),
        // A namespace without blocks does not have this data.
        Err(error) if error.status().is_some() && command_set == Csi::KEY_VALUE => {
            IdentifyNamespace::new_zeroed()
        }
        Err(error) => return Err(error),
    };
    // All of it was read: a reset from here on compares it.
    let shape = match command_set {
        Csi::KEY_VALUE => Shape::of_keys(stamp),
        other => Shape::of(&identify, other, stamp),
    };
    controller.note_shape(nsid, shape);
    let mut unusable = match controller.no_io() {
        Some(reason) => Some(reason.to_string()),
        None => why_unusable(&identify),
    };
    let mut format = match block_format(controller, nsid, &identify, limit)? {
        Ok(format) => format,
        Err(reason) => {
            unusable = unusable.or(Some(reason));
            BlockFormat::new(0, 0, false)
        }
    };
    let (mut limits, mut zones) = (ZoneLimits::default(), None);
    let (mut key_limits, mut keys) = (KeyLimits::default(), None);
    match command_set {
        Csi::NVM => {}
        Csi::ZONED if unusable.is_none() => {
            match zone_limits::ask(controller, nsid, &identify, &format, limit)? {
                Ok((known, id)) => (limits, zones) = (known, Some(id)),
                Err(reason) => unusable = Some(reason),
            }
        }
        Csi::ZONED => {}
        Csi::KEY_VALUE => {
            // Whatever a controller says of blocks that the namespace does not have.
            (identify, format) = (IdentifyNamespace::new_zeroed(), BlockFormat::new(0, 0, false));
            unusable = Some(match key_limits::ask(controller, nsid, limit)? {
                Ok((known, id)) => {
                    (key_limits, keys) = (known, Some(id));
                    "it has keys and values, not blocks: its command set is Key Value (`Namespace::keys`)"
                        .into()
                }
                Err(reason) => reason,
            });
        }
        other => {
            let reason = format!("its command set is {other}, not NVM, Key Value or Zoned Namespace");
            unusable = unusable.or(Some(reason));
        }
    };
    let block = format.transfer_size() as u64;
    let (shift, inverse) = parts(block);
    let optional = controller.identify().optional_commands();
    let blocks = (controller.max_transfer() / block.max(1)).min(65536).min(identify.nsze);
    let unusable = unusable.or_else(|| too_large(controller, &format));
    let extent = Extent {
        stamp,
        last: identify.nsze.wrapping_sub(1),
        nsid_high: u64::from(nsid) << 32,
        plain_blocks: match format.metadata_size() {
            0 => (controller.plain_bytes() / block.max(1)).min(blocks) as u32,
            _ => 0,
        },
        shift,
        inverse,
        max_blocks: blocks as u32,
        controller: controller.live().controller,
        max_zeroes: if optional.contains(OptionalCommands::WRITE_ZEROES) {
            (controller.max_zeroes() / block.max(1)).min(65536).min(identify.nsze) as u32
        } else {
            0
        },
        deallocates: optional.contains(OptionalCommands::DATASET_MANAGEMENT),
        optional,
        zones: limits,
        keys: key_limits,
        format,
        fused: fused_blocks(controller, &identify),
        copy: CopyLimits::of(&identify),
    };
    Ok(Known { extent, identify, unusable, command_set, zones, keys })
}

/// Returns the blocks that the controller compares and writes as one; 0 if it has no Compare and Write.
fn fused_blocks(controller: &Inner, identify: &IdentifyNamespace) -> u32 {
    let id = controller.identify();
    // NSFEAT bit 1: the namespace has atomic units of its own.
    let own = if identify.nsfeat & 1 << 1 != 0 { identify.nacwu } else { 0 };
    if id.has_compare_and_write() { u32::from(own.max(id.acwu)) + 1 } else { 0 }
}

/// Returns the format of a namespace's blocks, or the reason why it is not known. Metadata may be protection information of a
/// form that only the Identify data of the command set tells.
fn block_format(
    controller: &Inner,
    nsid: u32,
    identify: &IdentifyNamespace,
    limit: &mut Limit<'_>,
) -> Result<std::result::Result<BlockFormat, String>> {
    let is_protected = identify.lba_format().is_some_and(|format| format.ms() != 0) && identify.dps & 7 != 0;
    if !is_protected {
        return Ok(BlockFormat::of(identify, None));
    }
    let command = Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, nsid, Csi::NVM);
    match controller.identify_page(&command, "Identify (namespace, NVM command set)", limit) {
        Ok(page) => {
            let specific = NvmNamespace::read_from_bytes(&page[..]).expect("one page");
            Ok(BlockFormat::of(identify, Some(&specific)))
        }
        // A controller without it has 16-bit guards only.
        Err(error) if error.status().is_some() => Ok(BlockFormat::of(identify, None)),
        Err(error) => Err(error),
    }
}

/// Returns the reason why no command can transfer a block, if none can.
fn too_large(controller: &Inner, format: &BlockFormat) -> Option<String> {
    let (block, most) = (format.transfer_size() as u64, controller.max_transfer());
    (block > most).then(|| {
        format!("its blocks have {block} bytes, more than the {most} that one command may transfer (MDTS)")
    })
}

/// Returns the reason why I/O on a namespace is not supported, if it isn't.
fn why_unusable(identify: &IdentifyNamespace) -> Option<String> {
    (identify.nsze == 0).then(|| "it has no blocks".into())
}
