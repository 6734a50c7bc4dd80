//! Every fault over both ways in to the emulator: the driver ends each wait, loses no block, and goes on or says that it can't.
//! docs/faults.md has the outcomes in a table, which this suite compares with what it sees. It prints what it sees.

mod admin;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};
use upcie_core::device::Device;
use upcie_nvme::{
    Controller, DmaBuf, Failure, Namespace, QueuePair, Refusal, Wait,
    emu::{self, Fault, FaultPlan, FaultRule},
    queue::OnTimeout,
    spec::{NvmOpcode, Status},
};
use upcie_tests::{
    bent::Bent,
    deadline,
    process::{Directory, within},
};

const DOCUMENT: &str = include_str!("../../../docs/faults.md");
const HEADING: &str = "## The driver under each fault";

const BLOCKS: u64 = 8;
const ROUNDS: u8 = 4;
/// A time that a fault lasts.
const SHORT: Duration = Duration::from_millis(20);
/// The driver's limit for a command; far above what a command takes on a busy machine, so that only lost ones reach it.
const LIMIT: Duration = Duration::from_secs(10);

/// One fault of each kind. Faults of reads strike reads, all others the writes.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Delay(SHORT),
        Fault::Reorder(SHORT),
        Fault::Drop,
        Fault::LoseCompletion,
        Fault::Status(Status::INTERNAL_ERROR),
        Fault::Corrupt,
        Fault::Duplicate,
        Fault::ForgedId,
        Fault::StaleId,
        Fault::WrongQueue,
        Fault::BadHead,
        Fault::EarlyPhase(SHORT),
        Fault::HalfWritten(SHORT),
        Fault::EarlyCompletion(SHORT),
        Fault::LostInterrupt,
        Fault::SpuriousInterrupts(9),
        Fault::Fatal,
        Fault::NeverReady,
        Fault::StuckStart,
        Fault::AlwaysReady,
        Fault::AllOnes(None),
        Fault::ChangingRegisters,
        Fault::PowerCut,
        Fault::Stall(SHORT),
        Fault::EventStorm(9),
        Fault::RemoveNamespace(None),
        Fault::ResizeNamespace { target: None, blocks: BLOCKS },
        Fault::ReformatNamespace { target: None, block_size: 4096 },
        Fault::CloseConnection,
    ]
}

/// Strikes once: in the middle of the second round.
fn plan(fault: Fault) -> FaultPlan {
    let opcode = match fault {
        Fault::EarlyCompletion(_) => NvmOpcode::READ,
        _ => NvmOpcode::WRITE,
    };
    let plan = FaultPlan::new(1).rule(FaultRule::new(fault).opcode(opcode.0).after(BLOCKS + 3).count(1));
    if fault == Fault::PowerCut { plan.cache(1 << 20) } else { plan }
}

/// The bytes of a block.
fn stamp(block: u64, version: u8) -> [u8; 512] {
    let mut bytes = [version; 512];
    bytes[..8].copy_from_slice(&block.to_le_bytes());
    bytes
}

/// A user of the device that writes every block once per round, reads it back, and recovers as the documentation says.
struct User {
    controller: Controller,
    namespace: Namespace,
    queue: QueuePair<(u64, bool)>,
    /// The versions that each block may have.
    allowed: BTreeMap<u64, BTreeSet<u8>>,
    seen: BTreeSet<&'static str>,
}

/// The end of a user whose device does not come back.
struct Gone;

impl User {
    fn new(controller: Controller) -> Self {
        let namespace = controller.namespace(1).unwrap();
        let builder = controller.queue_pair().depth(32).interrupt(1);
        let queue = builder.command_timeout(LIMIT).on_timeout(OnTimeout::Reset).create().unwrap();
        let allowed = (0..BLOCKS).map(|block| (block, BTreeSet::from([0]))).collect();
        Self { controller, namespace, queue, allowed, seen: BTreeSet::new() }
    }

    fn rounds(&mut self, fault: Fault) -> Result<(), Gone> {
        for version in 1..=ROUNDS {
            self.all(true, version)?;
            self.all(false, version)?;
            // These strike at a reset.
            let needs_reset =
                version == 2 && matches!(fault, Fault::NeverReady | Fault::StuckStart | Fault::AlwaysReady);
            if needs_reset && self.controller.reset().is_err() || self.namespace.flush().is_err() {
                self.recover()?;
            }
        }
        Ok(())
    }

