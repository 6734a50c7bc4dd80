//! Spaces of physical addresses, for devices without an IOMMU.
//!
//! Only the device's own bus master bit keeps it from all memory, and a device does not stop when its process is killed.
//! So DMA memory is a named file on a hugetlbfs mount: the file outlives the process, and is freed only when the device's
//! bus mastering is off. Memory that is freed while bus mastering is on is kept for reuse by the same devices.

use crate::{
    Error, ErrorKind, Result,
    events::{Hold, emit},
    hugetlb::{self, Leftover},
    memory::{Memory, PageSize},
    pci::{Bdf, ConfigFile, ConfigSpace, Function, FunctionLock, command},
    process::Owner,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A function without address translation, which only this process drives.
#[derive(Debug)]
pub struct Untranslated {
    bdf: Bdf,
    config: ConfigFile,
    /// Held until the function's memory is freed, or the function is closed and others use the memory.
    _lock: FunctionLock,
    /// DMA memory of killed processes that the function may still write to.
    leftovers: Vec<Leftover>,
}

impl Untranslated {
    /// Takes over `function`, held by `lock`. Memory of killed processes is freed now if bus mastering is off and
    /// `was_reset`, because a reset makes the device forget their commands. Otherwise it is freed with this function's
    /// memory.
    ///
    /// # Safety
    /// `lock` is the lock of `function`. Devices in its space are given the host's physical addresses, so no IOMMU
    /// translates for it. `was_reset` is true only if the function was reset after its former users' last commands:
    /// memory that it may still write to is freed on that word.
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

    /// Returns whether the function can't issue DMA: bus mastering is off, or the function is gone.
    fn is_quiet(&self) -> Result<bool> {
        match self.config.command() {
            Ok(command) => Ok(command & command::BUS_MASTER == 0),
            Err(error) if error.kind() == ErrorKind::Gone => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Removes its name from all DMA memory if bus mastering is off, and returns whether it did.
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
                    tracing::info!(device = %bdf, path, bytes, "freed a killed process's DMA memory");
                }),
                Err(error) => emit(move || {
                    tracing::warn!(device = %bdf, %error, "freeing a killed process's DMA memory failed");
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
/// Each function may have been given all of the space's memory, so a file has a name for each. Freeing a killed process's
/// memory of one function then frees nothing that another may still write to.
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

    /// Removes a closed function if its bus mastering is off, so that it can be opened again while others use the space.
    /// The last function stays while there is memory.
    pub(super) fn leave(&self, bdf: Bdf) {
        let _hold = Hold::new();
        let mut functions = lock(&self.functions);
        let at = functions.iter().position(|function| function.bdf == bdf);
        let Some(at) = at.filter(|_| functions.len() > 1) else { return };
        match functions[at].forget() {
            Ok(true) => drop(functions.remove(at)),
            Ok(false) => {}
            Err(error) => {
                emit(
                    move || tracing::warn!(device = %bdf, %error, "the closed function stays in its address space"),
                );
            }
        }
    }

    /// Adds a name for each function to the file of `memory`, if the file is named.
    pub(super) fn adopt(&self, memory: &Memory) -> Result<()> {
        lock(&self.functions).iter().try_for_each(|function| memory.also_for(function.bdf))
    }

    /// Returns retired memory of the same size, or a new file. Two kinds are not reused: shared memory, which another
    /// process may still have, and unnamed memory, which would not outlive this process.
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
        let bdf = bdf.ok_or_else(|| Error::unusable("a space of physical addresses", "it has no device"))?;
        Memory::named(bdf, len, page)
    }

    /// Frees all retired memory if no function can write to it any more; otherwise keeps `memory` for reuse.
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
                emit(move || tracing::warn!(%error, "assuming that bus mastering is still on"));
                false
            }
        })
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        // A forked child: the parent owns all of it.
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
                        "a device may still write to its memory: `hugepages release` frees the file later"
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
