//! An embedded controller in whose place another one answers from its first reset on.

use crate::own_memory::{part, serve};
use std::{io, time::Instant};
use upcie_core::vfio_user::server::{Backend, Client, Layout};
use upcie_nvme::{
    Controller,
    emu::{Machine, Region},
    spec::offset,
};

/// The distance of two doorbells, and the number of those that are passed on.
const STRIDE: u64 = 32;
const DOORBELLS: usize = 32;

/// Two controllers, of which the client has mapped the doorbells of the first.
struct Replaced {
    before: Machine,
    after: Machine,
    is_replaced: bool,
    /// The doorbells that `after` has got.
    doorbells: [u32; DOORBELLS],
    since: Instant,
}

impl Replaced {
    fn now(&mut self) -> &mut Machine {
        if self.is_replaced { &mut self.after } else { &mut self.before }
    }

    fn pass_doorbells_on(&mut self, client: &mut Client) {
        for (index, last) in self.doorbells.iter_mut().enumerate() {
            let at = offset::DOORBELLS as u64 + index as u64 * STRIDE;
            let mut value = [0; 4];
            self.before.read(client, Region::Registers, at, &mut value);
            if std::mem::replace(last, u32::from_le_bytes(value)) != u32::from_le_bytes(value) {
                self.after.write(client, Region::Registers, at, &value);
            }
        }
    }
}

impl Backend for Replaced {
    fn layout(&self) -> &Layout {
        self.before.layout()
    }

    fn read(&mut self, client: &mut Client, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.now().read(client, part(region)?, offset, data);
        Ok(())
    }

    fn write(&mut self, client: &mut Client, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let disables = (region, offset) == (0, offset::CC as u64) && data[0] & 1 == 0;
        let mut configuration = [0];
        self.now().read(client, Region::Registers, offset::CC as u64, &mut configuration);
        if disables && configuration[0] & 1 != 0 && !self.is_replaced {
            // Its doorbells are 0 then, as those of the other controller.
            self.before.reset();
            self.is_replaced = true;
        }
        self.now().write(client, part(region)?, offset, data);
        Ok(())
    }

    fn poll(&mut self, client: &mut Client) -> usize {
        if self.is_replaced {
            self.pass_doorbells_on(client);
        }
        let since = self.since;
        self.now().step(client, || since.elapsed())
    }

    fn update_interrupts(&mut self, client: &mut Client) {
        self.now().update_interrupts(client);
    }

    fn reset(&mut self) {
        self.now().reset();
    }
}

/// Brings up a controller of the options `before`; after its first reset it has the options `after`, and empty blocks.
///
/// # Panics
/// Panics if that fails.
pub fn open(before: &str, after: &str) -> Controller {
    let machine = |options: &str| Machine::new(&options.parse().expect("options")).expect("a controller");
    let (before, after) = (machine(before), machine(after));
    let (is_replaced, doorbells, since) = (false, [0; DOORBELLS], Instant::now());
    serve(Replaced { before, after, is_replaced, doorbells, since }).expect("a controller")
}
