//! Identify Controller.

use super::{
    super::output::hex,
    table::{Number, add, number, text},
};
use serde_json::{Map, Value as Json, json};

const BEFORE_TEXTS: &[Number] = &[("vid", 0, 2), ("ssvid", 2, 2)];

/// Fields from the recommended arbitration burst to the controller's type.
const GENERAL: &[Number] = &[
    ("rab", 72, 1),
    ("ieee", 73, 3),
    ("cmic", 76, 1),
    ("mdts", 77, 1),
    ("cntlid", 78, 2),
    ("ver", 80, 4),
    ("rtd3r", 84, 4),
    ("rtd3e", 88, 4),
    ("oaes", 92, 4),
    ("ctratt", 96, 4),
    ("rrls", 100, 2),
    ("bpcap", 102, 1),
    ("nssl", 104, 4),
    ("plsi", 110, 1),
    ("cntrltype", 111, 1),
];

/// Fields from the command retry delays to the maximum I/O command set data.
const CAPABILITIES: &[Number] = &[
    ("crdt1", 128, 2),
    ("crdt2", 130, 2),
    ("crdt3", 132, 2),
    ("crcap", 134, 1),
    ("nvmsr", 253, 1),
    ("vwci", 254, 1),
    ("mec", 255, 1),
    ("oacs", 256, 2),
    ("acl", 258, 1),
    ("aerl", 259, 1),
    ("frmw", 260, 1),
    ("lpa", 261, 1),
    ("elpe", 262, 1),
    ("npss", 263, 1),
    ("avscc", 264, 1),
    ("apsta", 265, 1),
    ("wctemp", 266, 2),
    ("cctemp", 268, 2),
    ("mtfa", 270, 2),
    ("hmpre", 272, 4),
    ("hmmin", 276, 4),
    ("tnvmcap", 280, 16),
    ("unvmcap", 296, 16),
    ("rpmbs", 312, 4),
    ("edstt", 316, 2),
    ("dsto", 318, 1),
    ("fwug", 319, 1),
    ("kas", 320, 2),
    ("hctma", 322, 2),
    ("mntmt", 324, 2),
    ("mxtmt", 326, 2),
    ("sanicap", 328, 4),
    ("hmminds", 332, 4),
    ("hmmaxd", 336, 2),
    ("nsetidmax", 338, 2),
    ("endgidmax", 340, 2),
    ("anatt", 342, 1),
    ("anacap", 343, 1),
    ("anagrpmax", 344, 4),
    ("nanagrpid", 348, 4),
    ("pels", 352, 4),
    ("domainid", 356, 2),
    ("kpioc", 358, 1),
    ("mptfawr", 360, 2),
    ("megcap", 368, 16),
    ("tmpthha", 384, 1),
    ("cqt", 386, 2),
    ("sqes", 512, 1),
    ("cqes", 513, 1),
    ("maxcmd", 514, 2),
    ("nn", 516, 4),
    ("oncs", 520, 2),
    ("fuses", 522, 2),
    ("fna", 524, 1),
    ("vwc", 525, 1),
    ("awun", 526, 2),
    ("awupf", 528, 2),
    ("icsvscc", 530, 1),
    ("nwpc", 531, 1),
    ("acwu", 532, 2),
    ("ocfs", 534, 2),
    ("sgls", 536, 4),
    ("mnan", 540, 4),
    ("maxdna", 544, 16),
    ("maxcna", 560, 4),
    ("oaqd", 564, 4),
    ("rhiri", 568, 1),
    ("hirt", 569, 1),
    ("cmmrtd", 570, 2),
    ("nmmrtd", 572, 2),
    ("minmrtg", 574, 1),
    ("maxmrtg", 575, 1),
    ("trattr", 576, 1),
    ("mcudmq", 578, 2),
    ("mnsudmq", 580, 2),
    ("mcmr", 582, 2),
    ("nmcmr", 584, 2),
    ("mcdqpc", 586, 2),
];

const FABRICS: &[Number] = &[
    ("ioccsz", 1792, 4),
    ("iorcsz", 1796, 4),
    ("icdoff", 1800, 2),
    ("fcatt", 1802, 1),
    ("msdbd", 1803, 1),
    ("ofcs", 1804, 2),
];

/// First byte and length of a power state descriptor.
const POWER_STATES: (usize, usize) = (2048, 32);

pub fn json(bytes: &[u8]) -> Option<Json> {
    let mut object = Map::new();
    add(&mut object, bytes, BEFORE_TEXTS)?;
    for (name, at, len) in [("sn", 4, 20), ("mn", 24, 40), ("fr", 64, 8)] {
        object.insert(name.into(), text(bytes, at, len)?.into());
    }
    add(&mut object, bytes, GENERAL)?;
    object.insert("fguid".into(), uuid(bytes.get(112..128)?).into());
    add(&mut object, bytes, CAPABILITIES)?;
    let name = text(bytes, 768, 256)?;
    if !name.is_empty() {
        object.insert("subnqn".into(), name.into());
    }
    add(&mut object, bytes, FABRICS)?;
    let (first, len) = POWER_STATES;
    let states = bytes.get(first..first + 32 * len)?.chunks(len).take(usize::from(bytes[263]) + 1);
    object.insert("psds".into(), states.map(power_state).collect::<Option<Vec<_>>>()?.into());
    Some(object.into())
}

fn power_state(bytes: &[u8]) -> Option<Json> {
    let word = |at| number(bytes, at, 2);
    let long = |at| number(bytes, at, 4);
    let (flags, active, scales) = (bytes[3], bytes[22], bytes[26]);
    Some(json!({
        "max_power": word(0)? as u16,
        "max_power_scale": flags & 1,
        "non-operational_state": flags >> 1 & 1,
        "entry_lat": long(4)? as u32,
        "exit_lat": long(8)? as u32,
        "read_tput": bytes[12],
        "read_lat": bytes[13],
        "write_tput": bytes[14],
        "write_lat": bytes[15],
        "idle_power": word(16)? as u16,
        "idle_scale": bytes[18] >> 6,
        "active_power": word(20)? as u16,
        "active_power_work": active & 7,
        "active_scale": active >> 6,
        "emerg_power_fail_recover_time": bytes[23],
        "emerg_power_fail_recover_scale": scales & 0xf,
        "force_quiesce_vault_time": bytes[24],
        "force_quiesce_vault_scale": scales >> 4,
        "emerg_power_fail_vault_time": bytes[25],
        "emerg_power_fail_vault_scale": bytes[27] & 0xf,
    }))
}

/// Returns 16 bytes as a UUID is written.
pub fn uuid(bytes: &[u8]) -> String {
    let digits = hex(bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}
