//! The client: a device behind a vfio-user socket.

use super::{
    connection::{Connection, Keepalive},
    mapper::Table,
    regions::{File, Mapped, NO_MEMORY, RegionAccessor, map_areas, region},
};
use crate::{
    Error, Failure, Result,
    device::Device,
    dma::DmaSpace,
    events::emit,
    gate::{Gate, Pass},
    irq::IrqKind,
    mmio::{Bar, RegionIo},
    pci::{Messages, allow_pin, turn_off, turn_on},
    vfio_user::wire::{CONFIG_REGION, DeviceInfo, IrqInfo, RegionInfo, SetIrqs, command, vfio},
};
use std::{
    os::{fd::BorrowedFd, unix::net::UnixStream},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use zerocopy::IntoBytes;

/// Default deadline of a server's answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// The device addresses: page 0 stays free, and the end suits every IOMMU's width.
const ADDRESSES: std::ops::RangeInclusive<u64> = 0x1000..=(1 << 47) - 1;

/// A device behind a vfio-user server.
///
/// The server receives DMA memory as file descriptors and needs no messages to access it. If it requests bytes by message
/// nevertheless, the client answers only while it waits for an answer of its own.
///
/// ```no_run
/// use upcie_core::{device::Device, vfio_user::VfioUserDevice};
///
/// let device = VfioUserDevice::connect("/run/nvme.sock")?;
/// println!("version {:x}h", device.bar(0)?.read_u32(8)?);
/// # Ok::<(), upcie_core::Error>(())
/// ```
#[derive(Debug)]
pub struct VfioUserDevice {
    connection: Arc<Connection>,
    dma: Arc<DmaSpace>,
    info: DeviceInfo,
    config: RegionInfo,
    messages: Messages,
    /// The number of interrupts with an eventfd, per kind.
    wired: Gate<[u32; 5]>,
}

/// Kinds of which a function uses one at a time.
const EXCLUSIVE: [IrqKind; 3] = [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx];
/// Length of a configuration header in bytes; a server may offer fewer, or none.
const HEADER: u64 = 64;

impl VfioUserDevice {
    /// Makes a client over a connected stream. `name` is for messages; `keepalive` is dropped after the connection is
    /// closed, with the last handle to the device.
    ///
    /// # Errors
    /// The peer is not a vfio-user server, or its device is not a PCI device.
    pub fn from_stream(
        stream: UnixStream,
        name: impl Into<String>,
        keepalive: Option<Keepalive>,
    ) -> Result<Self> {
        Self::with_deadline(stream, name, keepalive, DEADLINE)
    }

    /// Makes a client as [`from_stream`](Self::from_stream) does, with a deadline for each of the server's answers.
    ///
    /// # Errors
    /// Those of [`from_stream`](Self::from_stream).
    pub fn with_deadline(
        stream: UnixStream,
        name: impl Into<String>,
        keepalive: Option<Keepalive>,
        deadline: Duration,
    ) -> Result<Self> {
        let connection = Arc::new(Connection::new(stream, name.into(), keepalive, deadline)?);
        let info = device_info(&connection)?;
        if info.flags & vfio::DEVICE_PCI == 0 || info.regions <= CONFIG_REGION {
            return Err(Error::unusable(connection.name(), "its server does not offer a PCI device"));
        }
        let (config, _) = region(&connection, CONFIG_REGION)?;
        let page = 1 << connection.peer().pgsizes.trailing_zeros();
        tracing::debug!(
            device = connection.name(),
            regions = info.regions,
            irqs = info.irqs,
            page,
            "connected to a vfio-user server"
        );
        let mapper = Box::new(Table { connection: connection.clone(), maps: AtomicU64::new(0) });
        let dma = DmaSpace::new(connection.name(), [ADDRESSES], page, mapper);
        let (config, messages, wired) = (config.info, Messages::default(), Gate::default());
        let mut client = Self { connection, dma, info, config, messages, wired };
        client.messages = client.allow_unsupported(client.take_over())?.unwrap_or_default();
        Ok(client)
    }

    /// Brings the function into the state in which the kernel's VFIO leaves one: a former user's interrupts are turned
    /// off; memory accesses and bus mastering are turned on, and the interrupt pin is disabled.
    fn take_over(&self) -> Result<Messages> {
        if self.config.size < HEADER {
            return Ok(Messages::default());
        }
        let messages = Messages::find(self)?;
        messages.turn_off(self)?;
        // SAFETY: the connection was just made, and it is the device's only user.
        unsafe { turn_on(self) }?;
        Ok(messages)
    }

    /// Tolerates the refusal of a server whose configuration space lacks parts that PCI requires: logs a warning, because
    /// functions that depend on them may not work.
    fn allow_unsupported<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error)
                if matches!(error.failure(), Failure::Peer { .. } | Failure::Unusable { .. })
                    && self.connection.is_open() =>
            {
                let device = self.name().to_owned();
                emit(move || {
                    tracing::warn!(
                        device,
                        %error,
                        "its configuration space can't be set up: DMA and interrupts may fail"
                    );
                });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Lets the function raise interrupts of a kind, of which `count` have an eventfd; 0 turns the kind off.
    fn choose(&self, kind: IrqKind, count: usize) -> Result<()> {
        if self.config.size < HEADER {
            return Ok(());
        }
        let done = match (kind, count) {
            (IrqKind::Intx, count) => allow_pin(self, count > 0),
            (kind, 0) => self.messages.disable(self, kind),
            (kind, count) => self.messages.enable(self, kind, count),
        };
        self.allow_unsupported(done).map(drop)
    }

    /// Waits for other threads that set interrupts, at most as long as for an answer.
    fn lock_interrupts(&self, operation: &str) -> Result<Pass<'_, [u32; 5]>> {
        self.connection.enter_gate(&self.wired, operation, "other threads that set interrupts")
    }

    fn irq_info(&self, kind: IrqKind) -> Result<IrqInfo> {
        let operation = format!("querying {kind} interrupts");
        let asked = IrqInfo { argsz: size_of::<IrqInfo>() as u32, index: kind as u32, ..IrqInfo::default() };
        let reply = self.connection.request(command::GET_IRQ_INFO, &operation, &[asked.as_bytes()], &[])?;
        let (info, _) = self.connection.parse::<IrqInfo>(&operation, &reply.payload)?;
        if info.index != asked.index {
            return Err(self.connection.protocol(&operation, "another kind's description"));
        }
        Ok(info)
    }

    /// Sends one DEVICE_SET_IRQS message.
    fn set(
        &self,
        kind: IrqKind,
        flags: u32,
        start: usize,
        count: usize,
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let set = SetIrqs {
            argsz: size_of::<SetIrqs>() as u32,
            flags,
            index: kind as u32,
            start: start as u32,
            count: count as u32,
        };
        let operation = format!("setting {kind} interrupts");
        self.connection.request(command::SET_IRQS, &operation, &[set.as_bytes()], fds)?;
        Ok(())
    }

    fn config(&self) -> RegionAccessor {
        RegionAccessor {
            connection: self.connection.clone(),
            region: CONFIG_REGION,
            size: self.config.size,
            areas: Vec::new(),
        }
    }
}

