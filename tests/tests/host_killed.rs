//! A driver that is killed (SIGKILL) at any moment leaves a controller that the next one brings up, with all data that was
//! flushed, and leaves nothing behind in the system or in the server. A server that is killed with commands in flight is
//! noticed at once.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use upcie_core::{
    device::Address,
    vfio_user::{
        self,
        server::{Backend, Client, Layout, Listener},
    },
};
use upcie_nvme::{Controller, DmaBuf, ErrorKind, Namespace, Wait, emu::Emulator};
use upcie_tests::{
    deadline,
    device::another,
    io::create,
    left_out,
    process::{Directory, Process, Server, again, role, within},
    scaled, seeded,
    stopwatch::Stopwatch,
};

/// Blocks that the driver writes in turn, each with the number of its write.
const BLOCKS: u64 = 16;
/// The time in which a wait notices that its controller is gone (the wait's documentation), and a margin.
const NOTICED: Duration = Duration::from_millis(100 + 100);
/// The time in which a controller that is gone is dropped. Its shutdown is allowed 15 s (the table of deadlines).
const DROPPED: Duration = Duration::from_secs(2);

fn is_built() -> bool {
    let built = Server::is_built() || upcie_tests::is_ci();
    if !built {
        left_out("nvme-emu is not built");
    }
    built
}

/// The program that is killed: opens the controller, writes and flushes, with other commands in flight, and closes it, again
/// and again. The number of the last write that was flushed is in a file.
fn drive(address: &str, notes: &Path) -> ! {
    let notes = fs::OpenOptions::new().read(true).write(true).open(notes).unwrap();
    let mut number = last_flushed(&notes);
    let mut random = seeded(number);
    println!("begins");
    loop {
        let controller = Controller::open(address).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create::<u64>(controller.queue_pair().depth(16));
        let mut buffer = controller.alloc(namespace.block_size()).unwrap();
        for _ in 0..random.below(40) {
            for tag in 0..random.below(8) as u64 {
                let data = controller.alloc(4096).unwrap();
                queue.turn().unwrap().read(&namespace, 0, data, tag).unwrap();
            }
            number += 1;
            buffer.fill(0);
            buffer.write_at(0, &number.to_le_bytes());
            namespace.write(number % BLOCKS, &mut buffer).unwrap();
            namespace.flush().unwrap();
            notes.write_at(&number.to_le_bytes(), 0).unwrap();
            while queue.in_flight() > 0 {
                assert!(queue.wait(Wait::Poll, deadline()).unwrap());
                queue.turn().unwrap().for_each(|done| done.result().map(drop).unwrap());
            }
        }
    }
}

fn last_flushed(notes: &fs::File) -> u64 {
    let mut number = [0; 8];
    notes.read_exact_at(&mut number, 0).unwrap();
    u64::from_le_bytes(number)
}

/// Waits until the driver has flushed another write.
fn wait_for_write(notes: &fs::File, before: u64) {
    let end = Instant::now() + deadline();
    while last_flushed(notes) == before {
        assert!(Instant::now() < end, "the driver writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Asserts that each block has the last write that was flushed, or the one write that may have come after it.
fn verify(controller: &Controller, namespace: &Namespace, flushed: u64) {
    let mut buffer: DmaBuf = controller.alloc(namespace.block_size()).unwrap();
    for block in 0..BLOCKS {
        namespace.read(block, &mut buffer).unwrap();
        let mut number = [0; 8];
        buffer.read_at(0, &mut number);
        let found = u64::from_le_bytes(number);
        let expected = (0..=flushed).rev().take(BLOCKS as usize).find(|n| n % BLOCKS == block).unwrap_or(0);
        let next = flushed + 1;
        assert!(
            found == expected || (found == next && next % BLOCKS == block),
            "block {block} has write {found}; {expected} was flushed"
        );
    }
}

/// The descriptors and the mapped files of a process, by name and number.
fn held(process: u32) -> BTreeMap<String, usize> {
    let mut held = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        // Each socket has a number of its own.
        let kind = target.split_once(":[").map_or(target.clone(), |(kind, _)| kind.to_owned());
        *held.entry(kind).or_default() += 1;
    }
    for line in fs::read_to_string(format!("/proc/{process}/maps")).unwrap().lines() {
        if let Some(path) = line.split_whitespace().nth(5) {
            // The heap and the stacks of threads are the allocator's.
            if path.starts_with('/') {
                *held.entry(format!("mapped {path}")).or_default() += 1;
            }
        }
    }
    held
}

/// Files of this library in mounts of hugetlbfs and tmpfs.
fn files() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let memory = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        matches!(kind, "hugetlbfs" | "tmpfs").then(|| at.to_owned())
    });
    let entries = memory.filter_map(|at| fs::read_dir(at).ok()).flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.path().display().to_string()).collect();
    // The directories of tests that run at the same time.
    names.retain(|name| name.contains("upcie-") && !name.contains("upcie-tests-"));
    names.sort();
    names
}

