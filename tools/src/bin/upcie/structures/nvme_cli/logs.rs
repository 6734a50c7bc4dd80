//! Log pages: errors, health, firmware, and commands supported.

use super::table::{Number, add, json, number};
use serde_json::{Map, Value as Json, json};
use upcie_nvme::spec::{AdminOpcode, Csi, KeyValueOpcode, NvmOpcode};

const ERROR_BYTES: usize = 64;
const ERROR_COMMAND: &[Number] = &[("error_count", 0, 8), ("sqid", 8, 2), ("cmdid", 10, 2)];
const ERROR_PLACE: &[Number] = &[
    ("parm_error_location", 14, 2),
    ("lba", 16, 8),
    ("nsid", 24, 4),
    ("vs", 28, 1),
    ("trtype", 29, 1),
    ("cs", 32, 8),
    ("trtype_spec_info", 40, 2),
];

pub fn errors(bytes: &[u8]) -> Option<Json> {
    let errors = bytes.chunks_exact(ERROR_BYTES).map(|entry| {
        let mut error = Map::new();
        add(&mut error, entry, ERROR_COMMAND)?;
        let status = number(entry, 12, 2)?;
        error.insert("status_field".into(), json(status >> 1));
        error.insert("phase_tag".into(), json(status & 1));
        add(&mut error, entry, ERROR_PLACE)?;
        Some(Json::from(error))
    });
    Some(json!({ "errors": errors.collect::<Option<Vec<_>>>()? }))
}

const HEALTH: &[Number] = &[
    ("critical_warning", 0, 1),
    ("temperature", 1, 2),
    ("avail_spare", 3, 1),
    ("spare_thresh", 4, 1),
    ("percent_used", 5, 1),
    ("endurance_grp_critical_warning_summary", 6, 1),
    ("data_units_read", 32, 16),
    ("data_units_written", 48, 16),
    ("host_read_commands", 64, 16),
    ("host_write_commands", 80, 16),
    ("controller_busy_time", 96, 16),
    ("power_cycles", 112, 16),
    ("power_on_hours", 128, 16),
    ("unsafe_shutdowns", 144, 16),
    ("media_errors", 160, 16),
    ("num_err_log_entries", 176, 16),
    ("warning_temp_time", 192, 4),
    ("critical_comp_time", 196, 4),
];

const THERMAL: &[Number] = &[
    ("thm_temp1_trans_count", 216, 4),
    ("thm_temp2_trans_count", 220, 4),
    ("thm_temp1_total_time", 224, 4),
    ("thm_temp2_total_time", 228, 4),
];

pub fn health(bytes: &[u8]) -> Option<Json> {
    let mut object = Map::new();
    add(&mut object, bytes, HEALTH)?;
    for sensor in 0..8 {
        match number(bytes, 200 + 2 * sensor, 2)? {
            0 => {}
            temperature => {
                object.insert(format!("temperature_sensor_{}", sensor + 1), json(temperature));
            }
        }
    }
    add(&mut object, bytes, THERMAL)?;
    Some(object.into())
}

pub fn firmware(device: &str, bytes: &[u8]) -> Option<Json> {
    let mut slots = Map::new();
    slots.insert("Active Firmware Slot (afi)".into(), json(number(bytes, 0, 1)?));
    for slot in 1..=7 {
        let at = slot * 8;
        if *bytes.get(at)? != 0 {
            let shown = |&byte: &u8| if byte.is_ascii_graphic() { char::from(byte) } else { '.' };
            let text: String = bytes.get(at..at + 8)?.iter().map(shown).collect();
            let revision = format!("{} ({text})", number(bytes, at, 8)?);
            slots.insert(format!("Firmware Rev Slot {slot}"), revision.into());
        }
    }
    Some(json!({ device: slots }))
}

/// Bit 0 of an entry: the command is supported.
const SUPPORTED: u128 = 1;

pub fn effects(csi: Csi, bytes: &[u8]) -> Option<Json> {
    let table = |first: usize, prefix: &str, name: fn(u8) -> Option<&'static str>| {
        let mut commands = Map::new();
        for opcode in 0..=u8::MAX {
            let effects = number(bytes, first + 4 * usize::from(opcode), 4)?;
            if effects & SUPPORTED != 0 {
                commands.insert(
                    format!("{prefix}_{opcode} ({})", name(opcode).unwrap_or("Unknown")),
                    json(effects),
                );
            }
        }
        Some(commands)
    };
    let io: fn(u8) -> Option<&'static str> = match csi {
        Csi::KEY_VALUE => |opcode| KeyValueOpcode(opcode).name(),
        _ => |opcode| NvmOpcode(opcode).name(),
    };
    Some(json!([{
        "command_set_identifier": csi.0,
        "admin_cmd_set": table(0, "ACS", |opcode| AdminOpcode(opcode).name())?,
        "io_cmd_set": table(1024, "IOCS", io)?,
    }]))
}