    /// Writes or reads all blocks.
    fn all(&mut self, write: bool, version: u8) -> Result<(), Gone> {
        for block in 0..BLOCKS {
            let mut buffer = self.controller.alloc(512).unwrap();
            if write {
                self.allowed.get_mut(&block).unwrap().insert(version);
                buffer.write_at(0, &stamp(block, version));
            }
            loop {
                let Ok(mut turn) = self.queue.turn() else {
                    self.recover()?;
                    continue;
                };
                let sent = if write {
                    turn.write(&self.namespace, block, buffer, (block, true))
                } else {
                    turn.read(&self.namespace, block, buffer, (block, false))
                };
                drop(turn);
                let Err(refused) = sent else { break };
                assert!(matches!(refused.reason, Refusal::StaleNamespace), "{:?}", refused.reason);
                self.seen.insert("stale handle");
                buffer = refused.buffer;
                let Ok(namespace) = self.controller.namespace(1) else { return Err(Gone) };
                self.namespace = namespace;
                if self.namespace.block_size() != 512 {
                    return Err(Gone);
                }
            }
        }
        self.finish(version)
    }

    fn finish(&mut self, version: u8) -> Result<(), Gone> {
        while self.queue.in_flight() > 0 {
            if self.queue.wait(Wait::Interrupt, deadline()).is_err() {
                self.recover()?;
                continue;
            }
            let Ok(turn) = self.queue.turn() else {
                self.recover()?;
                continue;
            };
            let done: Vec<_> = turn.map(|done| done.into_parts()).collect();
            for ((block, write), result, buffer) in done {
                self.account(block, write, result, &buffer, version);
            }
        }
        Ok(())
    }

    fn account(&mut self, block: u64, write: bool, result: Result<(), Status>, buffer: &DmaBuf, version: u8) {
        match result {
            Err(_) => {
                self.seen.insert("status");
            }
            // With a volatile cache, older versions since the last Flush may come back after a power cut.
            Ok(()) if write => {}
            Ok(()) => {
                let mut data = [0; 512];
                buffer.read_at(0, &mut data);
                if !self.is_allowed(block, &data) {
                    self.seen.insert("wrong data");
                } else if data == stamp(block, version) {
                    self.allowed.insert(block, BTreeSet::from([version]));
                }
            }
        }
    }

    fn is_allowed(&self, block: u64, data: &[u8]) -> bool {
        let mut versions = self.allowed[&block].iter();
        versions.any(|&version| data == stamp(block, version) || version == 0 && data == [0; 512])
    }

    /// Resets the controller, and takes every buffer back exactly once.
    fn recover(&mut self) -> Result<(), Gone> {
        let in_flight = self.queue.in_flight();
        let Err(error) = self.queue.turn().map(drop) else { return Ok(()) };
        if !matches!(error.failure(), Failure::Reset { .. }) && self.controller.reset().is_err() {
            self.seen.insert("gone");
            return Err(Gone);
        }
        self.seen.insert("reset");
        let Ok(all) = self.queue.recover() else {
            self.seen.insert("gone");
            return Err(Gone);
        };
        assert_eq!(all.len(), in_flight, "each command comes back once");
        Ok(())
    }
}

/// Runs a user through a fault, and a second one on the medium that is left; returns what was seen.
fn outcome(fault: Fault, way: &str) -> String {
    let directory = Directory::new();
    let file = directory.path().join("medium");
    let options = format!("file={},size=1M", file.display());
    let seen = {
        let options = options.clone();
        let is_emu = way == "emu";
        within(10 * deadline(), move || first(fault, is_emu, &options))
    };
    let (allowed, mut seen) = seen;
    check(&file, &allowed, fault, &mut seen);
    shown(seen)
}

fn shown(mut seen: BTreeSet<&'static str>) -> String {
    if seen.is_empty() {
        seen.insert("nothing");
    }
    seen.into_iter().collect::<Vec<_>>().join(", ")
}

