//! Asks a controller for the limits of a namespace's keys and values.

use crate::{
    Result,
    controller::{Inner, Limit},
    engine::KeyLimits,
    spec::{Cns, Command, Csi, KeyValueNamespace},
};
use zerocopy::FromBytes;

/// Asks for the keys of a namespace: their limits, and the Identify data; or the reason why they can't be used.
pub(super) fn ask(
    controller: &Inner,
    nsid: u32,
    limit: &mut Limit<'_>,
) -> Result<std::result::Result<(KeyLimits, KeyValueNamespace), String>> {
    let command = Command::identify_command_set(Cns::COMMAND_SET_NAMESPACE, nsid, Csi::KEY_VALUE);
    let page = match controller.identify_page(&command, "Identify (keys of the namespace)", limit) {
        Ok(page) => page,
        Err(error) => {
            let status = error.status().ok_or(error)?;
            return Ok(Err(format!("it has keys, and its controller does not describe them: {status}")));
        }
    };
    let id = KeyValueNamespace::read_from_bytes(&page[..]).expect("one page");
    if id.max_key_length() == 0 {
        return Ok(Err("none of its key value formats is available".into()));
    }
    // Whole dwords, so that no limit of the transport is between.
    let transfer = controller.max_transfer().min(u64::from(u32::MAX) & !3) as u32;
    let limits = KeyLimits {
        key: id.max_key_length() as u8,
        // The format in use is not told: the controller refuses what exceeds it.
        value: id.max_value_length().min(transfer),
        transfer,
    };
    Ok(Ok((limits, id)))
}
