//! Identifies a namespace: asks its controller, and decides whether this driver can do I/O on it.

use super::zones;
use crate::{
    Error, Result,
    controller::{Inner, Shape},
    engine::{Extent, ZoneLimits},
    spec::{Cns, Command, Csi, IdentifyNamespace, NamespaceDescriptors, OptionalCommands, ZonedNamespace},
};
use zerocopy::FromBytes;

/// The properties of a namespace.
pub(super) struct Known {
    pub(super) extent: Extent,
    pub(super) identify: IdentifyNamespace,
    /// The reason why it can't be used for I/O, if it can't.
    pub(super) unusable: Option<String>,
    pub(super) command_set: Csi,
    pub(super) zones: Option<ZonedNamespace>,
}

/// Asks the controller for the namespace `nsid`.
pub(super) fn ask(controller: &Inner, nsid: u32) -> Result<Known> {
    controller
        .wait_for_reset(controller.stopwatch(), controller.timeout(), &|| format!("namespace {nsid}"))?;
    // Before anything is read: a change during the reads makes the handle stale.
    let stamp = controller.live().stamp();
    // After the stamp was read: a change that ends before this check has made the stamp stale.
    controller.subsystem().check_settled(controller.name(), &format!("namespace {nsid}"))?;
    // FFFFFFFFh stands for all namespaces, so no namespace has it.
    let possible = nsid != 0 && nsid != u32::MAX;
    let known = possible && controller.active_above(nsid - 1)?.first() == Some(&nsid);
    if !known {
        let active = controller.active_namespaces()?;
        return Err(Error::argument(
            controller.name(),
            format!("there is no namespace {nsid}; the active ones are {active:?}"),
        ));
    }
    let page =
        controller.identify_page(&Command::identify(Cns::NAMESPACE, nsid, 0), "Identify (namespace)")?;
    let identify = IdentifyNamespace::read_from_bytes(&page[..]).expect("one page");
    controller.note_shape(nsid, Shape::of(&identify, stamp));
    let mut unusable = match controller.no_io() {
        Some(reason) => Some(reason.to_string()),
        None => why_unusable(controller, &identify),
    };
    let command_set = if controller.no_io().is_none() { command_set(controller, nsid)? } else { Csi::NVM };
    let (mut limits, mut zones) = (ZoneLimits::default(), None);
    match command_set {
        Csi::NVM => {}
        Csi::ZONED if unusable.is_none() => match zones::ask(controller, nsid, &identify)? {
            Ok((known, id)) => (limits, zones) = (known, Some(id)),
            Err(reason) => unusable = Some(reason),
        },
        Csi::ZONED => {}
        other => {
            unusable = unusable.or(Some(format!("its command set is {other}, not NVM or Zoned Namespace")))
        }
    }
    let shift = match &identify.lba_format() {
        Some(format) if (9..=16).contains(&format.lbads()) => u32::from(format.lbads()),
        _ => 0,
    };
    let optional = controller.identify().optional_commands();
    let blocks = (controller.max_transfer() >> shift).min(65536).min(identify.nsze);
    let extent = Extent {
        stamp,
        last: identify.nsze.wrapping_sub(1),
        nsid_high: u64::from(nsid) << 32,
        max_blocks: blocks as u32,
        shift,
        controller: controller.live().controller,
        max_zeroes: if optional.contains(OptionalCommands::WRITE_ZEROES) {
            (controller.max_zeroes() >> shift).min(65536).min(identify.nsze) as u32
        } else {
            0
        },
        deallocates: optional.contains(OptionalCommands::DATASET_MANAGEMENT),
        optional,
        zones: limits,
    };
    Ok(Known { extent, identify, unusable, command_set, zones })
}

/// Returns the reason why I/O on a namespace is not supported, if it isn't.
fn why_unusable(controller: &Inner, identify: &IdentifyNamespace) -> Option<String> {
    let Some(format) = identify.lba_format() else {
        return Some(format!("its format {} is not in its own list of formats", identify.format_index()));
    };
    if format.ms() != 0 {
        return Some(format!("its format has {} bytes of metadata per block", format.ms()));
    }
    if !(9..=16).contains(&format.lbads()) {
        return Some(format!(
            "its blocks have 2^{} bytes; 512 bytes to 64 KiB are supported",
            format.lbads()
        ));
    }
    if controller.max_transfer() >> format.lbads() == 0 {
        return Some(format!(
            "its blocks have 2^{} bytes, more than the {} that one command may transfer (MDTS)",
            format.lbads(),
            controller.max_transfer()
        ));
    }
    if identify.nsze == 0 {
        return Some("it has no blocks".into());
    }
    None
}

/// Asks for the command set of a namespace.
fn command_set(controller: &Inner, nsid: u32) -> Result<Csi> {
    // Optional before version 1.3: a controller without the list has the NVM command set only.
    let command = Command::identify(Cns::NAMESPACE_DESCRIPTORS, nsid, 0);
    let page = match controller.identify_page(&command, "Identify (namespace descriptors)") {
        Ok(page) => page,
        Err(error) if error.status().is_some() => return Ok(Csi::NVM),
        Err(error) => return Err(error),
    };
    Ok(NamespaceDescriptors::new(&page[..]).find_map(|descriptor| descriptor.csi()).unwrap_or(Csi::NVM))
}
