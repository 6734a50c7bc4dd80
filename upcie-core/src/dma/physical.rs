//! Physical addresses: what a space is where no IOMMU translates.
//!
//! Nothing but the device's own bus master bit stands between it and all memory, and nothing stops a device whose
//! process was killed. So DMA memory is a named file on a hugetlbfs mount: it outlives the process, and goes back only
//! once the device is off the bus. Memory that is given back earlier is kept, for the same device to use again.

use crate::{
    Error, Result,
    events::{Hold, emit},
    hugetlb::{self, Leftover},
    memory::{Memory, PageSize},
    pci::{Bdf, ConfigFile, ConfigSpace, Function, FunctionLock, command},
    process::Owner,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A function whose DMA is not translated, and which this process alone drives.
#[derive(Debug)]
pub struct Untranslated {
    bdf: Bdf,
    config: ConfigFile,
    /// Until its memory is freed, or it is closed and others use the memory.
    _lock: FunctionLock,
    /// DMA memory of processes that were killed, while the function may still write to it.
    leftovers: Vec<Leftover>,
}

impl Untranslated {
    /// For `function`, which `lock` is of. Memory that killed users of it left behind is freed here if the function is
    /// off the bus and `was_reset` (it has forgotten what it was told), and otherwise when its memory is freed.
    ///
    /// # Safety
    /// `lock` is of `function`. Devices are sent to the host's own addresses in a space of it, so it is one that no IOMMU
    /// translates for. `was_reset` is true only if it was reset after all that its former users told it: memory that it
    /// may still write to is freed on that word.
    ///
    /// # Errors
    /// The function's configuration space can't be read.
    pub unsafe fn new(function: &Function, lock: FunctionLock, was_reset: bool) -> Result<Self> {
        let (bdf, config) = (function.bdf, function.config()?);
        let mut function = Self { bdf, config, _lock: lock, leftovers: Vec::new() };
        function.leftovers = leftovers_of(bdf)?;
        if was_reset && function.is_quiet()? {
            function.remove_leftovers();
        }
        Ok(function)
    }

    /// Whether it can't issue DMA: its bus master bit is clear, or it is gone.
    fn is_quiet(&self) -> Result<bool> {
        match self.config.command() {
            Ok(command) => Ok(command & command::BUS_MASTER == 0),
            Err(Error::Gone { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes its name off all DMA memory if it is off the bus; whether it is.
    fn forget(&self) -> Result<bool> {
        if !self.is_quiet()? {
            return Ok(false);
        }
        leftovers_of(self.bdf)?.into_iter().try_for_each(Leftover::remove).map(|()| true)
    }

    fn remove_leftovers(&mut self) {
        let bdf = self.bdf;
        for file in self.leftovers.drain(..) {
            let (path, bytes) = (file.path.display().to_string(), file.bytes);
            match file.remove() {
                Ok(()) => emit(move || {
                    tracing::info!(device = %bdf, path, bytes, "freed what a killed process left");
                }),
                Err(error) => emit(move || {
                    tracing::warn!(device = %bdf, %error, "freeing what a killed process left");
                }),
            }
        }
    }
}

fn leftovers_of(bdf: Bdf) -> Result<Vec<Leftover>> {
    Ok(hugetlb::leftovers()?.into_iter().filter(|file| file.bdf == bdf).collect())
}

/// The functions of a space, and memory that they may still write to.
///
/// Each may be told of all of its memory, so a file has a name for each: freeing what a killed process left of one
/// function then frees nothing that another may still write to.
#[derive(Debug)]
pub(super) struct Physical {
    owner: Owner,
    functions: Mutex<Vec<Untranslated>>,
    retired: Mutex<Vec<Memory>>,
}

impl Physical {
    pub(super) fn new(function: Untranslated) -> Self {
        Self { owner: Owner::current(), functions: Mutex::new(vec![function]), retired: Mutex::default() }
    }

    pub(super) fn join(&self, function: Untranslated) -> Result<()> {
        let _hold = Hold::new();
        let mut functions = lock(&self.functions);
        let me = std::process::id();
        for file in hugetlb::leftovers()? {
            if file.pid == me && functions.iter().any(|function| function.bdf == file.bdf) {
                file.also_for(function.bdf)?;
            }
        }
        functions.push(function);
        Ok(())
    }

    /// Lets a function that was closed go, so that it can be opened again while others use the space: if it is off the
    /// bus. The last one stays for as long as there is memory.
    pub(super) fn leave(&self, bdf: Bdf) {
        let _hold = Hold::new();
        let mut functions = lock(&self.functions);
        let at = functions.iter().position(|function| function.bdf == bdf);
        let Some(at) = at.filter(|_| functions.len() > 1) else { return };
        match functions[at].forget() {
            Ok(true) => drop(functions.remove(at)),
            Ok(false) => {}
            Err(error) => {
                emit(move || tracing::warn!(device = %bdf, %error, "it stays in its address space"));
            }
        }
    }

    /// Gives the file of `memory`, if it has a name, one for each function.
    pub(super) fn adopt(&self, memory: &Memory) -> Result<()> {
        lock(&self.functions).iter().try_for_each(|function| memory.also_for(function.bdf))
    }

    /// Memory for it: what was given back before, or a new file. What was shared is not used again: another
    /// process may have it still; nor what has no name, and so would not outlive this process.
    pub(super) fn memory(&self, len: usize, page: PageSize) -> Result<Memory> {
        let len = len.next_multiple_of(page.bytes());
        let mut retired = lock(&self.retired);
        let is_ours = |memory: &Memory| memory.is_named() && !memory.is_shared();
        let fits = |memory: &Memory| memory.len() == len && memory.page_size() == page && is_ours(memory);
        let found = retired.iter().position(fits);
        if let Some(memory) = found.map(|at| retired.swap_remove(at)) {
            memory.zero();
            return Ok(memory);
        }
        drop(retired);
        let bdf = lock(&self.functions).first().map(|function| function.bdf);
        let bdf = bdf.ok_or_else(|| Error::Unusable {
            device: "a space of physical addresses".into(),
            reason: "it has no device".into(),
        })?;
        Memory::named(bdf, len, page)
    }

    /// Frees `memory` if nothing can write to it any more, and otherwise keeps it.
    pub(super) fn retire(&self, memory: Memory) {
        let _hold = Hold::new();
        let mut retired = lock(&self.retired);
        retired.push(memory);
        if self.is_quiet() {
            retired.clear();
        }
    }

    fn is_quiet(&self) -> bool {
        lock(&self.functions).iter().all(|function| match function.is_quiet() {
            Ok(quiet) => quiet,
            Err(error) => {
                emit(move || tracing::warn!(%error, "taken as still on the bus"));
                false
            }
        })
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        // A forked child: all of it is the parent's.
        if !self.owner.is_current() {
            return;
        }
        let _hold = Hold::new();
        let quiet = self.is_quiet();
        let mut functions = lock(&self.functions);
        for function in functions.iter_mut().filter(|_| quiet) {
            function.remove_leftovers();
        }
        for memory in lock(&self.retired).drain(..) {
            if !quiet {
                let bytes = memory.len();
                emit(move || {
                    tracing::error!(
                        bytes,
                        "a device may still write to its memory: its file is left to `hugepages release`"
                    );
                });
                memory.leave();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
