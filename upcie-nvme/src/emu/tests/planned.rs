//! Fault plans, as a host with rings made by hand sees them.

use super::host::{Host, exact};
use crate::{
    emu::{Fault, FaultPlan, FaultRule},
    spec::{AdminOpcode, Command, FeatureId, FeatureSelect, NvmOpcode, Status},
};
use std::time::{Duration, Instant};

const DELAY: Duration = Duration::from_millis(30);

fn host(rule: FaultRule) -> Host {
    Host::with_faults("size=1M", &FaultPlan::new(7).rule(rule))
}

/// Returns a read or write of blocks that begin at `lba`, from or to the start of the data.
fn io(host: &Host, opcode: NvmOpcode, cid: u16, lba: u64, blocks: u32) -> Command {
    let mut command = match opcode {
        NvmOpcode::READ => Command::read(1, lba, blocks),
        _ => Command::write(1, lba, blocks),
    };
    command.cid = cid;
    command.set_data_pointer(host.iova(0), host.iova(4096));
    command
}

#[test]
fn a_status_strikes_only_the_commands_of_its_rule() {
    let status = Status::from_bits(Status::UNRECOVERED_READ_ERROR.into_bits() | 1 << 14 | 1 << 13 | 2 << 11);
    let rule = FaultRule::new(Fault::Status(status)).opcode(NvmOpcode::READ.0).lba(8..=9).queue(1).after(1);
    let mut host = host(rule.count(1));
    // ACRE: without it a status names no delay.
    host.set(0, &[1]);
    let behavior = host.with_page(Command::set_features(FeatureId::HOST_BEHAVIOR_SUPPORT, 0));
    assert_eq!(host.admin.status(behavior), Status::SUCCESS);
    let mut queue = host.queue(1, [16, 16], None);
    let mut other = host.queue(2, [16, 16], None);
    let read = |host: &Host, lba| io(host, NvmOpcode::READ, 3, lba, 2);
    assert_eq!(other.status(read(&host, 8)), Status::SUCCESS, "another queue");
    assert_eq!(queue.status(read(&host, 8)), Status::SUCCESS, "the first one");
    assert_eq!(queue.status(read(&host, 10)), Status::SUCCESS, "other blocks");
    assert_eq!(queue.status(io(&host, NvmOpcode::WRITE, 3, 8, 1)), Status::SUCCESS, "another opcode");
    let done = queue.run(read(&host, 7));
    assert_eq!(exact(done.status()), exact(status));
    assert_eq!(done.status().into_bits(), status.into_bits(), "with More and CRD");
    assert_eq!(queue.status(read(&host, 8)), Status::SUCCESS, "it strikes once");
}

#[test]
fn a_delayed_command_completes_after_later_ones() {
    let mut host = host(FaultRule::new(Fault::Delay(DELAY)).count(1));
    let mut queue = host.queue(1, [16, 16], None);
    let start = Instant::now();
    for cid in 0..4 {
        queue.put(&Command { cid, ..Command::flush(1) });
    }
    queue.ring();
    let ids: Vec<_> = (0..4).map(|_| queue.wait().cid).collect();
    assert_eq!(ids, [1, 2, 3, 0]);
    assert!(start.elapsed() >= DELAY);
}

#[test]
fn reordered_commands_complete_once_each() {
    let mut host = host(FaultRule::new(Fault::Reorder(Duration::from_millis(2))));
    let mut queue = host.queue(1, [64, 64], None);
    for cid in 0..60 {
        queue.put(&Command { cid, ..Command::flush(1) });
    }
    queue.ring();
    let mut ids: Vec<_> = (0..60).map(|_| queue.wait().cid).collect();
    assert!(!ids.is_sorted(), "{ids:?}");
    ids.sort_unstable();
    assert_eq!(ids, (0..60).collect::<Vec<_>>());
}

#[test]
fn a_dropped_command_hangs_until_it_is_aborted() {
    let mut host = host(FaultRule::new(Fault::Drop).opcode(NvmOpcode::WRITE.0).count(1));
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, &[7; 512]);
    queue.put(&io(&host, NvmOpcode::WRITE, 5, 0, 1));
    queue.ring();
    assert_eq!(queue.run(Command { cid: 6, ..Command::flush(1) }).cid, 6);
    queue.silent();
    assert_eq!(queue.status(io(&host, NvmOpcode::READ, 7, 0, 1)), Status::SUCCESS);
    assert_eq!(host.bytes(0, 512), [0; 512], "it was not carried out");
    let done = host.admin.run(Command::abort(1, 5));
    assert_eq!((done.status(), done.dw0), (Status::SUCCESS, 0));
    let done = queue.wait();
    assert_eq!((done.cid, done.status()), (5, Status::ABORT_REQUESTED));
}

