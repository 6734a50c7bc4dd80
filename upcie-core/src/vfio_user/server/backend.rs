//! The interface of a device in software to its server.

use super::Client;
use crate::memory::Memory;
use std::{io, sync::Arc};

/// One region of a device: a BAR or its configuration space.
#[derive(Debug, Clone, Default)]
pub struct RegionLayout {
    /// Size in bytes; 0 if the device has no such region.
    pub size: u64,
    /// The parts that a client may map. All others are accessed by message only.
    pub mappable: Option<Mappable>,
}

/// Memory behind parts of a region.
#[derive(Debug, Clone)]
pub struct Mappable {
    /// The byte at offset `o` of this memory is the byte at `o` of the region.
    pub memory: Arc<Memory>,
    /// Offset and length of each part in bytes, page aligned.
    pub areas: Vec<(u64, u64)>,
}

/// The regions and interrupts of a device, and what it demands of its clients; constant while a client is served.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// Regions by number: BAR 0–5, ROM, configuration space, VGA.
    pub regions: [RegionLayout; 9],
    /// Number of interrupts by kind ([`IrqKind`](crate::irq::IrqKind)'s numbers).
    pub irqs: [u32; 5],
    /// Refuses memory that a client maps without a descriptor (DMA_MAP fails with `ENOTSUP`). Such memory is accessed by
    /// messages, and each access waits for the client's answer, up to the server's
    /// [deadline](super::Server::deadline): set this for a device whose turn keeps other clients' devices waiting.
    pub mapped_memory_only: bool,
}

/// A device behind a server. One thread calls all of its functions.
///
/// It can write to its client's memory at any time ([`Client::write`]). The trait is safe to implement, because all that it reaches
/// came through a socket, and the client, in whatever process, decides how far it trusts the peer. A program that serves a device
/// and also drives it writes to its own memory by way of the system, as through `/proc/self/mem`: Rust's guarantees end there. Such a
/// device writes to a buffer only while a command that names it is in flight, or its driver must not trust it
/// ([`Heap::by_copy`](crate::dma::Heap::by_copy)).
///
/// # Examples
/// A device with 4 KiB of memory behind BAR 0, and a client that reads it:
/// ```
/// use std::{io, os::unix::net::UnixStream, sync::atomic::AtomicBool, thread};
/// use upcie_core::{
///     device::Device,
///     vfio_user::{
///         VfioUserDevice,
///         server::{Backend, CONFIG_REGION, Client, Layout, Server},
///     },
/// };
///
/// struct Scratch {
///     layout: Layout,
///     memory: Vec<u8>,
///     config: Vec<u8>,
/// }
///
/// impl Scratch {
///     fn bytes(&mut self, region: u32) -> &mut [u8] {
///         if region == CONFIG_REGION { &mut self.config } else { &mut self.memory }
///     }
/// }
///
/// impl Backend for Scratch {
///     fn layout(&self) -> &Layout {
///         &self.layout
///     }
///
///     fn read(&mut self, _: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
///         data.copy_from_slice(&self.bytes(region)[offset as usize..][..data.len()]);
///         Ok(())
///     }
///
///     fn write(&mut self, _: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
///         self.bytes(region)[offset as usize..][..data.len()].copy_from_slice(data);
///         Ok(())
///     }
///
///     fn poll(&mut self, _: &mut Client) -> usize {
///         0 // it has no commands
///     }
///
///     fn reset(&mut self) {
///         self.memory.fill(0);
///     }
/// }
///
/// let mut layout = Layout::default();
/// layout.regions[0].size = 4096;
/// layout.regions[CONFIG_REGION as usize].size = 256;
/// let mut scratch = Scratch { layout, memory: vec![0; 4096], config: vec![0; 256] };
/// scratch.memory[8] = 17;
/// let (ours, theirs) = UnixStream::pair()?;
/// let server = thread::spawn(move || {
///     Server::new().serve_stream(theirs, &mut scratch, &AtomicBool::new(false))
/// });
/// let device = VfioUserDevice::from_stream(ours, "scratch", None)?;
/// let bar = device.bar(0)?;
/// assert_eq!(bar.read_u32(8)?, 17);
/// drop((bar, device)); // the client leaves
/// server.join().expect("a server that does not panic")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Backend {
    /// Prepares the device for its next client; the server calls it before it asks for the [layout](Self::layout). A device with
    /// [mappable](Mappable) memory has to put new memory behind its regions here. A client that is gone can keep its mappings of
    /// the former memory, and would write to the registers of the next client. Does nothing by default.
    ///
    /// # Errors
    /// The reason why the device can't be served now. The connection is closed, and the server goes on with the next client.
    fn begin_session(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Returns its regions and interrupts.
    fn layout(&self) -> &Layout;

    /// Reads `data.len()` bytes at `offset` of a region for a client; the range is within the region.
    ///
    /// # Errors
    /// The error for the client, which gets its number ([`io::Error::raw_os_error`]), or EIO if it has none.
    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset` of a region for a client; the range is within the region.
    ///
    /// # Errors
    /// The error for the client, which gets its number ([`io::Error::raw_os_error`]), or EIO if it has none.
    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Polls the doorbells and processes their commands, and returns how many it processed (0: none). It is called
    /// repeatedly without pause, and must return after a bounded batch.
    fn poll(&mut self, client: &mut Client) -> usize;

    /// Updates the [pin](Client::set_pin) to the client's changes of the device's memory since the last poll, before the
    /// client sets, masks or unmasks interrupts. A pin that is still driven although its cause was acknowledged would
    /// interrupt the client at each unmasking. Does nothing by default.
    fn update_interrupts(&mut self, client: &mut Client) {
        let _ = client;
    }

    /// Resets the device, or its client is gone: it returns to the state after power-on, and uses none of the client's
    /// memory any more.
    fn reset(&mut self);
}
