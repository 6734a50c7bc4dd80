//! The server against foreign clients: all that the protocol allows, and much that it forbids.

use super::*;
use crate::{
    irq::EventFd,
    vfio_user::wire::{
        DeviceInfo, DmaAccess, DmaMap, DmaUnmap, IrqInfo, RegionAccess, RegionInfo, SetIrqs, dma, split, vfio,
    },
};
use std::io::Write;

/// A device's server, and a raw client that has negotiated the version.
pub(super) struct Session {
    raw: Raw,
    stream: UnixStream,
    server: JoinHandle<crate::Result<()>>,
    resets: Arc<AtomicUsize>,
    polls: Arc<AtomicUsize>,
}

fn session(deadline: Duration, capabilities: Capabilities) -> Session {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut device = CopyDevice::new();
    let (resets, polls) = (device.resets.clone(), device.polls.clone());
    let server = std::thread::spawn(move || {
        Server::new().deadline(deadline).serve_stream(theirs, &mut device, &AtomicBool::new(false))
    });
    let mut raw = Raw::new(ours.try_clone().unwrap());
    raw.negotiate(capabilities);
    Session { raw, stream: ours, server, resets, polls }
}

pub(super) fn default_session() -> Session {
    session(SOON, Capabilities::default())
}

impl Session {
    fn ask<T: IntoBytes + zerocopy::Immutable>(
        &mut self,
        command: u16,
        payload: T,
    ) -> Result<Vec<u8>, Errno> {
        self.raw.ask(command, payload.as_bytes(), &[])
    }

    fn map(&mut self, address: u64, size: u64, memory: Option<(&Memory, u64)>) -> Result<Vec<u8>, Errno> {
        let offset = memory.map_or(0, |(_, offset)| offset);
        let map = DmaMap { argsz: 32, flags: dma::READ | dma::WRITE, offset, address, size };
        // SAFETY: a test's own memory, to which no references exist.
        let fds: Vec<_> = memory.iter().map(|(memory, _)| unsafe { memory.file() }).collect();
        self.raw.ask(command::DMA_MAP, map.as_bytes(), &fds)
    }

    fn unmap(&mut self, address: u64, size: u64, flags: u32) -> Result<Vec<u8>, Errno> {
        self.ask(command::DMA_UNMAP, DmaUnmap { argsz: 24, flags, address, size })
    }

    pub(super) fn write(&mut self, offset: u64, value: u64) -> Result<Vec<u8>, Errno> {
        self.raw.ask(command::REGION_WRITE, &write(offset, value), &[])
    }

    fn read(&mut self, offset: u64) -> u64 {
        let reply = self.ask(command::REGION_READ, RegionAccess { offset, region: 0, count: 8 }).unwrap();
        u64::from_le_bytes(reply[16..].try_into().unwrap())
    }

    /// Makes the device copy, and returns its error number.
    fn copy(&mut self, from: u64, to: u64, len: u64) -> u64 {
        for (register, value) in [(SOURCE, from), (TARGET, to), (LENGTH, len), (GO, 1)] {
            self.write(register, value).unwrap();
        }
        self.read(STATUS)
    }