#[test]
fn an_abort_beyond_the_limit_is_refused() {
    let mut host = host(FaultRule::new(Fault::Delay(DELAY)).queue(0).opcode(AdminOpcode::ABORT.0).count(4));
    for cid in 0..5 {
        host.admin.put(&Command { cid, ..Command::abort(1, 99) });
    }
    host.admin.ring();
    // ACL is 3, 0's based.
    let done = host.admin.wait();
    assert_eq!((done.cid, done.status()), (4, Status::ABORT_LIMIT_EXCEEDED));
    let mut ids: Vec<_> = (0..4).map(|_| host.admin.wait().cid).collect();
    ids.sort_unstable();
    assert_eq!(ids, [0, 1, 2, 3]);
    assert_eq!(host.admin.status(Command::abort(99, 1)), Status::INVALID_FIELD, "not the limit any more");
}

#[test]
fn a_command_with_a_lost_completion_is_carried_out() {
    let mut host = host(FaultRule::new(Fault::LoseCompletion).opcode(NvmOpcode::WRITE.0).count(1));
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, &[7; 512]);
    queue.put(&io(&host, NvmOpcode::WRITE, 5, 0, 1));
    queue.ring();
    assert_eq!(queue.status(Command { cid: 6, ..Command::flush(1) }), Status::SUCCESS);
    host.set(0, &[0; 512]);
    assert_eq!(queue.status(io(&host, NvmOpcode::READ, 7, 0, 1)), Status::SUCCESS);
    assert_eq!(host.bytes(0, 512), [7; 512]);
    assert_eq!(host.admin.run(Command::abort(1, 5)).dw0, 1, "nothing to abort");
    queue.silent();
}

#[test]
fn corrupted_data_differs_in_one_bit() {
    for opcode in [NvmOpcode::READ, NvmOpcode::WRITE] {
        let mut host = host(FaultRule::new(Fault::Corrupt).opcode(opcode.0).count(1));
        let mut queue = host.queue(1, [16, 16], None);
        host.set(0, &[0x55; 8192]);
        assert_eq!(queue.status(io(&host, NvmOpcode::WRITE, 1, 0, 16)), Status::SUCCESS);
        host.set(0, &[0; 8192]);
        assert_eq!(queue.status(io(&host, NvmOpcode::READ, 2, 0, 16)), Status::SUCCESS);
        let flipped: u32 = host.bytes(0, 8192).iter().map(|byte| (byte ^ 0x55).count_ones()).sum();
        assert_eq!(flipped, 1, "{opcode:?}");
    }
}

#[test]
fn a_bent_completion_differs_in_its_field() {
    for (fault, ids) in [
        (Fault::Duplicate, &[4, 5, 5, 6][..]),
        (Fault::StaleId, &[4, 4, 6]),
        (Fault::WrongQueue, &[4, 5, 6]),
        (Fault::BadHead, &[4, 5, 6]),
    ] {
        let mut host = host(FaultRule::new(fault).after(1).count(1));
        let mut queue = host.queue(1, [16, 16], None);
        for cid in 4..7 {
            queue.put(&Command { cid, ..Command::flush(1) });
        }
        queue.ring();
        let done: Vec<_> = ids.iter().map(|_| queue.wait()).collect();
        assert_eq!(done.iter().map(|done| done.cid).collect::<Vec<_>>(), ids, "{fault:?}");
        assert_eq!(done[1].sqid == 1, fault != Fault::WrongQueue);
        assert_eq!(done[1].sqhd <= 3, fault != Fault::BadHead, "{done:?}");
        queue.silent();
    }
}

#[test]
fn a_forged_id_is_no_commands_of_the_queue() {
    let mut host = host(FaultRule::new(Fault::ForgedId));
    let mut queue = host.queue(1, [64, 64], None);
    for cid in 0..60 {
        queue.put(&Command { cid, ..Command::flush(1) });
    }
    queue.ring();
    for cid in 0..60 {
        assert_ne!(queue.wait().cid, cid);
    }
}

#[test]
fn an_entry_is_written_in_parts() {
    for fault in [Fault::EarlyPhase(DELAY), Fault::HalfWritten(DELAY)] {
        let mut host = host(FaultRule::new(fault).count(1).queue(0).opcode(AdminOpcode::GET_FEATURES.0));
        let get = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
        host.admin.put(&Command { cid: 9, ..get });
        host.admin.ring();
        let early = host.admin.wait();
        assert_eq!(early.cid == 9, matches!(fault, Fault::HalfWritten(_)), "{early:?}");
        // Any other command: the controller has looked at its queues again when the time is over.
        let end = Instant::now() + Duration::from_secs(10);
        while host.admin.entry(host.admin.before()).dw0 != 63 << 16 | 63 {
            assert!(Instant::now() < end, "{fault:?}: the rest does not come");
        }
        assert_eq!(host.admin.entry(host.admin.before()).cid, 9);
        host.alive();
    }
}