/// Kills a driver at a random moment, in every other round after it has written something, again and again; each time the next
/// one opens the controller and finds the data. `name` is the test, which plays the driver in a child process; `check` runs after
/// each round.
fn kill_and_open(name: &str, address: &Address, rounds: usize, mut check: impl FnMut(usize)) {
    let directory = Directory::new();
    let path = directory.path().join("notes");
    fs::write(&path, [0; 8]).unwrap();
    let notes = fs::File::open(&path).unwrap();
    let mut random = seeded(9);
    for round in 0..rounds {
        let mut child = Process::start(again(name, &format!("{address} {}", path.display())));
        let before = last_flushed(&notes);
        child.wait_for("begins").unwrap();
        if round % 2 == 0 {
            // A busy machine may not let it write otherwise.
            wait_for_write(&notes, before);
        }
        // The moment of the death, not a wait for an event.
        std::thread::sleep(Duration::from_micros(random.within(0..30_000)));
        child.kill();
        let flushed = last_flushed(&notes);
        let (start, address) = (Instant::now(), address.clone());
        let options = Controller::builder().timeout(deadline());
        let controller = within(3 * deadline(), move || options.open(address))
            .unwrap_or_else(|error| panic!("round {round}, after {:?}: {error:?}", start.elapsed()));
        let namespace = controller.namespace(1).unwrap();
        verify(&controller, &namespace, flushed);
        drop((controller, namespace));
        check(round);
    }
    assert!(last_flushed(&notes) > 0, "no driver has written anything");
}

/// Plays the driver, if this process is one.
fn play() {
    if let Some(role) = role() {
        let (address, notes) = role.split_once(' ').unwrap();
        drive(address, Path::new(notes));
    }
}

#[test]
fn a_killed_driver_leaves_nothing_behind() {
    play();
    if !is_built() {
        return;
    }
    let mut server = Server::start("size=16M,queues=4");
    let process = server.process().id();
    drop(Controller::open(server.address()).unwrap());
    let (before, before_files) = (settled(process, &BTreeMap::new()), files());
    kill_and_open("a_killed_driver_leaves_nothing_behind", &server.address(), scaled(40), |round| {
        assert_eq!(settled(process, &before), before, "left behind in the server, round {round}");
    });
    assert_eq!(files(), before_files);
    let socket: Vec<_> = fs::read_dir(socket_directory(&server)).unwrap().flatten().collect();
    assert_eq!(socket.len(), 1, "{socket:?}");
}

/// A controller that no reset of the function stops when its driver dies: it is enabled, disabled, on its way to either, or
/// reports a fatal status because its queues' memory is gone.
struct Unreset(Emulator);

impl Backend for Unreset {
    fn layout(&self) -> &Layout {
        self.0.layout()
    }

    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.0.poll(client)
    }

    fn update_interrupts(&mut self, client: &mut Client) {
        self.0.update_interrupts(client);
    }

    fn reset(&mut self) {}
}

