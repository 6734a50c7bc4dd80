//! Embedded controllers with changed registers.

use std::{
    os::unix::net::UnixStream,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};
use upcie_core::vfio_user::{
    VfioUserDevice,
    server::{Backend, CONFIG_REGION, Client, Layout, Server},
};
use upcie_nvme::{Controller, ControllerBuilder, Result, emu::Emulator};

/// Changes each access to the registers, which are accessed by message.
pub trait Registers: Send + 'static {
    /// Changes bytes that were read at an offset into BAR 0.
    fn read(&mut self, offset: u64, data: &mut [u8]);

    /// Changes bytes that were read at an offset into configuration space.
    fn read_config(&mut self, offset: u64, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// Sees bytes that are to be written at an offset; `false` keeps them from the controller.
    fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let _ = (offset, data);
        true
    }
}

/// Changes a register of 32 bits that was read.
///
/// # Panics
/// Panics if other bytes were read than those of the register.
pub fn change(data: &mut [u8], change: impl FnOnce(u32) -> u32) {
    let bits = u32::from_le_bytes((&*data).try_into().expect("a register of 32 bits"));
    data.copy_from_slice(&change(bits).to_le_bytes());
}

/// A controller with such registers.
struct Odd<R> {
    inner: Emulator,
    registers: R,
}

impl<R: Registers> Backend for Odd<R> {
    fn layout(&self) -> &Layout {
        self.inner.layout()
    }

    fn read(
        &mut self,
        client: &mut Client,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> std::io::Result<()> {
        self.inner.read(client, region, offset, data)?;
        match region {
            0 => self.registers.read(offset, data),
            CONFIG_REGION => self.registers.read_config(offset, data),
            _ => {}
        }
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        if region == 0 && !self.registers.write(offset, data) {
            return Ok(());
        }
        self.inner.write(client, region, offset, data)
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        self.inner.poll(client)
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}

/// Brings up a controller of the options `emu` with changed registers and this timeout. Its server ends with its
/// connection.
///
/// # Errors
/// Fails as bring-up does.
///
/// # Panics
/// Panics if the controller can't be made or connected to.
pub fn open(emu: &str, registers: impl Registers, timeout: Duration) -> Result<Controller> {
    open_by(Controller::builder().timeout(timeout), emu, registers, timeout)
}

/// Brings up a controller like [`open`], by a builder. The server answers each message within `timeout`.
///
/// # Errors
/// Fails as bring-up does.
///
/// # Panics
/// Panics like [`open`].
pub fn open_by(
    builder: ControllerBuilder,
    emu: &str,
    registers: impl Registers,
    timeout: Duration,
) -> Result<Controller> {
    let inner = Emulator::new(&emu.parse().expect("options")).expect("a controller");
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    thread::spawn(move || {
        let never = AtomicBool::new(false);
        // The client notices the end, whatever its reason.
        let _ = Server::new().serve_stream(theirs, &mut Odd { inner, registers }, &never);
    });
    let client = VfioUserDevice::with_deadline(ours, "odd", None, timeout).expect("a server");
    builder.from_device(Arc::new(client))
}