type Seen = (BTreeMap<u64, BTreeSet<u8>>, BTreeSet<&'static str>);

/// Opens a controller that fails as `plan` says, in this process or behind a server.
fn open(plan: &FaultPlan, is_emu: bool, options: &str, timeout: Duration) -> (Controller, Option<Bent>) {
    let builder = Controller::builder().timeout(timeout);
    if is_emu {
        let device: Arc<dyn Device> = emu::spawn_with_faults(&options.parse().unwrap(), plan).unwrap();
        return (builder.from_device(device).unwrap(), None);
    }
    let server = Bent::planned(options, plan);
    (builder.open(server.address()).unwrap(), Some(server))
}

fn first(fault: Fault, is_emu: bool, options: &str) -> Seen {
    let (controller, bent) = open(&plan(fault), is_emu, options, deadline());
    let mut user = User::new(controller);
    if user.rounds(fault).is_ok() {
        // The last versions were read back.
        for (block, versions) in &user.allowed {
            assert!(versions.contains(&ROUNDS), "block {block}: {versions:?}");
        }
    }
    let User { controller, namespace, queue, allowed, seen } = user;
    drop((queue, namespace, controller, bent));
    (allowed, seen)
}

/// Checks the blocks through a controller without faults.
fn check(
    file: &Path,
    allowed: &BTreeMap<u64, BTreeSet<u8>>,
    fault: Fault,
    seen: &mut BTreeSet<&'static str>,
) {
    let controller = Controller::open(format!("emu:file={}", file.display())).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let queue = controller.queue_pair().create().unwrap();
    let reader = User { controller, namespace, queue, allowed: allowed.clone(), seen: BTreeSet::new() };
    for block in 0..BLOCKS {
        let mut data = [0; 512];
        reader.namespace.read_at(block * 512, &mut data).unwrap();
        let is_lost = matches!(fault, Fault::ReformatNamespace { .. }) && data == [0; 512];
        if !reader.is_allowed(block, &data) && !is_lost {
            assert!(
                seen.contains("wrong data"),
                "{fault:?}: block {block} has neither an old nor a new version"
            );
        }
    }
}

/// The table of docs/faults.md: the outcomes by the name of the kind.
fn documented() -> BTreeMap<&'static str, Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(HEADING).expect("the section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |line: &'static str| {
        let (name, rest) = line.split_once("` | ").expect("a row");
        let cell = rest.split(" |").next().expect("an outcome");
        (name, cell.split(" or ").map(str::trim).collect())
    };
    rows.map(row).collect()
}

/// Prints a row of the table, also if the test passes: not by a macro, whose lines the harness captures.
fn print_row(name: &str, io: &str, admin: &str) {
    let line = format!("\nupcie-test: table: {name:20} {io:22} {admin}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).expect("standard output");
}

fn run(way: &'static str) {
    let documented = documented();
    // Those that end by a deadline wait beside each other.
    let waits = |fault: &Fault| {
        matches!(
            fault,
            Fault::Drop | Fault::LoseCompletion | Fault::NeverReady | Fault::StuckStart | Fault::AlwaysReady
        )
    };
    let (long, short): (Vec<_>, Vec<_>) = faults().into_iter().partition(waits);
    let both = |fault| (fault, outcome(fault, way), admin::outcome(fault, way));
    let outcomes: Vec<_> = thread::scope(|scope| {
        let waiting: Vec<_> = long.into_iter().map(|fault| scope.spawn(move || both(fault))).collect();
        let outcomes: Vec<_> = short.into_iter().map(both).collect();
        let waited = waiting.into_iter().map(|thread| thread.join().expect("an outcome"));
        outcomes.into_iter().chain(waited).collect()
    });
    let mut wrong = Vec::new();
    print_row(&format!("over {way}"), "an I/O command", "an admin command");
    for (fault, seen, of_admin) in outcomes {
        print_row(fault.name(), &seen, &of_admin);
        if !documented.get(fault.name()).is_some_and(|all| all.contains(&seen.as_str())) {
            wrong.push(format!("| `{}` | {seen} |", fault.name()));
        }
    }
    assert!(wrong.is_empty(), "over {way}, not as docs/faults.md says:\n{}", wrong.join("\n"));
}

#[test]
fn every_fault_has_its_outcome_in_the_process() {
    run("emu");
}

#[test]
fn every_fault_has_its_outcome_over_a_socket() {
    run("vfio-user");
}

/// Zones that fail are none of the table: a namespace with zones takes other writes than those of this suite.
#[test]
fn the_table_has_every_kind() {
    let mut kinds: BTreeSet<_> = faults().into_iter().map(Fault::name).collect();
    let table: BTreeSet<_> = documented().into_keys().collect();
    assert_eq!(kinds, table);
    let of_zones =
        [Fault::ReadOnlyZone { target: None, zone: 0 }, Fault::OfflineZone { target: None, zone: 0 }];
    kinds.extend(of_zones.map(Fault::name));
    let (lists, _) = DOCUMENT.split_once(HEADING).unwrap();
    let (_, lists) = lists.split_once("### Faults of a command").unwrap();
    let listed = lists.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(kinds, listed.filter(|name| *name != "kind").collect());
}
