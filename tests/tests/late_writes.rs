//! A server that writes to memory after it has given it back. Rust can't prevent that; a controller that does
//! not trust its device is safe against it.

use std::{
    fs,
    os::unix::net::UnixListener,
    str,
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};
use upcie_core::{
    device::{Address, Device},
    dma::Heap,
    vfio_user::server::{Backend, Client, Layout, Server},
};
use upcie_nvme::{
    Controller, ControllerBuilder, DmaBuf, Namespace,
    emu::{Emulator, Fault, FaultPlan, FaultRule, Lockstep, Machine, spawn_with_faults},
    spec::NvmOpcode,
};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::{create, only},
    process::{Directory, within},
};

/// An NVMe controller that also writes bytes on request, at any time.
struct Late {
    emulator: Emulator,
    orders: Receiver<(u64, Vec<u8>)>,
    done: Sender<std::io::Result<()>>,
}

impl Backend for Late {
    fn layout(&self) -> &Layout {
        self.emulator.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        self.emulator.read(client, region, offset, data)
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.emulator.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        let late = self.orders.try_iter().map(|(iova, bytes)| client.write(iova, &bytes));
        let _ = late.into_iter().try_for_each(|result| self.done.send(result));
        self.emulator.poll(client)
    }

    fn reset(&mut self) {
        self.emulator.reset();
    }
}

/// A controller behind such a server, and the channel that makes it write.
struct Hostile {
    orders: Sender<(u64, Vec<u8>)>,
    done: Receiver<std::io::Result<()>>,
    controller: Controller,
    _directory: Directory,
}

impl Hostile {
    fn open(options: ControllerBuilder) -> Self {
        let directory = Directory::new();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (orders, taken) = channel();
        let (told, done) = channel();
        // The thread ends with the connection.
        thread::spawn(move || {
            let emulator = Emulator::new(&"size=16M".parse().unwrap()).unwrap();
            let mut late = Late { emulator, orders: taken, done: told };
            let (stream, _) = listener.accept().unwrap();
            Server::new().serve_stream(stream, &mut late, &AtomicBool::new(false)).unwrap();
        });
        let controller = options.open(Address::VfioUser(path)).unwrap();
        Self { orders, done, controller, _directory: directory }
    }

    /// Makes the server write `byte` to the last byte of `buffer`, and waits for that.
    fn write_late(&self, buffer: &DmaBuf, byte: u8) {
        self.orders.send((buffer.iova(buffer.len() - 1), vec![byte])).unwrap();
        self.done.recv_timeout(deadline()).expect("the server has written").expect("to memory that it has");
    }
}

fn untrusted() -> ControllerBuilder {
    Controller::builder().untrusted_device(true)
}

/// A program that checks data and uses it later uses its own copy.
#[test]
fn late_bytes_are_wrong_data_and_nothing_worse() {
    let hostile = Hostile::open(untrusted());
    let (namespace, _) = namespaces(&hostile.controller).remove(0);
    let mut buffer = hostile.controller.alloc(4096).unwrap();
    buffer.write_at(0, &[b'Z'; 4096]);
    namespace.write(0, &mut buffer).unwrap();
    namespace.read(0, &mut buffer).unwrap();
    let mut copy = [0; 4096];
    buffer.read_at(0, &mut copy);
    let text = str::from_utf8(&copy).expect("valid UTF-8");
    // The first byte of a four-byte character: code that relies on the earlier check runs off the end of the
    // text.
    hostile.write_late(&buffer, 0xf4);
    assert_eq!(text.chars().count(), 4096);
    let mut last = [0];
    buffer.read_at(4095, &mut last);
    assert_eq!(last, [0xf4], "the server did write");
    // The buffer gives no reference to its bytes.
    assert!(buffer.is_by_copy() && buffer.as_slice().is_none() && buffer.as_mut_slice().is_none());
    for part in [buffer.slice(0..2048), hostile.controller.heap().alloc(512).unwrap()] {
        assert!(part.as_slice().is_none(), "a part, or a buffer of the heap");
    }
    // The server has the files of the memory, of which it could take huge pages back.
    assert!(hostile.controller.heap().space().avoids_huge_pages());
    // A trusted device, which is the default, gives references.
    let trusted = Controller::open("emu:size=1M").unwrap();
    assert!(!trusted.heap().space().avoids_huge_pages());
    assert_eq!(trusted.alloc(512).unwrap().as_slice(), Some(&[0; 512][..]));
    within(deadline(), move || drop((namespace, hostile)));
}