// SAFETY: the server accesses only memory that `Table` gives it; areas are those that it offers for the register; a reset
// is `Ok` when the server says so; by closing the connection, or by ending, a server stops using the memory. Each
// connection is a device of its own, or the server refuses it.
unsafe impl Device for VfioUserDevice {
    fn name(&self) -> &str {
        self.connection.name()
    }

    fn dma(&self) -> &Arc<DmaSpace> {
        &self.dma
    }

    fn config_read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.config().read(offset.into(), data)
    }

    unsafe fn config_write(&self, offset: u16, data: &[u8]) -> Result<()> {
        // SAFETY: the caller of `config_write` owes what a write of the region requires.
        unsafe { self.config().write(offset.into(), data) }
    }

    fn bar(&self, index: u8) -> Result<Bar> {
        let (device, operation) = (self.name(), format!("mapping BAR {index}"));
        if index > 5 {
            return Err(Error::not_found(device, format!("there is no BAR {index}")));
        }
        let (region, file) = region(&self.connection, index.into())?;
        let size = region.info.size;
        if size == 0 {
            return Err(Error::not_found(device, format!("BAR {index} is not there")));
        }
        let mut mapped = Mapped::Areas(Vec::new());
        if region.info.flags & vfio::REGION_MMAP != 0 {
            mapped = match &file {
                File::Memory(fd) => map_areas(&self.connection, &operation, &region, fd)?,
                File::Refused => Mapped::Not(NO_MEMORY),
                File::None => Mapped::Not("its server offers it for mapping without a file"),
            };
        }
        let (areas, unmapped) = match mapped {
            Mapped::Areas(areas) => (areas, None),
            Mapped::Not(reason) => {
                let device = device.to_owned();
                emit(move || {
                    tracing::warn!(device, index, reason, "a BAR is not mapped, and accessed by messages");
                });
                (Vec::new(), Some(reason.into()))
            }
        };
        let io = RegionAccessor {
            connection: self.connection.clone(),
            region: index.into(),
            size,
            areas: areas.clone(),
        };
        let bar = Bar::new(format!("{device} BAR {index}"), size, areas, Arc::new(io));
        Ok(bar.with_unmapped_reason(unmapped))
    }

    fn irq_count(&self, kind: IrqKind) -> Result<u32> {
        if kind as u32 >= self.info.irqs {
            return Ok(0);
        }
        Ok(self.irq_info(kind)?.count)
    }

    fn set_irqs(&self, kind: IrqKind, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let count = self.irq_count(kind)?;
        if fds.len() > count as usize {
            return Err(Error::out_of_range(
                self.name(),
                format!("setting {kind} interrupts"),
                0,
                fds.len() as u64,
                count.into(),
            ));
        }
        if count == 0 {
            return Ok(());
        }
        let mut wired = self.lock_interrupts("setting interrupts")?;
        let in_use = EXCLUSIVE.into_iter().find(|&other| other != kind && wired[other as usize] > 0);
        if let Some(other) = in_use.filter(|_| !fds.is_empty() && EXCLUSIVE.contains(&kind)) {
            return Err(Error::unsupported(
                self.name(),
                format!("{kind} beside {other} interrupts"),
                format!("a function uses one kind at a time: turn {other} off first (set none)"),
            ));
        }
        let before = &mut wired[kind as usize];
        let off = || {
            // The function first: without an eventfd it must not raise the interrupt either.
            self.choose(kind, 0)?;
            self.set(kind, vfio::SET_NONE | vfio::SET_TRIGGER, 0, 0, &[])
        };
        if fds.is_empty() {
            off()?;
            *before = 0;
            return Ok(());
        }
        let batch =
            usize::try_from(self.connection.peer().max_msg_fds).unwrap_or(usize::MAX).min(MAX_SENT_FDS);
        if batch == 0 {
            return Err(Error::unsupported(
                self.name(),
                format!("{kind} interrupts"),
                "its server takes no file descriptors: poll instead",
            ));
        }
        // Unlike the kernel, a server accepts a set in several messages.
        let eventfds = vfio::SET_EVENTFD | vfio::SET_TRIGGER;
        let mut set = || -> Result<()> {
            for (index, some) in fds.chunks(batch).enumerate() {
                self.set(kind, eventfds, index * batch, some.len(), some)?;
            }
            if *before as usize > fds.len() {
                self.set(kind, eventfds, fds.len(), *before as usize - fds.len(), &[])?;
            }
            *before = fds.len() as u32;
            // The function last: from then on its interrupts arrive.
            self.choose(kind, fds.len())
        };
        let done = set();
        // All or none; the first error is returned.
        if done.is_err() && off().is_ok() {
            *before = 0;
        }
        done
    }

    fn mask_irq(&self, kind: IrqKind, index: u32, masked: bool) -> Result<()> {
        let info = self.irq_info(kind)?;
        if info.flags & vfio::IRQ_MASKABLE == 0 {
            return Err(Error::unsupported(
                self.name(),
                format!("masking {kind} interrupts"),
                "its server can't mask them",
            ));
        }
        let action = if masked { vfio::SET_MASK } else { vfio::SET_UNMASK };
        self.set(kind, vfio::SET_NONE | action, index as usize, 1, &[])
    }

    fn has_ended(&self) -> bool {
        self.connection.is_closed_by_server()
    }

    unsafe fn reset(&self) -> Result<()> {
        if self.info.flags & vfio::DEVICE_RESET == 0 {
            return Err(Error::unsupported(self.name(), "reset", "its server does not offer it"));
        }
        // Until the end: of two threads that change a register of configuration space at once, one would undo the other's change.
        let wired = self.lock_interrupts("resetting the device")?;
        self.connection.request(command::RESET, "resetting the device", &[], &[])?;
        // The reset includes configuration space; the server keeps the eventfds.
        self.allow_unsupported(self.take_over())?;
        for kind in EXCLUSIVE.into_iter().filter(|&kind| wired[kind as usize] > 0) {
            self.choose(kind, wired[kind as usize] as usize)?;
        }
        Ok(())
    }
}

impl Drop for VfioUserDevice {
    /// Turns interrupts and bus mastering off. A server that does not answer any more, or that has closed the connection,
    /// no longer uses the device anyway.
    fn drop(&mut self) {
        if self.config.size < HEADER || !self.connection.is_open() {
            return;
        }
        let wired = *self.wired.get_mut();
        let mut irqs = EXCLUSIVE.into_iter().filter(|&kind| wired[kind as usize] > 0);
        let closed = irqs.try_for_each(|kind| self.set_irqs(kind, &[]));
        if let Err(error) = closed.and_then(|()| turn_off(self)) {
            tracing::debug!(device = self.name(), %error, "closing failed");
        }
    }
}

/// The largest number of descriptors in one message on Linux.
const MAX_SENT_FDS: usize = 253;

fn device_info(connection: &Connection) -> Result<DeviceInfo> {
    let operation = "requesting the device's description";
    let asked = DeviceInfo { argsz: size_of::<DeviceInfo>() as u32, ..DeviceInfo::default() };
    let reply = connection.request(command::GET_INFO, operation, &[asked.as_bytes()], &[])?;
    Ok(connection.parse(operation, &reply.payload)?.0)
}
