//! The client and the server with each other, and each against a misbehaving peer.

mod hostile_client;
mod hostile_irqs;
mod hostile_regions;
mod hostile_server;
mod noise;
mod round_trip;
mod sessions;
mod setup;
mod sockets;
mod waiting;

use super::{
    VfioUserDevice,
    capabilities::Capabilities,
    server::{Backend, CONFIG_REGION, Client, Layout, Mappable, RegionLayout, Server},
    socket::{Channel, HEADERS, Message, message},
    wire::{Header, MAJOR, MINOR, Version, command, flags},
};
use crate::{
    device::Device,
    irq::IrqKind,
    memory::{Memory, PageSize},
    mmio::{Bar, Mapping, Register},
};
use nix::errno::Errno;
use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use zerocopy::IntoBytes;

/// Registers of the device: BAR 0, outside of the doorbell page.
const SOURCE: u64 = 0x00;
const TARGET: u64 = 0x08;
const LENGTH: u64 = 0x10;
/// A write copies `LENGTH` bytes from `SOURCE` to `TARGET`.
const GO: u64 = 0x18;
/// The error number of the last copy.
const STATUS: u64 = 0x20;
/// A write of n raises MSI-X interrupt n.
const RAISE: u64 = 0x28;
/// A write drives the pin; a write of 0 stops driving it.
const PIN: u64 = 0x30;
/// The doorbell, in the mapped page. A new value raises MSI-X interrupt 0.
const DOORBELL: u64 = 0x1000;

// A test is its device's only driver, and the device copies memory without references.

fn reset(device: &dyn Device) -> crate::Result<()> {
    // SAFETY: a test is its device's only driver, and the device accesses only memory without references.
    unsafe { device.reset() }
}

fn config_write(device: &dyn Device, offset: u16, data: &[u8]) -> crate::Result<()> {
    // SAFETY: a test is its device's only driver, and the device accesses only memory without references.
    unsafe { device.config_write(offset, data) }
}

fn write_u32(bar: &Bar, offset: u64, value: u32) -> crate::Result<()> {
    // SAFETY: a test is its device's only driver, and the device accesses only memory without references.
    unsafe { bar.write_u32(offset, value) }
}

fn write_u64(bar: &Bar, offset: u64, value: u64) -> crate::Result<()> {
    // SAFETY: a test is its device's only driver, and the device accesses only memory without references.
    unsafe { bar.write_u64(offset, value) }
}

fn ring(doorbell: &Register<u32>, value: u32) {
    // SAFETY: a test is its device's only driver, and the device accesses only memory without references.
    unsafe { doorbell.write(value) }
}

/// A device that copies memory.
struct CopyDevice {
    layout: Layout,
    registers: Vec<u8>,
    large: Vec<u8>,
    doorbell: Register<u32>,
    seen: u32,
    resets: Arc<AtomicUsize>,
    polls: Arc<AtomicUsize>,
}

impl CopyDevice {
    fn new() -> Self {
        let memory = Arc::new(Memory::new(0x4000, PageSize::Small).unwrap());
        // SAFETY: the device's own memory, to which no references exist.
        let file = unsafe { memory.file() };
        let mapping = Arc::new(Mapping::map(file, 0, memory.len(), "device").unwrap());
        let mut layout = Layout { irqs: [1, 0, 20, 1, 1], ..Layout::default() };
        let mappable = Mappable { memory, areas: vec![(DOORBELL, 0x1000)] };
        layout.regions[0] = RegionLayout { size: 0x4000, mappable: Some(mappable) };
        layout.regions[2] = RegionLayout { size: 3 << 20, mappable: None };
        layout.regions[CONFIG_REGION as usize] = RegionLayout { size: 4096, mappable: None };
        Self {
            layout,
            registers: vec![0; 0x1000],
            large: vec![0; 3 << 20],
            doorbell: Register::new(&mapping, DOORBELL as usize).unwrap(),
            seen: 0,
            resets: Arc::default(),
            polls: Arc::default(),
        }
    }

