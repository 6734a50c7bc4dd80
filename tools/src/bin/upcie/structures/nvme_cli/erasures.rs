//! Log pages of self-tests and of Sanitize.

use super::table::{Number, add};
use serde_json::{Map, Value as Json, json};
use upcie_nvme::spec::{Field, LogPage, SanitizeStatusLog, Structure, Value};

/// Bytes and number of the results of self-tests.
const RESULT: usize = 28;
const RESULTS: usize = 20;
const TEST: &[Number] =
    &[("Segment number", 1, 1), ("Valid Diagnostic Information", 2, 1), ("Power on hours", 4, 8)];
/// Fields that are valid if a bit of the valid diagnostic information says so, from bit 0 on.
const VALID: [Number; 4] = [
    ("Namespace Identifier", 12, 4),
    ("Failing LBA", 16, 8),
    ("Status Code Type", 24, 1),
    ("Status Code", 25, 1),
];
const VENDOR: &[Number] = &[("Vendor Specific", 26, 2)];
/// The result of an entry that was not used.
const UNUSED: u8 = 0xf;

pub fn self_tests(bytes: &[u8]) -> Option<Json> {
    let results = bytes.get(4..4 + RESULTS * RESULT)?.chunks_exact(RESULT).map(self_test);
    Some(json!({
        "Current Device Self-Test Operation": bytes[0],
        "Current Device Self-Test Completion": bytes[1],
        "List of Valid Reports": results.collect::<Option<Vec<_>>>()?,
    }))
}

fn self_test(entry: &[u8]) -> Option<Json> {
    let mut result = Map::new();
    let (outcome, code) = (entry[0] & 0xf, entry[0] >> 4);
    result.insert("Self test result".into(), outcome.into());
    if outcome != UNUSED {
        result.insert("Self test code".into(), code.into());
        add(&mut result, entry, TEST)?;
        for (bit, field) in VALID.into_iter().enumerate() {
            if entry[2] >> bit & 1 == 1 {
                add(&mut result, entry, &[field])?;
            }
        }
        add(&mut result, entry, VENDOR)?;
    }
    Some(result.into())
}

const TIMES: &[Number] = &[
    ("cdw10_info", 4, 4),
    ("time_over_write", 8, 4),
    ("time_block_erase", 12, 4),
    ("time_crypto_erase", 16, 4),
    ("time_over_write_no_dealloc", 20, 4),
    ("time_block_erase_no_dealloc", 24, 4),
    ("time_crypto_erase_no_dealloc", 28, 4),
    ("time_post_verification_dealloc", 32, 4),
];
/// The state of an operation that has failed.
const FAILED: u8 = 3;

/// Returns the page by the device's name. The states have nvme-cli's numbers and this library's texts.
pub fn sanitize(device: &str, bytes: &[u8]) -> Option<Json> {
    let log = SanitizeStatusLog::from_page(bytes)?;
    let (status, state) = (log.status, log.state_information);
    let mut information = Map::new();
    information.insert("sanitize_state".into(), named(&state.fields(), "state")?.into());
    if status.operation() == FAILED {
        information.insert("failure_state".into(), format!("({})", state.failure_state()).into());
    }
    let mut object = Map::new();
    object.insert("sprog".into(), log.progress.into());
    object.insert(
        "sstat".into(),
        json!({
            "media_verification_canceled": u8::from(status.media_verification_canceled()),
            "global_erased": u8::from(status.global_data_erased()),
            "no_cmplted_passes": status.overwrite_passes(),
            "status": named(&status.fields(), "operation")?,
        }),
    );
    add(&mut object, bytes, TIMES)?;
    object.insert("sanitize_state_information".into(), information.into());
    Some(json!({ device: object }))
}

/// Returns the number and the name of a field's value.
fn named(fields: &[Field], name: &str) -> Option<String> {
    match &fields.iter().find(|field| field.name == name)?.value {
        Value::Named(number, text) => Some(format!("({number}) {}", text.unwrap_or("unknown"))),
        _ => None,
    }
}