/// All kinds of transfers work without references: whole buffers with lists, parts and chains, lists of the
/// queue's pool, admin data both ways, ranges to deallocate.
#[test]
fn an_untrusted_device_does_all_io() {
    let hostile = Hostile::open(untrusted());
    let controller = &hostile.controller;
    let (namespace, pattern) = namespaces(controller).remove(0);
    let block = namespace.block_size();
    let mut queue = create::<u64>(controller.queue_pair().depth(8));
    let mut data = vec![0; 64 << 10];
    pattern.fill(&mut data, 0, 1);
    let whole = || {
        let mut buffer = controller.alloc(data.len()).unwrap();
        buffer.write_at(0, &data);
        buffer
    };
    let chained = || {
        let (mut first, mut second) = whole().split_at(data.len() / 2);
        first.write_at(0, &data[..data.len() / 2]);
        second.write_at(0, &data[data.len() / 2..]);
        first.chain(second);
        first
    };
    for (at, buffer) in [(0, whole()), (1, whole().slice(0..data.len())), (2, chained())] {
        let slba = at * (data.len() / block) as u64;
        queue.turn().unwrap().write(&namespace, slba, buffer, at).unwrap();
        assert_eq!(only(&mut queue).0, at);
        same(controller, &namespace, slba, &data);
    }
    let range = upcie_nvme::spec::DatasetRange::new(0, (data.len() / block) as u32);
    namespace.deallocate(&[range]).unwrap();
    same(controller, &namespace, 0, &vec![0; data.len()]);
    let mut page = [0; 4096];
    let identify = upcie_nvme::spec::Command::identify(upcie_nvme::spec::Cns::CONTROLLER, 0, 0);
    controller.admin(&identify, &mut page).unwrap();
    assert!(page.iter().any(|&byte| byte != 0));
    within(deadline(), move || drop((queue, namespace, hostile)));
}

/// The program does not say that the device of such a plan is not to be trusted.
#[test]
fn a_plan_that_writes_late_makes_buffers_that_are_only_copied() {
    let options = "size=1M,serial=late-plan".parse().unwrap();
    let short = Duration::from_millis(1);
    for (fault, only_copied) in [
        (Fault::EarlyCompletion(short), true),
        (Fault::ForgedId, true),
        (Fault::EarlyPhase(short), true),
        (Fault::Drop, false),
    ] {
        let plan = FaultPlan::new(0).rule(FaultRule::new(fault).opcode(NvmOpcode::READ.0));
        let machine = Machine::new(&options).unwrap().with_faults(&plan).unwrap();
        let lockstep: Arc<dyn Device> = Lockstep::over(machine, "late").unwrap();
        let served = spawn_with_faults(&options, &plan).unwrap();
        for device in [&lockstep, &served] {
            let buffer = Heap::new(device.dma(), None, None).alloc(512).unwrap();
            assert_eq!(buffer.is_by_copy(), only_copied, "{fault:?}");
        }
        let controller = Controller::builder().from_device(served).unwrap();
        let buffer = controller.alloc(512).unwrap();
        assert_eq!(
            (buffer.is_by_copy(), buffer.as_slice().is_none()),
            (only_copied, only_copied),
            "{fault:?}"
        );
        let driven = Lockstep::new(&options).unwrap();
        assert_eq!(driven.inject(&plan).is_err(), only_copied, "{fault:?}: its driver may have buffers");
    }
    let directory = Directory::new();
    let plan = directory.path().join("plan.toml");
    fs::write(&plan, "[[fault]]\nkind = \"early-completion\"\ntime = \"1ms\"\n").unwrap();
    let address = format!("emu:size=1M,serial=late-file,faults={}", plan.display());
    let controller = Controller::open(address).unwrap();
    assert!(controller.alloc(512).unwrap().is_by_copy(), "by a file");
}

/// Asserts that the namespace holds `wanted`.
#[track_caller]
fn same(controller: &Controller, namespace: &Namespace, slba: u64, wanted: &[u8]) {
    let mut buffer = controller.alloc(wanted.len()).unwrap();
    namespace.read(slba, &mut buffer).unwrap();
    let mut found = vec![0; wanted.len()];
    buffer.read_at(0, &mut found);
    assert!(found == wanted, "the data at block {slba}");
}
