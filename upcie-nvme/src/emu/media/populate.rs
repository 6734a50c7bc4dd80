//! Allocates memory pages before they are needed: a page of 2 MiB can take milliseconds.

use super::super::Error;
use nix::errno::Errno;
use std::{
    io,
    ptr::NonNull,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};
use upcie_core::{memory::host_page_size, room};

/// Bytes that a thread populates at a time: some huge pages.
const STEP: usize = 8 << 20;
/// More threads than this wait for each other's page tables.
const MAX_THREADS: usize = 8;
/// The interval of progress calls.
const TELL: Duration = Duration::from_millis(200);
/// Bytes left to other programs.
const RESERVE: u64 = 64 << 20;

/// An address range.
struct Range {
    base: NonNull<u8>,
    len: usize,
    /// The start of the next step.
    next: AtomicUsize,
    done: AtomicUsize,
    failure: Mutex<Option<Error>>,
}

// SAFETY: an address range without thread affinity, of which the page tables are changed and no bytes.
unsafe impl Sync for Range {}

/// Populates `len` bytes from `base` on, in several threads; their contents stay. Calls `progress` now and
/// then with the bytes populated so far. Returns early when `stop` becomes true.
///
/// # Safety
/// They are one private anonymous mapping, which nobody else reads or writes meanwhile.
pub unsafe fn populate(
    base: NonNull<u8>,
    len: usize,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let (next, done, failure) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(None));
    let range = Range { base, len, next, done, failure };
    range.check_room(len as u64)?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let threads = cores.min(MAX_THREADS).min(len.div_ceil(STEP)).max(1);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let (running, all) = channel::<()>();
        for _ in 0..threads {
            let (running, range, ended) = (running.clone(), &range, &ended);
            let work = move || {
                range.work(&[stop, ended]);
                drop(running);
            };
            let started = thread::Builder::new().name("nvme-emu-fill".into()).spawn_scoped(scope, work);
            if let Err(source) = started {
                range.fail(Error::Memory { size: len as u64, source });
            }
        }
        drop(running);
        while let Err(RecvTimeoutError::Timeout) = all.recv_timeout(TELL) {
            if range.has_failed() {
                ended.store(true, Ordering::Relaxed);
            }
            progress(range.done.load(Ordering::Relaxed) as u64);
        }
    });
    range.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

impl Range {
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Checks that `wanted` more bytes are available: the kernel kills a program that takes more.
    fn check_room(&self, wanted: u64) -> Result<(), Error> {
        match room::least() {
            Some(room) if room.bytes < wanted.saturating_add(RESERVE) => Err(Error::Shortage {
                size: self.len as u64,
                reason: format!("{} bytes of memory are available ({})", room.bytes, room.place),
            }),
            _ => Ok(()),
        }
    }

    fn work(&self, stops: &[&AtomicBool]) {
        while !stops.iter().any(|stop| stop.load(Ordering::Relaxed)) {
            let at = self.next.fetch_add(STEP, Ordering::Relaxed);
            if at >= self.len {
                return;
            }
            let len = STEP.min(self.len - at);
            // Other programs may have taken the memory that was free at the start.
            if let Err(error) = self.check_room(len as u64).and_then(|()| self.fill(at, len)) {
                return self.fail(error);
            }
            self.done.fetch_add(len, Ordering::Relaxed);
        }
    }

    fn fill(&self, at: usize, len: usize) -> Result<(), Error> {
        let from = self.base.as_ptr().wrapping_add(at);
        // SAFETY: within the mapping (the caller of `populate` has it); what it reads as stays the same.
        let filled = unsafe { libc::madvise(from.cast(), len, libc::MADV_POPULATE_WRITE) };
        match Errno::result(filled) {
            Ok(_) => Ok(()),
            // Linux before 5.14.
            Err(Errno::EINVAL) => {
                for page in (0..len).step_by(host_page_size()) {
                    let byte = from.wrapping_add(page);
                    // SAFETY: within the mapping, which nobody else reads or writes now.
                    let value = unsafe { byte.read_volatile() };
                    // SAFETY: as many bytes of the same mapping; what it reads as stays the same.
                    unsafe { byte.write_volatile(value) };
                }
                Ok(())
            }
            Err(errno) => Err(Error::Memory { size: self.len as u64, source: io::Error::from(errno) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    use std::num::NonZeroUsize;

    const LEN: usize = 3 * STEP + (64 << 10);

    /// Runs `test` on fresh memory of [`LEN`] bytes.
    fn with_memory(test: impl FnOnce(NonNull<u8>)) {
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(None, NonZeroUsize::new(LEN).unwrap(), access, flags) }.unwrap();
        test(base.cast());
        // SAFETY: the mapping that was just made.
        unsafe { munmap(base, LEN) }.unwrap();
    }

    /// Returns the number of pages in memory.
    fn resident(base: NonNull<u8>) -> usize {
        let mut pages = vec![0_u8; LEN / host_page_size()];
        // SAFETY: there is a byte for each page of the mapping.
        assert_eq!(unsafe { libc::mincore(base.as_ptr().cast(), LEN, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|&&page| page & 1 != 0).count()
    }

    #[test]
    fn all_pages_are_present_after_populating() {
        with_memory(|base| {
            assert_eq!(resident(base), 0);
            // SAFETY: this test's own mapping.
            unsafe { populate(base, LEN, &AtomicBool::new(false), &mut |_| {}) }.unwrap();
            assert_eq!(resident(base), LEN / host_page_size());
        });
    }

    #[test]
    fn populating_stops_on_request() {
        with_memory(|base| {
            // SAFETY: this test's own mapping.
            unsafe { populate(base, LEN, &AtomicBool::new(true), &mut |_| {}) }.unwrap();
            assert_eq!(resident(base), 0);
        });
    }
}