#[test]
fn a_read_completes_before_its_data_comes() {
    let mut host = host(FaultRule::new(Fault::EarlyCompletion(DELAY)).opcode(NvmOpcode::READ.0));
    let mut queue = host.queue(1, [16, 16], None);
    host.set(0, &[7; 512]);
    assert_eq!(queue.status(io(&host, NvmOpcode::WRITE, 1, 0, 1)), Status::SUCCESS);
    host.set(0, &[0; 512]);
    assert_eq!(queue.status(io(&host, NvmOpcode::READ, 2, 0, 1)), Status::SUCCESS);
    let end = Instant::now() + Duration::from_secs(10);
    while host.bytes(0, 512) != [7; 512] {
        assert!(Instant::now() < end, "the data does not come");
    }
}

#[test]
fn an_admin_command_is_delayed_and_fails() {
    let set = AdminOpcode::GET_FEATURES.0;
    let delay = FaultRule::new(Fault::Delay(DELAY)).queue(0).opcode(set).count(1);
    let fail = FaultRule::new(Fault::Status(Status::INTERNAL_ERROR)).queue(0).opcode(set).after(1).count(1);
    let mut host = Host::with_faults("size=1M", &FaultPlan::new(1).rule(delay).rule(fail));
    let start = Instant::now();
    host.alive();
    assert!(start.elapsed() >= DELAY);
    let get = Command::get_features(FeatureId::NUMBER_OF_QUEUES, FeatureSelect::CURRENT);
    assert_eq!(host.admin.status(get), Status::INTERNAL_ERROR);
    host.alive();
}

#[test]
fn faults_of_the_controller_show_in_its_registers() {
    let strike = |fault| {
        let mut host = host(FaultRule::new(fault).opcode(NvmOpcode::FLUSH.0));
        let mut queue = host.queue(1, [16, 16], None);
        queue.put(&Command::flush(1));
        queue.ring();
        (host, queue)
    };
    let until = |wanted: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(10);
        while !wanted() {
            assert!(Instant::now() < end);
        }
    };
    let (host, _queue) = strike(Fault::Fatal);
    until(&|| host.csts() == 0b11);
    let (host, _queue) = strike(Fault::AllOnes(None));
    until(&|| host.csts() == !0);
    let (host, _queue) = strike(Fault::AllOnes(Some(DELAY)));
    until(&|| host.csts() == !0);
    until(&|| host.csts() == 1);
    let (host, _queue) = strike(Fault::ChangingRegisters);
    until(&|| host.bar.read_u32(8).unwrap() != host.bar.read_u32(8).unwrap());
    for fault in [Fault::NeverReady, Fault::StuckStart] {
        let (host, mut queue) = strike(fault);
        queue.wait();
        host.write_u32(0x14, 0).unwrap();
        host.configure(1 | 6 << 16 | 4 << 20);
        assert_eq!(host.csts(), 0);
    }
    let (host, mut queue) = strike(Fault::AlwaysReady);
    queue.wait();
    host.write_u32(0x14, 0).unwrap();
    assert_eq!(host.csts(), 1);
    let (host, _queue) = strike(Fault::PowerCut);
    until(&|| host.csts() == 0);
    let (host, _queue) = strike(Fault::Stall(DELAY));
    let start = Instant::now();
    until(&|| host.csts() == 1 && start.elapsed() >= DELAY);
}

