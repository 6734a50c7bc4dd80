//! Asks a controller for the zones of a namespace.

use crate::{
    Result,
    controller::{Inner, Limit},
    engine::ZoneLimits,
    protection::BlockFormat,
    spec::{Cns, Command, Csi, IdentifyNamespace, ZonedController, ZonedNamespace},
};
use zerocopy::FromBytes;

/// Asks for the zones of a namespace: their limits, and the Identify data; or the reason why they can't be used.
pub(super) fn ask(
    controller: &Inner,
    nsid: u32,
    identify: &IdentifyNamespace,
    format: &BlockFormat,
    limit: &mut Limit<'_>,
) -> Result<Result<(ZoneLimits, ZonedNamespace), String>> {
    let command = Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, nsid, Csi::ZONED);
    let page = match controller.identify_page(&command, "Identify (zones of the namespace)", limit) {
        Ok(page) => page,
        Err(error) => {
            let status = error.status().ok_or(error)?;
            return Ok(Err(format!("it is zoned, and its controller does not describe the zones: {status}")));
        }
    };
    let id = ZonedNamespace::read_from_bytes(&page[..]).expect("one page");
    let index = identify.format_index();
    let format_of_zones = id.format_extensions.get(index);
    let blocks = format_of_zones.map_or(0, |format| format.zone_size);
    let extension = format_of_zones.map_or(0, |format| format.extension_size());
    if blocks == 0 {
        return Ok(Err("its zones have no blocks (ZSZE)".into()));
    }
    let command = Command::identify_command_set(Cns::COMMAND_SET_CONTROLLER, 0, Csi::ZONED);
    let what = "Identify (limits of the zoned command set)";
    let zasl = match controller.identify_page(&command, what, limit) {
        Ok(page) => ZonedController::read_from_bytes(&page[..]).expect("one page").zone_append_size_limit,
        Err(error) if error.status().is_some() => 0,
        Err(error) => return Err(error),
    };
    let page = controller.page_size_min();
    // 0: the limit is MDTS.
    let bytes = if zasl == 0 {
        u64::MAX
    } else {
        page.saturating_mul(1_u64.checked_shl(zasl.into()).unwrap_or(u64::MAX))
    };
    let block = format.transfer_size().max(1) as u64;
    let most = (controller.max_transfer().min(bytes) / block).min(65536).min(blocks);
    Ok(Ok((ZoneLimits { blocks, append: most as u32, extension }, id)))
}