    pub(super) fn set(
        &mut self,
        set: SetIrqs,
        data: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, Errno> {
        self.raw.ask(command::SET_IRQS, &[set.as_bytes(), data].concat(), fds)
    }

    /// Disconnects, and returns the result of the session.
    pub(super) fn leave(self) -> crate::Result<()> {
        drop((self.raw, self.stream));
        let end = self.server.join().unwrap();
        assert_eq!(self.resets.load(Ordering::SeqCst), 1, "once, at the end");
        end
    }
}

/// Makes a REGION_WRITE of a register.
fn write(offset: u64, value: u64) -> Vec<u8> {
    let access = RegionAccess { offset, region: 0, count: 8 };
    [access.as_bytes(), &value.to_le_bytes()].concat()
}

const PAGE: u64 = 4096;

#[test]
fn mappings_can_be_split_and_adjacent() {
    let mut session = default_session();
    let memory = Memory::new(8 * 4096, PageSize::Small).unwrap();
    session.map(0x10000, 8 * PAGE, Some((&memory, 0))).unwrap();
    assert_eq!(session.map(0x11000, PAGE, Some((&memory, 0))), Err(Errno::EEXIST));
    assert_eq!(session.map(0x40000, 9 * PAGE, Some((&memory, 0))), Err(Errno::EINVAL));
    assert_eq!(session.map(0x40000, PAGE, Some((&memory, 8 * PAGE))), Err(Errno::EINVAL));
    // The file's second half again, directly behind: one copy crosses both mappings.
    session.map(0x18000, 4 * PAGE, Some((&memory, 4 * PAGE))).unwrap();
    assert_eq!(session.copy(0x10000, 0x17000, 2 * PAGE), 0);

    assert_eq!(session.unmap(0x12000, 2 * PAGE, 0).unwrap().len(), 24);
    assert_eq!(session.copy(0x10000, 0x14000, 2 * PAGE), 0);
    assert_eq!(session.copy(0x10000, 0x12000, 8), Errno::EFAULT as u64);
    assert_eq!(session.copy(0x11ff8, 0x14000, 16), Errno::EFAULT as u64);
    let (gone, _) = split::<DmaUnmap>(&session.unmap(0x12000, PAGE, 0).unwrap()).unwrap();
    assert_eq!(gone.size, 0, "nothing is mapped there any more");
    assert_eq!(session.unmap(0x14000, PAGE, 1), Err(Errno::ENOTSUP), "dirty pages");
    assert_eq!(session.unmap(0x14000, PAGE, dma::UNMAP_ALL), Err(Errno::EINVAL));
    session.unmap(0x14000, 8 * PAGE, 0).unwrap();
    assert_eq!(session.copy(0x10000, 0x11000, PAGE), 0);
    session.unmap(0, 0, dma::UNMAP_ALL).unwrap();
    assert_eq!(session.copy(0x10000, 0x11000, 8), Errno::EFAULT as u64);
    session.leave().unwrap();
}

#[test]
fn memory_by_message_with_requests_in_between() {
    let mut session = session(SOON, Capabilities { max_data_xfer_size: 4096, ..Capabilities::default() });
    session.map(0x10000, 0x10000, None).unwrap();
    for (register, value) in [(SOURCE, 0x10010), (TARGET, 0x18000), (LENGTH, 10000)] {
        session.write(register, value).unwrap();
    }
    session.raw.send(
        Header { id: 1, command: command::REGION_WRITE, ..Header::default() },
        &write(GO, 1),
        &[],
    );
    // Further requests, while the first waits for this client.
    for id in 2..5 {
        let payload = write(SOURCE, id.into());
        session.raw.send(Header { id, command: command::REGION_WRITE, ..Header::default() }, &payload, &[]);
    }
    let (mut reads, mut written, mut order) = (Vec::new(), Vec::new(), Vec::new());
    while order.len() < 4 {
        let message = session.raw.next();
        if message.header.is_reply() {
            order.push(message.header.id);
            continue;
        }
        let (access, data) = split::<DmaAccess>(&message.payload).unwrap();
        let mut reply = access.as_bytes().to_vec();
        if message.header.command == command::DMA_READ {
            reads.push((access.address, access.count));
            reply.extend((0..access.count).map(|at| (access.address + at) as u8));
        } else {
            assert_eq!(access.address, 0x18000 + written.len() as u64);
            written.extend_from_slice(data);
        }
        session.raw.reply(&message, &reply);
    }
    assert_eq!(order, [1, 2, 3, 4]);
    assert_eq!(reads, [(0x10010, 4096), (0x11010, 4096), (0x12010, 1808)]);
    assert!(
        written.len() == 10000 && written.iter().enumerate().all(|(at, &byte)| byte == (at + 0x10) as u8)
    );
    assert_eq!((session.read(STATUS), session.read(SOURCE)), (0, 4));
    session.leave().unwrap();
}

#[test]
fn a_client_may_refuse_its_memory_but_not_be_silent() {
    let mut session = session(Duration::from_millis(50), Capabilities::default());
    session.map(0x10000, 0x10000, None).unwrap();
    session.write(SOURCE, 0x10000).unwrap();
    session.write(LENGTH, 8).unwrap();
    let go = |session: &mut Session| {
        session.raw.send(
            Header { id: 1, command: command::REGION_WRITE, ..Header::default() },
            &write(GO, 1),
            &[],
        );
        session.raw.next()
    };
    let asked = go(&mut session);
    session.raw.refuse(&asked, Errno::EPERM);
    assert!(session.raw.next().header.is_reply());
    assert_eq!(session.read(STATUS), Errno::EPERM as u64);
    go(&mut session);
    // Without an answer the server gives up.
    while session.raw.0.recv(soon()).is_ok() {}
    assert!(session.leave().unwrap_err().to_string().contains("longer than"));
}

#[test]
fn descriptions_and_their_sizes_are_correct() {
    let mut session = default_session();
    let info = DeviceInfo { argsz: 16, ..DeviceInfo::default() };
    let (reply, _) = split::<DeviceInfo>(&session.ask(command::GET_INFO, info).unwrap()).unwrap();
    assert_eq!((reply.flags, reply.regions, reply.irqs), (vfio::DEVICE_PCI | vfio::DEVICE_RESET, 9, 5));
    assert_eq!(session.ask(command::GET_INFO, DeviceInfo { argsz: 15, ..info }), Err(Errno::EINVAL));

    let asked = RegionInfo { argsz: 32, ..RegionInfo::default() };
    let short = session.ask(command::GET_REGION_INFO, asked).unwrap();
    let (info, _) = split::<RegionInfo>(&short).unwrap();
    assert_eq!((short.len(), info.argsz, info.cap_offset, info.size), (32, 64, 0, 0x4000));
    assert_eq!(
        info.flags & vfio::REGION_CAPS,
        0,
        "no capabilities: QEMU treats an offset of 0 with the flag as an error"
    );
    let asked = RegionInfo { argsz: info.argsz, ..asked };
    assert_eq!(session.ask(command::GET_REGION_INFO, asked).unwrap().len(), 64);
    assert!(session.ask(command::GET_REGION_INFO, RegionInfo { argsz: 31, ..asked }).is_err());
    assert!(session.ask(command::GET_REGION_INFO, RegionInfo { index: 9, ..asked }).is_err());

    let irq = IrqInfo { argsz: 16, index: 2, ..IrqInfo::default() };
    let (reply, _) = split::<IrqInfo>(&session.ask(command::GET_IRQ_INFO, irq).unwrap()).unwrap();
    assert_eq!((reply.count, reply.flags), (20, vfio::IRQ_EVENTFD | vfio::IRQ_MASKABLE));
    assert!(session.ask(command::GET_IRQ_INFO, IrqInfo { index: 5, ..irq }).is_err());
    session.leave().unwrap();
}

#[test]
fn invalid_accesses_and_commands_are_refused() {
    let mut session = default_session();
    let access = |offset, region, count| RegionAccess { offset, region, count };
    for bad in [
        access(0x4000, 0, 1),
        access(0x3fff, 0, 2),
        access(u64::MAX, 0, 2),
        access(0, 9, 1),
        access(0, 1, 1),
        access(0, 2, (1 << 20) + 1),
        access(0, u32::MAX, u32::MAX),
    ] {
        assert_eq!(session.ask(command::REGION_READ, bad), Err(Errno::EINVAL), "{bad:?}");
    }
    assert_eq!(session.ask(command::REGION_READ, access(0x4000, 0, 0)).unwrap().len(), 16);
    assert_eq!(session.ask(command::REGION_READ, access(1, 2, 1 << 20)).unwrap().len(), 16 + (1 << 20));
    assert_eq!(
        session.ask(command::REGION_READ, access(DOORBELL, 0, 4)),
        Err(Errno::EIO),
        "the backend's error"
    );
    assert_eq!(session.ask(command::REGION_WRITE, access(0, 0, 4)), Err(Errno::EINVAL), "no data");
    assert_eq!(session.raw.ask(command::REGION_READ, &[0; 15], &[]), Err(Errno::EINVAL));
    for command in
        [0, command::GET_REGION_IO_FDS, command::DMA_READ, command::DMA_WRITE, 14, 15, 16, 99, u16::MAX]
    {
        assert_eq!(session.raw.ask(command, &[0; 64], &[]), Err(Errno::ENOTSUP), "{command}");
    }
    assert_eq!(session.raw.ask(command::VERSION, &[0; 4], &[]), Err(Errno::EINVAL), "twice");
    session.leave().unwrap();
}

#[test]
fn a_request_without_reply_gets_none() {
    let mut session = default_session();
    let silent =
        Header { id: 1, command: command::REGION_WRITE, flags: flags::NO_REPLY, ..Header::default() };
    session.raw.send(silent, &write(SOURCE, 5), &[]);
    session.raw.send(silent, b"bad", &[]);
    assert_eq!(session.read(SOURCE), 5);
    session.leave().unwrap();
}

#[test]
fn a_stalled_client_is_dropped_and_polling_continues() {
    let mut session = session(Duration::from_millis(500), Capabilities::default());
    let irq = EventFd::new().unwrap();
    let flags = vfio::SET_EVENTFD | vfio::SET_TRIGGER;
    session.set(SetIrqs { argsz: 20, flags, index: 2, start: 0, count: 1 }, &[], &[irq.as_fd()]).unwrap();
    session.stream.write_all(&[0; 9]).unwrap();
    let before = session.polls.load(Ordering::Relaxed);
    // Receives nothing until the server closes the connection.
    assert!(session.raw.0.recv(soon()).is_err());
    // A busy machine may have time for few polls.
    assert!(session.polls.load(Ordering::Relaxed) > before + 1);
    assert!(session.leave().unwrap_err().to_string().contains("longer than"));
}

#[test]
fn a_client_that_receives_no_answers_is_dropped() {
    let mut session = session(Duration::from_millis(50), Capabilities::default());
    let header = Header { command: command::REGION_READ, ..Header::default() };
    let read = RegionAccess { offset: 0, region: 2, count: 1 << 20 };
    for _ in 0..8 {
        session.raw.send(header, read.as_bytes(), &[]);
    }
    assert_eq!(
        std::mem::replace(&mut session.raw, Raw::new(UnixStream::pair().unwrap().0)).0.stalled_since(),
        None
    );
    let mut poll = [nix::poll::PollFd::new(session.stream.as_fd(), nix::poll::PollFlags::empty())];
    // The server's hang-up is the only event to wait for.
    nix::poll::poll(&mut poll, 5000_u16).unwrap();
    assert!(session.leave().unwrap_err().to_string().contains("longer than"));
}

#[test]
fn a_client_without_a_version_is_dropped() {
    let first = |bytes: &[u8]| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let server = Server::new().deadline(Duration::from_millis(20));
            server.serve_stream(theirs, &mut CopyDevice::new(), &AtomicBool::new(false))
        });
        ours.write_all(bytes).unwrap();
        server.join().unwrap().unwrap_err().to_string()
    };
    assert!(first(b"").contains("longer than"));
    assert!(first(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").contains("broke the protocol"));
    let reset = Header { command: command::RESET, ..Header::default() };
    assert!(first(&message(reset, &[])).contains("version"));
    let version = Header { command: command::VERSION, ..Header::default() };
    assert!(first(&message(version, &[Version { major: 1, minor: 0 }.as_bytes()])).contains("version"));
    assert!(first(&message(version, &[&[0; 4], b"{"])).contains("version"));
}

#[test]
fn an_idle_server_sleeps_after_work_too() {
    let mut session = default_session();
    let asked = RegionInfo { argsz: 64, ..RegionInfo::default() };
    session.raw.send(
        Header { command: command::GET_REGION_INFO, ..Header::default() },
        asked.as_bytes(),
        &[],
    );
    let file = session.raw.next().fds.remove(0);
    let mapping = Arc::new(Mapping::map(file.as_fd(), DOORBELL, 0x1000, "doorbell").unwrap());
    ring(&Register::new(&mapping, 0).unwrap(), 1);
    let end = soon();
    loop {
        let before = session.polls.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(10));
        // Sleeps of 100 µs make about 100 polls, spinning makes a hundred thousand and more.
        if session.polls.load(Ordering::Relaxed) - before < 1000 {
            break;
        }
        assert!(Instant::now() < end, "it never sleeps");
    }
    session.leave().unwrap();
}
