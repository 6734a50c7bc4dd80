use super::{Fault, FaultPlan, FaultRule, Watched};
use crate::{
    emu::{Emulator, Error},
    spec::{ALL_NAMESPACES, AdminOpcode, NvmOpcode, Status},
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_file_gives_the_same_plan_as_code() {
    let text = r#"
        seed = 7
        cache = "1M"
        [[fault]]
        kind = "delay"
        time = "20ms"
        opcode = "write"
        lba = "0-999"
        probability = 0.01
        [[fault]]
        kind = "status"
        status = 0x281
        dnr = true
        crd = 2
        queue = 1
        after = 100
        count = 1
        [[fault]]
        kind = "drop"
        opcode = "identify"
        [[fault]]
        kind = "all-ones"
        opcode = 9
        namespace = 2
        lba = 8
        queue = "io"
    "#;
    let status = Status::from_bits(0x281 | 1 << 14 | 2 << 11);
    let gone = FaultRule::new(Fault::AllOnes(None)).opcode(9).namespace(2).lba(8..=8);
    assert_eq!(gone.count, Some(1), "a fault of the controller strikes once");
    let plan = FaultPlan::new(7)
        .cache(1 << 20)
        .rule(FaultRule::new(Fault::Delay(20 * MS)).opcode(NvmOpcode::WRITE.0).lba(0..=999).probability(0.01))
        .rule(FaultRule::new(Fault::Status(status)).queue(1).after(100).count(1))
        .rule(FaultRule::new(Fault::Drop).queue(0).opcode(AdminOpcode::IDENTIFY.0))
        .rule(gone);
    assert_eq!(text.parse::<FaultPlan>().unwrap(), plan);
    assert_eq!("".parse::<FaultPlan>().unwrap(), FaultPlan::default());
}

#[test]
fn every_kind_parses_by_its_name() {
    let faults = [
        Fault::Delay(MS),
        Fault::Reorder(MS),
        Fault::Drop,
        Fault::LoseCompletion,
        Fault::Status(Status::INTERNAL_ERROR),
        Fault::Corrupt,
        Fault::Duplicate,
        Fault::ForgedId,
        Fault::StaleId,
        Fault::WrongQueue,
        Fault::BadHead,
        Fault::EarlyPhase(MS),
        Fault::HalfWritten(MS),
        Fault::EarlyCompletion(MS),
        Fault::LostInterrupt,
        Fault::SpuriousInterrupts(3),
        Fault::Fatal,
        Fault::NeverReady,
        Fault::StuckStart,
        Fault::AlwaysReady,
        Fault::AllOnes(Some(MS)),
        Fault::ChangingRegisters,
        Fault::PowerCut,
        Fault::Stall(MS),
        Fault::CloseConnection,
        Fault::EventStorm(3),
        Fault::RemoveNamespace(None),
        Fault::RemoveNamespace(Some(2)),
        Fault::ResizeNamespace { target: None, blocks: 8 },
        Fault::ReformatNamespace { target: Some(2), block_size: 4096 },
        Fault::ReadOnlyZone { target: None, zone: 5 },
        Fault::OfflineZone { target: Some(2), zone: 5 },
    ];
    for fault in faults {
        let keys = match fault {
            Fault::Status(_) => "status = 6",
            Fault::SpuriousInterrupts(_) | Fault::EventStorm(_) => "number = 3",
            Fault::RemoveNamespace(Some(_)) => "target = 2",
            Fault::ResizeNamespace { .. } => "blocks = 8",
            Fault::ReformatNamespace { .. } => "target = 2\nblock-size = 4096",
            Fault::ReadOnlyZone { .. } => "zone = 5",
            Fault::OfflineZone { .. } => "target = 2\nzone = 5",
            Fault::Delay(_)
            | Fault::Reorder(_)
            | Fault::EarlyPhase(_)
            | Fault::HalfWritten(_)
            | Fault::EarlyCompletion(_)
            | Fault::AllOnes(_)
            | Fault::Stall(_) => "time = \"1ms\"",
            _ => "",
        };
        let text = format!("[[fault]]\nkind = \"{}\"\n{keys}", fault.name());
        assert_eq!(text.parse::<FaultPlan>().unwrap().rules, [FaultRule::new(fault)], "{text}");
        let wrong = format!("{text}\ncolour = 1");
        assert!(wrong.parse::<FaultPlan>().is_err(), "{wrong}");
    }
    let admin = "[[fault]]\nkind = \"drop\"\nqueue = \"admin\"".parse::<FaultPlan>().unwrap();
    assert_eq!(admin.rules[0].queue, Watched::One(0));
}

#[test]
fn a_wrong_file_is_an_error_with_line_and_key() {
    for (text, at, parts) in [
        ("seed = ", 1, &[][..]),
        ("seed = 1\nseed = 2", 2, &["seed"]),
        ("seed = -1", 1, &["seed", "-1"]),
        ("sed = 1", 1, &["sed", "seed"]),
        ("\n\ncache = \"many\"", 3, &["cache", "many"]),
        ("fault = 1", 1, &["fault", "[[fault]]"]),
        ("fault = [1]", 1, &["fault", "table"]),
        ("[[fault]]\ntime = \"1ms\"", 1, &["kind", "missing"]),
        ("[[fault]]\nkind = \"explode\"", 2, &["kind", "explode"]),
        ("[[fault]]\nkind = 7", 2, &["kind", "7"]),
        ("[[fault]]\nkind = \"drop\"\n\n[[fault]]\nkind = \"delay\"", 4, &["time"]),
        ("[[fault]]\nkind = \"delay\"\ntime = 5", 3, &["time", "unit"]),
        ("[[fault]]\nkind = \"delay\"\ntime = \"5\"", 3, &["time", "unit"]),
        ("[[fault]]\nkind = \"drop\"\ntime = \"5ms\"", 3, &["time", "no such key here"]),
        ("[[fault]]\nkind = \"status\"", 1, &["status"]),
        ("[[fault]]\nkind = \"status\"\nstatus = 0x800", 3, &["status", "11 bits"]),
        ("[[fault]]\nkind = \"status\"\nstatus = 6\ncrd = 4", 4, &["crd", "0 to 3"]),
        ("[[fault]]\nkind = \"status\"\nstatus = 6\ndnr = 1", 4, &["dnr", "true or false"]),
        ("[[fault]]\nkind = \"drop\"\nopcode = 256", 3, &["opcode", "256"]),
        ("[[fault]]\nkind = \"drop\"\nopcode = \"reed\"", 3, &["opcode", "reed", "read"]),
        ("[[fault]]\nkind = \"drop\"\nopcode = \"abort\"\nqueue = 1", 4, &["queue", "admin"]),
        ("[[fault]]\nkind = \"drop\"\nopcode = \"read\"\nqueue = \"admin\"", 4, &["queue", "I/O queues"]),
        ("[[fault]]\nkind = \"drop\"\nqueue = 0\nopcode = \"flush\"", 3, &["queue", "I/O queues"]),
        ("[[fault]]\nkind = \"drop\"\nqueue = \"io\"\nopcode = \"format\"", 3, &["queue", "the admin queue"]),
        ("[[fault]]\nkind = \"drop\"\nqueue = \"all\"", 3, &["queue", "all"]),
        ("[[fault]]\nkind = \"drop\"\nqueue = 65536", 3, &["queue", "65536"]),
        ("[[fault]]\nkind = \"drop\"\nlba = \"8-\"", 3, &["lba", "8-"]),
        ("[[fault]]\nkind = \"drop\"\ncount = 1.5", 3, &["count", "1.5"]),
        ("[[fault]]\nkind = \"drop\"\nprobability = 2.0", 3, &["probability", "0 to 1"]),
        ("[[fault]]\nkind = \"drop\"\nprobability = \"often\"", 3, &["probability"]),
        ("[[fault]]\nkind = \"spurious-interrupts\"\nnumber = \"3\"", 3, &["number"]),
        ("[[fault]]\nkind = \"event-storm\"", 1, &["number"]),
        ("[[fault]]\nkind = \"resize-namespace\"\ntarget = 1", 1, &["blocks"]),
        ("[[fault]]\nkind = \"resize-namespace\"\nblocks = \"1M\"", 3, &["blocks", "1M"]),
        ("[[fault]]\nkind = \"reformat-namespace\"\nblocks = 8", 1, &["block-size"]),
        ("[[fault]]\nkind = \"remove-namespace\"\ntarget = -1", 3, &["target", "-1"]),
        ("[[fault]]\nkind = \"offline-zone\"\ntarget = 1", 1, &["zone"]),
        ("[[fault]]\nkind = \"drop\"\ntarget = 1", 3, &["target", "no such key here"]),
    ] {
        match text.parse::<FaultPlan>() {
            Err(Error::FaultPlan { line, reason }) => {
                assert_eq!(line, at, "{text}: {reason}");
                assert!(parts.iter().all(|part| reason.contains(part)), "{text}: {reason}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_can_not_be_used_is_named() {
    let path = std::env::temp_dir().join(format!("upcie-faults-{}.toml", std::process::id()));
    let options = format!("size=1M,faults={}", path.display()).parse().unwrap();
    for (text, part) in [
        (None, "can't be read"),
        (Some("seed = 1\n\nkind = 2"), "line 3: kind"),
        (Some("seed = 1\ncache = 0"), "line 2: cache: 0 bytes"),
        (Some("[[fault]]\nkind = \"drop\"\ncount = 0"), "line 3: count: 0 never strikes"),
        (Some("[[fault]]\nkind = \"drop\"\n\n[[fault]]\nkind = \"drop\"\nqueue = 65"), "line 6: queue: "),
        (Some("[[fault]]\nkind = \"offline-zone\"\nzone = 1"), "line 1: target: "),
    ] {
        let _ = std::fs::remove_file(&path);
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let error = Emulator::new(&options).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&*path.to_string_lossy()), "{part}: {error}");
    }
    std::fs::write(&path, "[[fault]]\nkind = \"drop\"").unwrap();
    Emulator::new(&options).unwrap();
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn rules_for_what_the_controller_lacks_are_refused() {
    let drop = FaultRule::new(Fault::Drop);
    for (options, rule, wanted) in [
        ("size=1M,queues=4", drop.clone().queue(4), None),
        ("size=1M,queues=4", drop.clone().queue(5), Some("queue")),
        ("size=1M,namespaces=2", drop.clone().namespace(2), None),
        ("size=1M,namespaces=2", drop.clone().namespace(ALL_NAMESPACES), None),
        ("size=1M,namespaces=2", drop.clone().namespace(3), Some("namespace")),
        ("size=1M,namespaces=2,nn=3", drop.clone().namespace(3), None),
        ("size=1M", drop.clone().lba(2047..=9999), None),
        ("size=1M", drop.lba(2048..=9999), Some("lba")),
        ("size=1M,vectors=0,intx=true", FaultRule::new(Fault::LostInterrupt), Some("kind")),
        ("size=1M,vectors=0,msi=4", FaultRule::new(Fault::SpuriousInterrupts(1)), Some("kind")),
        ("size=1M,vectors=2", FaultRule::new(Fault::LostInterrupt), None),
    ] {
        let said = format!("{options} {rule:?}");
        let mut emulator = Emulator::new(&options.parse().unwrap()).unwrap();
        match (emulator.inject(&FaultPlan::new(1).rule(rule)), wanted) {
            (Ok(()), None) => {}
            (Err(Error::FaultRule { rule: 1, key, .. }), Some(wanted)) => assert_eq!(key, wanted, "{said}"),
            (other, _) => panic!("{said}: {other:?}"),
        }
    }
}

/// Any text is a plan or an error with a line of the text.
#[test]
fn no_text_makes_the_parser_panic() {
    let good = "seed = 7\ncache = \"1M\"\n[[fault]]\nkind = \"status\"\nstatus = 0x281\nlba = \"0-9\"\nprobability = 0.5\n";
    let mut random = upcie_core::testing::Random(1);
    for _ in 0..20_000 {
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.next() as u8,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, b"\"=[]#\n.-0_'"[random.below(11)]),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(Error::FaultPlan { line, .. }) = text.parse::<FaultPlan>() {
            assert!((1..=text.matches('\n').count() + 1).contains(&line), "{text:?}: line {line}");
        }
    }
}
