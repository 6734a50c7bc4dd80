//! The verdict on every opcode and feature, against lists written down from the specification.

use super::*;

const FREE: &[u8] = &[0x02, 0x06, 0x11, 0x14, 0x18, 0x3e, 0x42, 0x81, 0x82, 0x86];
const ALONE: &[u8] = &[0x0d, 0x10, 0x15, 0x1c, 0x20, 0x24, 0x80, 0x84, 0x8c];
const SET_ALONE: &[u8] = &[0x16, 0x19, 0x1d];

fn command(opcode: u8, cdw10: u32) -> Command {
    Command { opcode, cdw10, ..Command::default() }
}

fn features(set: bool) -> impl Fn(u8) -> Result<Plan, &'static str> {
    move |fid| plan(&command(if set { 0x09 } else { 0x0a }, fid.into()))
}

/// Every opcode has a verdict.
#[test]
fn each_of_256_opcodes_is_decided() {
    for opcode in (0..=255).filter(|opcode| !matches!(opcode, 0x09 | 0x0a)) {
        // Firmware Commit with Commit Action 3: activated at once.
        let plan = plan(&command(opcode, if opcode == 0x10 { 3 << 3 } else { 0 }));
        match plan {
            Ok(Plan { alone: None, .. }) => {
                assert!(FREE.contains(&opcode), "{opcode:02x}h is sent at any time")
            }
            Ok(Plan { alone: Some(why), .. }) => {
                assert!(ALONE.contains(&opcode), "{opcode:02x}h is sent without queue pairs");
                assert!(why.starts_with("it "), "{why}");
            }
            Err(why) => {
                assert!(
                    !FREE.contains(&opcode) && !ALONE.contains(&opcode),
                    "{opcode:02x}h is refused: {why}"
                );
                assert!(why.len() > 20, "{why}");
            }
        }
    }
}

/// Every feature has a verdict.
#[test]
fn each_of_256_features_is_decided() {
    let free: Vec<u8> = (0x01..=0x06)
        .chain(0x08..=0x0c)
        .chain(0x0e..=0x15)
        .chain([0x17, 0x18, 0x1a, 0x1b, 0x1e, 0x1f, 0x20, 0x78, 0x79])
        .chain(0x7d..=0x7f)
        .chain(0x80..=0x85)
        .collect();
    for fid in 0..=255 {
        let (get, set) = (features(false)(fid), features(true)(fid));
        match set {
            Ok(Plan { alone: None, .. }) => assert!(free.contains(&fid), "{fid:02x}h is set at any time"),
            Ok(Plan { alone: Some(_), .. }) => assert!(SET_ALONE.contains(&fid), "{fid:02x}h"),
            Err(why) => assert!(!free.contains(&fid) && !SET_ALONE.contains(&fid), "{fid:02x}h: {why}"),
        }
        // Reading changes nothing.
        assert!(!matches!(get, Ok(Plan { alone: Some(_), .. })), "{fid:02x}h");
        assert_eq!(get.is_ok(), set.is_ok() || matches!(fid, 0x07 | 0x0d | 0x1c | 0x21), "{fid:02x}h");
        // The upper bits (Save, Select) change no verdict.
        assert_eq!(plan(&command(0x09, 1 << 31 | u32::from(fid))), set);
    }
}

#[test]
fn no_code_is_listed_twice_or_without_a_reason() {
    for rows in [COMMANDS, FEATURES] {
        assert!(rows.is_sorted_by(|a, b| a.0 < b.0));
        assert!(rows.iter().all(|row| row.3.len() > 10));
    }
    // Each opcode with a name is there.
    for opcode in 0..=255 {
        let named = AdminOpcode(opcode).name().is_some();
        assert!(!named || COMMANDS.iter().any(|row| row.0 == opcode), "{opcode:02x}h");
    }
}

#[test]
fn data_lengths_follow_from_the_command() {
    let len = |command: Command| plan(&command).map(|plan| plan.len);
    assert_eq!(len(command(0x06, 1)), Ok(4096));
    // NUMDL and NUMDU, 0's based.
    assert_eq!(len(Command { cdw11: 1, ..command(0x02, 0xffff << 16) }), Ok(0x2_0000 * 4));
    assert_eq!(len(command(0x11, 1023)), Ok(4096));
    assert_eq!(len(Command { cdw11: 512, ..command(0x82, 0) }), Ok(512));
    assert_eq!(len(Command { cdw12: u32::MAX, ..command(0x86, 0) }), Ok(1 << 34));
    assert_eq!(len(Command { cdw12: 11, ..command(0x3e, 0) }), Ok(48));
    assert_eq!(len(Command { cdw15: 2, ..command(0x42, 0) }), Ok(12));
    // Create and Delete.
    assert_eq!((len(command(0x0d, 0)), len(command(0x0d, 1))), (Ok(4096), Ok(0)));
    for (fid, bytes) in [
        (0x01, 0),
        (0x03, 4096),
        (0x0c, 256),
        (0x0d, 4096),
        (0x0e, 8),
        (0x13, 512),
        (0x16, 512),
        (0x1c, 4096),
        (0x1f, 256),
        (0x21, 512),
        (0x78, 512),
        (0x79, 512),
        (0x7d, 4096),
        (0x7e, 4096),
        (0x7f, 4096),
    ] {
        assert_eq!(len(command(0x0a, fid)), Ok(bytes), "{fid:02x}h");
        // Supported capabilities.
        assert_eq!(len(command(0x0a, fid | 3 << 8)), Ok(0), "{fid:02x}h");
    }
    assert_eq!(len(Command { cdw11: 1, ..command(0x0a, 0x81) }), Ok(16));
    // FDP Events: a type is a byte, and returned with its attributes.
    let events = |opcode| len(Command { cdw11: 0xff05_0007, ..command(opcode, 0x1e) });
    assert_eq!((events(0x09), events(0x0a)), (Ok(5), Ok(10)));
}

/// Directives whose data has a known length are sent at any time; no other operation is.
#[test]
fn directives_are_decided_by_their_operation() {
    for (opcode, known) in
        [(0x19, &[(0, 1), (1, 1), (1, 2)][..]), (0x1a, &[(0, 1), (1, 1), (1, 2), (1, 3)][..])]
    {
        for kind in 0..=255 {
            for operation in 0..=255 {
                let directive = Command { cdw11: kind << 8 | operation, ..command(opcode, 7) };
                let moves = opcode == 0x1a && operation != 3;
                let expected = Plan { len: if moves { 32 } else { 0 }, alone: None };
                match plan(&directive) {
                    Ok(plan) => {
                        assert!(known.contains(&(kind, operation)), "{opcode:02x}h {kind} {operation}");
                        assert_eq!(plan, expected);
                    }
                    Err(why) => assert!(!known.contains(&(kind, operation)), "{why}"),
                }
            }
        }
    }
}

/// Firmware Commit needs an idle subsystem only for the actions that run an image.
#[test]
fn firmware_is_stored_at_any_time() {
    let alone: Vec<u32> =
        (0..8).filter(|&action| plan(&command(0x10, action << 3)).unwrap().alone.is_some()).collect();
    // 1, 2, 4: activated by the next reset, which may be another controller's; 3: at once; 5: reserved.
    assert_eq!(alone, [1, 2, 3, 4, 5]);
}