    fn register(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.registers[at as usize..][..8].try_into().unwrap())
    }

    fn set(&mut self, at: u64, value: u64) {
        self.registers[at as usize..][..8].copy_from_slice(&value.to_le_bytes());
    }

    fn copy(&self, client: &mut Client) -> std::io::Result<()> {
        let mut data = vec![0; self.register(LENGTH) as usize];
        client.read(self.register(SOURCE), &mut data)?;
        client.write(self.register(TARGET), &data)
    }
}

impl Backend for CopyDevice {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read(&mut self, _: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        let from = match region {
            0 if offset >= DOORBELL => return Err(Errno::EIO.into()),
            0 => &self.registers,
            2 => &self.large,
            _ => {
                data.fill(0xc0);
                return Ok(());
            }
        };
        data.copy_from_slice(
            from.get(offset as usize..).and_then(|rest| rest.get(..data.len())).ok_or(Errno::EIO)?,
        );
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let to = match region {
            0 => &mut self.registers,
            2 => &mut self.large,
            _ => return Err(Errno::EPERM.into()),
        };
        to.get_mut(offset as usize..)
            .and_then(|rest| rest.get_mut(..data.len()))
            .ok_or(Errno::EIO)?
            .copy_from_slice(data);
        match (region, offset) {
            (0, GO) => {
                let number = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO) as u64;
                let status = self.copy(client).err().map_or(0, number);
                self.set(STATUS, status);
            }
            (0, RAISE) => client.trigger(IrqKind::Msix, self.register(RAISE) as u32),
            (0, PIN) => client.set_pin(self.register(PIN) != 0),
            _ => {}
        }
        Ok(())
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.polls.fetch_add(1, Ordering::Relaxed);
        let now = self.doorbell.read();
        if now == self.seen {
            return 0;
        }
        self.seen = now;
        client.trigger(IrqKind::Msix, 0);
        1
    }

    fn reset(&mut self) {
        self.registers.fill(0);
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

/// Joins the server's thread when the connection is closed.
struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        self.0.take().unwrap().join().unwrap();
    }
}

/// Makes a client of a device that runs in its own thread.
fn device() -> (VfioUserDevice, Arc<AtomicUsize>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut device = CopyDevice::new();
    let resets = device.resets.clone();
    let server = std::thread::spawn(move || {
        Server::new().serve_stream(theirs, &mut device, &AtomicBool::new(false)).unwrap();
    });
    (VfioUserDevice::from_stream(ours, "device", Some(Box::new(Joined(Some(server))))).unwrap(), resets)
}

const SOON: Duration = Duration::from_secs(5);
/// Returns a deadline later than any event in these tests.
fn soon() -> Instant {
    Instant::now() + SOON
}

/// One end of a connection, message by message.
struct Raw(Channel);

impl Raw {
    fn new(stream: UnixStream) -> Self {
        Self(Channel::new(stream, (4 << 20) + HEADERS))
    }

    fn next(&mut self) -> Message {
        self.0.recv(soon()).unwrap()
    }

    fn send(&mut self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.0.send(message(header, &[payload]), fds).unwrap();
        self.0.flush_until(soon()).unwrap();
    }

    /// Sends a request and returns the answer's payload, or its error.
    fn ask(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Vec<u8>, Errno> {
        self.send(Header { id: 77, command, ..Header::default() }, payload, fds);
        let reply = self.next();
        assert_eq!((reply.header.id, reply.header.command, reply.header.is_reply()), (77, command, true));
        match reply.header.flags & flags::ERROR {
            0 => Ok(reply.payload),
            _ => Err(Errno::from_raw(reply.header.error as i32)),
        }
    }

    fn reply(&mut self, request: &Message, payload: &[u8]) {
        self.reply_with(request, payload, &[]);
    }

    fn reply_with(&mut self, request: &Message, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        self.send(Header { flags: flags::REPLY, ..request.header }, payload, fds);
    }

    fn refuse(&mut self, request: &Message, errno: Errno) {
        let flags = flags::REPLY | flags::ERROR;
        self.send(Header { flags, error: errno as u32, ..request.header }, &[], &[]);
    }

    /// Negotiates the version as a client.
    fn negotiate(&mut self, capabilities: Capabilities) {
        let version = Version { major: MAJOR, minor: MINOR };
        let payload = [version.as_bytes(), capabilities.to_json().as_bytes()].concat();
        self.ask(command::VERSION, &payload, &[]).unwrap();
    }
}
