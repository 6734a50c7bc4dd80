//! The controllers of `emu:vfs=…` addresses in this process, by serial number: each can be opened by an address of its own.

use super::super::{Emulator, Error, Options};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use upcie_core::process::PerProcess;

/// A primary controller and its secondary ones. They last as long as one of them is open.
#[derive(Debug)]
struct Controllers {
    /// The options of the primary controller.
    options: Options,
    /// Those that are not open, the primary one first; `None` in place of one that is.
    closed: Mutex<Vec<Option<Emulator>>>,
}

/// Those of this process. A forked child has none: their threads are its parent's.
static ALL: PerProcess<Vec<Weak<Controllers>>> = PerProcess::new();

impl Controllers {
    fn new(options: &Options) -> Result<Self, Error> {
        let mut all = Emulator::subsystem(options, options.functions.count.saturating_add(1))?;
        if let Some(primary) = all.first_mut() {
            primary.populate(options)?;
        }
        let closed = Mutex::new(all.into_iter().map(Some).collect());
        Ok(Self { options: options.clone(), closed })
    }

    /// Returns those that `options` name, by their serial number; makes them for a primary controller that is not there.
    fn find(options: &Options) -> Result<Arc<Self>, Error> {
        let bad = |option: String, reason: String| Err(Error::Option { option, reason });
        let (serial, functions) = (&options.serial, options.functions);
        let mut all = ALL.lock();
        all.retain(|controllers| controllers.strong_count() > 0);
        let found =
            all.iter().filter_map(Weak::upgrade).find(|controllers| controllers.options.serial == *serial);
        match found {
            Some(controllers) if functions.number > 0 || controllers.options == *options => Ok(controllers),
            Some(controllers) => bad(
                format!("serial={serial}"),
                format!(
                    "controllers with this serial number and vfs={} are open in this process, with other options: give another \
                     serial=",
                    controllers.options.functions.count
                ),
            ),
            None if functions.number > 0 => bad(
                format!("vf={}", functions.number),
                format!(
                    "no controller with vfs= and serial={serial} is open in this process: open that first, and keep it open"
                ),
            ),
            None => {
                let controllers = Arc::new(Self::new(options)?);
                all.push(Arc::downgrade(&controllers));
                Ok(controllers)
            }
        }
    }

    fn closed(&self) -> MutexGuard<'_, Vec<Option<Emulator>>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A controller that is open. It can be opened again once this is dropped.
#[derive(Debug)]
pub struct Opened {
    controllers: Arc<Controllers>,
    index: usize,
    emulator: Option<Emulator>,
}

impl Opened {
    /// Takes the controller that `options` name: a primary one, which is made if there is none with this serial number, or a
    /// secondary one of a primary one that was opened.
    pub fn take(options: &Options) -> Result<Self, Error> {
        options.check()?;
        let controllers = Controllers::find(options)?;
        let functions = options.functions;
        let index = usize::from(functions.number);
        let taken = controllers.closed().get_mut(index).map(Option::take);
        let option = match functions.number {
            0 => format!("vfs={}", functions.count),
            number => format!("vf={number}"),
        };
        let serial = &options.serial;
        match taken {
            Some(Some(emulator)) => Ok(Self { controllers, index, emulator: Some(emulator) }),
            Some(None) => {
                let reason = format!(
                    "the controller with serial={serial} is open in this process already: close it first, or give another serial="
                );
                Err(Error::Option { option, reason })
            }
            None => {
                let reason = format!(
                    "the controller with serial={serial} has vfs={}",
                    controllers.options.functions.count
                );
                Err(Error::Option { option, reason })
            }
        }
    }

    /// Calls `call` with the controller, and lets it be opened again afterwards.
    pub fn serve(mut self, call: impl FnOnce(&mut Emulator)) {
        if let Some(emulator) = &mut self.emulator {
            call(emulator);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let emulator = self.emulator.take();
        if let Some(place) = self.controllers.closed().get_mut(self.index) {
            *place = emulator;
        }
    }
}