#[test]
fn a_driver_comes_up_after_one_that_was_killed() {
    play();
    let directory = Directory::new();
    let path = directory.path().join("socket");
    let listener = Listener::bind(&path).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (listener, stop) = (&listener, &stop);
        scope.spawn(move || {
            let mut device = Unreset(Emulator::new(&"size=16M,queues=4".parse().unwrap()).unwrap());
            vfio_user::server::Server::new().serve(listener, &mut device, stop).unwrap();
        });
        let rounds = || {
            let name = "a_driver_comes_up_after_one_that_was_killed";
            kill_and_open(name, &Address::VfioUser(path.clone()), scaled(40), |_| {});
        };
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(rounds));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
    });
}

fn socket_directory(server: &Server) -> std::path::PathBuf {
    let address = server.address().to_string();
    let path = address.split_once(':').map_or("", |(_, path)| path);
    Path::new(path).parent().expect("a directory").into()
}

/// Returns what a server holds once it is what is `wanted`, or after the deadline; the first time, once the only socket is the
/// one that it listens at: it closes a client's last.
fn settled(process: u32, wanted: &BTreeMap<String, usize>) -> BTreeMap<String, usize> {
    let end = Instant::now() + deadline();
    let mut last = held(process);
    loop {
        std::thread::sleep(Duration::from_millis(5));
        let now = held(process);
        let is_alone = now == last && now.get("socket") == Some(&1);
        let is_wanted = if wanted.is_empty() { is_alone } else { now == *wanted };
        if is_wanted || Instant::now() > end {
            return now;
        }
        last = now;
    }
}

#[test]
fn a_killed_server_is_noticed_at_once() {
    if !is_built() {
        return;
    }
    let kinds = [Wait::Poll, Wait::Interrupt, Wait::Adaptive(Duration::from_micros(20))];
    for how in kinds {
        let mut server = Server::start("size=16M,latency=60s");
        let controller = Controller::open(server.address()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut queue = create::<u64>(controller.queue_pair().depth(8).interrupt(1));
        for tag in 0..4 {
            let data = controller.alloc(4096).unwrap();
            queue.turn().unwrap().write(&namespace, tag * 8, data, tag).unwrap();
        }
        server.process().kill();
        // Without the time in which this process waits for a core.
        let mut watch = Stopwatch::of(std::process::id());
        let error = queue.wait(how, deadline()).unwrap_err();
        let noticed = watch.elapsed();
        assert_eq!(error.kind(), ErrorKind::Gone, "{how:?}: {error}");
        assert!(noticed <= NOTICED, "{how:?}: noticed after {noticed:?}");
        // Blocking calls and admin commands fail as well.
        for error in [namespace.flush().unwrap_err(), controller.namespace_ids().unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::Gone, "{how:?}: {error}");
            assert_eq!(error.device(), Some(controller.name()));
        }
        let mut watch = Stopwatch::of(std::process::id());
        within(deadline(), move || drop((queue, namespace, controller)));
        let dropped = watch.elapsed();
        assert!(dropped <= DROPPED, "{how:?}: dropped after {dropped:?}");
        // Other devices of the process are not affected.
        let other = another();
        other.namespace(1).unwrap().write(0, &mut other.alloc(4096).unwrap()).unwrap();
        let server = Server::start("size=16M");
        Controller::open(server.address()).unwrap().namespace(1).unwrap().flush().unwrap();
    }
}

#[test]
fn a_server_killed_in_a_blocking_call_ends_the_call() {
    if !is_built() {
        return;
    }
    let mut server = Server::start("size=16M,latency=60s");
    let options = Controller::builder().timeout(4 * deadline());
    let controller = options.open(server.address()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let mut buffer = controller.alloc(4096).unwrap();
    let call = std::thread::spawn(move || namespace.write(0, &mut buffer).unwrap_err());
    // The moment of the death, not a wait for an event: the call is under way or about to begin.
    std::thread::sleep(Duration::from_millis(20));
    server.process().kill();
    let error = within(deadline(), move || call.join().unwrap());
    assert_eq!(error.kind(), ErrorKind::Gone, "{error}");
    within(deadline(), move || drop(controller));
}