#[test]
fn a_power_cut_loses_at_most_what_was_not_flushed() {
    let cut = FaultRule::new(Fault::PowerCut).opcode(NvmOpcode::DATASET_MANAGEMENT.0);
    let mut lost = 0;
    for seed in 0..8 {
        let mut host = Host::with_faults("size=1M", &FaultPlan::new(seed).rule(cut.clone()).cache(64 << 10));
        let mut queue = host.queue(1, [16, 16], None);
        let mut write = |host: &Host, lba, value| {
            host.set(0, &[value; 8192]);
            assert_eq!(queue.status(io(host, NvmOpcode::WRITE, 1, lba, 16)), Status::SUCCESS);
        };
        write(&host, 0, 1);
        write(&host, 16, 1);
        assert_eq!(queue.status(Command::flush(1)), Status::SUCCESS);
        let mut write = |host: &Host, lba, value| {
            host.set(0, &[value; 8192]);
            assert_eq!(queue.status(io(host, NvmOpcode::WRITE, 1, lba, 16)), Status::SUCCESS);
        };
        write(&host, 16, 2);
        write(&host, 16, 3);
        queue.put(&Command { opcode: NvmOpcode::DATASET_MANAGEMENT.0, ..Command::flush(1) });
        queue.ring();
        let end = Instant::now() + Duration::from_secs(10);
        while host.csts() != 0 {
            assert!(Instant::now() < end, "the power stays");
        }
        host.set_config_u16(4, 6).unwrap();
        host.enable();
        let mut queue = host.queue(1, [16, 16], None);
        let mut blocks = |lba| {
            assert_eq!(queue.status(io(&host, NvmOpcode::READ, 1, lba, 16)), Status::SUCCESS);
            host.bytes(0, 8192).chunks(512).map(|block| (block[0], block.to_vec())).collect::<Vec<_>>()
        };
        assert!(blocks(0).iter().all(|(first, _)| *first == 1));
        for (first, block) in blocks(16) {
            assert!((1..=3).contains(&first) && block.iter().all(|byte| *byte == first), "{block:?}");
            lost += u32::from(first != 3);
        }
    }
    assert!(lost > 0, "no seed loses a block");
}

#[test]
fn rules_that_can_not_work_are_refused() {
    let read = NvmOpcode::READ.0;
    for (rule, part) in [
        (FaultRule::new(Fault::Corrupt).opcode(NvmOpcode::FLUSH.0), "reads and writes"),
        (FaultRule::new(Fault::Corrupt).queue(0), "reads and writes"),
        (FaultRule::new(Fault::Drop).lba(0..=1).queue(0), "name no block"),
        (
            FaultRule::new(Fault::Drop).opcode(read).lba(std::ops::RangeInclusive::new(2, 1)),
            "beyond the last",
        ),
        (FaultRule::new(Fault::Drop).count(0), "never strikes"),
        (FaultRule::new(Fault::Drop).probability(0.0), "never strikes"),
        (FaultRule::new(Fault::EarlyCompletion(DELAY)).opcode(NvmOpcode::WRITE.0), "early-completion"),
        (FaultRule::new(Fault::Status(Status::SUCCESS)), "status: 0"),
    ] {
        let plan = FaultPlan::new(0).rule(FaultRule::new(Fault::Drop)).rule(rule);
        let error = crate::emu::spawn_with_faults(&"size=1M".parse().unwrap(), &plan).unwrap_err();
        let text = upcie_core::Chain(&error).to_string();
        assert!(text.contains(part) && text.contains("rule 2"), "{part}: {text}");
    }
    let lockstep = crate::emu::Lockstep::new(&"size=1M".parse().unwrap()).unwrap();
    let error = lockstep.inject(&FaultPlan::new(0).rule(FaultRule::new(Fault::Stall(DELAY)))).unwrap_err();
    assert!(upcie_core::Chain(&error).to_string().contains("stall needs a server"), "{error}");
    let early = FaultRule::new(Fault::EarlyCompletion(DELAY));
    let error = lockstep.inject(&FaultPlan::new(0).rule(early)).unwrap_err();
    assert!(upcie_core::Chain(&error).to_string().contains("Machine::with_faults"), "{error}");
    let null = crate::emu::Lockstep::new(&"size=1M,null=true".parse().unwrap()).unwrap();
    let error = null.inject(&FaultPlan::new(0).cache(4096)).unwrap_err();
    assert!(upcie_core::Chain(&error).to_string().contains("null=true"), "{error}");
}

#[test]
fn a_reset_drops_commands_before_their_data_moves() {
    const DATA: usize = 64 << 10;
    let mut host = host(FaultRule::new(Fault::Delay(DELAY)).opcode(NvmOpcode::READ.0));
    let mut queue = host.queue(1, [16, 16], None);
    let start = Instant::now();
    for cid in 0..4 {
        let mut read = io(&host, NvmOpcode::READ, cid, 0, 1);
        read.set_data_pointer(host.iova(DATA), 0);
        queue.put(&read);
    }
    queue.ring();
    // A later command shows that the reads were fetched.
    queue.put(&Command { cid: 9, ..Command::flush(1) });
    queue.ring();
    assert_eq!(queue.wait().cid, 9);
    host.write_u32(0x14, 0).unwrap();
    assert_eq!(host.csts(), 0);
    host.set(DATA, &[0xee; 512]);
    host.enable();
    while start.elapsed() < 3 * DELAY {
        host.alive();
    }
    assert_eq!(host.bytes(DATA, 512), [0xee; 512], "no data came after CSTS.RDY was 0");
}
