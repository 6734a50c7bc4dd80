//! From a pointer to the device address in one address space: three loads, whatever is mapped.
//!
//! The table is a tree over the 47 bits of a program's addresses: 2^17 entries for 1 GiB each, then 512 for 2 MiB
//! each, then, where 2 MiB are not mapped as a whole, 512 for 4 KiB each. It is read without a lock while another
//! thread changes it.

use std::{
    ptr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, AtomicU64, Ordering},
    },
};

const BIG: u32 = 21;
const TOP: u32 = 30;
const SMALL: u32 = 12;
/// Bits of an address of the program's.
const ADDRESS: u32 = 47;
/// Set in an entry that maps memory: the rest is the device address of its first byte.
const MAPPED: u64 = 1;
/// Set in an entry for 2 MiB that points to entries for 4 KiB.
const SPLIT: u64 = 2;
const FLAGS: u64 = (1 << SMALL) - 1;
/// Bytes of 2 MiB, and of 4 KiB.
pub(crate) const BIG_BYTES: usize = 1 << BIG;
const SMALL_BYTES: usize = 1 << SMALL;

const TOPS: usize = 1 << (ADDRESS - TOP);

type Leaves = [AtomicU64; 512];

/// The device addresses of one address space, by address in this process.
#[derive(Debug)]
pub(crate) struct Translation {
    top: Box<[AtomicPtr<Leaves>; TOPS]>,
    /// All tables that `top` and its tables point to; freed with the whole.
    owned: Mutex<Vec<*mut Leaves>>,
}

// SAFETY: all pointers are to tables of atomics that live as long as the value.
unsafe impl Send for Translation {}
// SAFETY: readers use atomics; changes are made under a lock.
unsafe impl Sync for Translation {}

/// Part of a range that is contiguous for the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) iova: u64,
    /// Bytes from there on that are sure to be contiguous: to the end of 2 MiB, or of 4 KiB.
    pub(crate) len: usize,
}

impl Translation {
    pub(crate) fn new() -> Self {
        let top: Vec<_> = std::iter::repeat_with(AtomicPtr::default).take(TOPS).collect();
        let top = top.into_boxed_slice().try_into().unwrap_or_else(|_| unreachable!("as long as the array"));
        Self { top, owned: Mutex::default() }
    }

    /// Returns the device address of a byte, and how far it is contiguous; `None` if the byte is not mapped.
    #[inline(always)]
    pub(crate) fn find(&self, at: usize) -> Option<Run> {
        let leaves = self.top.get(at >> TOP)?.load(Ordering::Acquire);
        // SAFETY: null, or a table that lives as long as `self`.
        let leaves = unsafe { leaves.as_ref() }?;
        let entry = leaves[at >> BIG & 511].load(Ordering::Acquire);
        if entry & MAPPED != 0 {
            let offset = at & (BIG_BYTES - 1);
            return Some(Run { iova: (entry & !FLAGS) + offset as u64, len: BIG_BYTES - offset });
        }
        Self::find_small(entry, at)
    }

    /// Returns the same for a byte in 2 MiB that are mapped as a whole; `None` for all others.
    #[inline(always)]
    pub(crate) fn find_big(&self, at: usize) -> Option<Run> {
        let leaves = self.top.get(at >> TOP)?.load(Ordering::Relaxed);
        // SAFETY: null, or a table that lives as long as `self`.
        let leaves = unsafe { leaves.as_ref() }?;
        let entry = leaves[at >> BIG & 511].load(Ordering::Relaxed);
        if entry & MAPPED == 0 {
            return None;
        }
        let offset = at & (BIG_BYTES - 1);
        // The flag is the only bit below the address.
        Some(Run { iova: entry - MAPPED + offset as u64, len: BIG_BYTES - offset })
    }

    #[inline(never)]
    fn find_small(entry: u64, at: usize) -> Option<Run> {
        let leaves = small(entry)?;
        let entry = leaves[at >> SMALL & 511].load(Ordering::Acquire);
        let offset = at & (SMALL_BYTES - 1);
        (entry & MAPPED != 0)
            .then(|| Run { iova: (entry & !FLAGS) + offset as u64, len: SMALL_BYTES - offset })
    }

    /// Maps `len` bytes from `at` on, both multiples of 4 KiB; the byte at an offset has the device address
    /// `iova(offset)`, and those of `step` bytes (a multiple of 4 KiB) are contiguous.
    pub(crate) fn map(&self, at: usize, len: usize, step: usize, iova: impl Fn(usize) -> u64) {
        self.change(at, len, |offset, bytes| (bytes <= step - offset % step).then(|| iova(offset) | MAPPED));
    }

    /// Ends the mapping of `len` bytes from `at` on.
    pub(crate) fn unmap(&self, at: usize, len: usize) {
        self.change(at, len, |_, _| Some(0));
    }

    /// Sets the entries of a range: `entry` returns the entry for so many bytes at an offset; `None` if they must be
    /// set one by one.
    fn change(&self, at: usize, len: usize, entry: impl Fn(usize, usize) -> Option<u64>) {
        let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < len {
            let here = at + done;
            let Some(top) = self.top.get(here >> TOP) else { return };
            let leaves = child(top.load(Ordering::Acquire), &mut owned, |made| {
                top.store(made, Ordering::Release);
            });
            let big = &leaves[here >> BIG & 511];
            let is_whole = here % BIG_BYTES == 0 && len - done >= BIG_BYTES;
            match entry(done, BIG_BYTES).filter(|_| is_whole) {
                // A table of 4 KiB entries stays with the owned ones until all is freed: a reader may be in it.
                Some(value) => {
                    big.store(value, Ordering::Release);
                    done += BIG_BYTES;
                }
                None => {
                    let old = big.load(Ordering::Acquire);
                    let table = small(old).map_or(ptr::null_mut(), |table| ptr::from_ref(table).cast_mut());
                    let leaves = child(table, &mut owned, |made| {
                        big.store(made.addr() as u64 | SPLIT, Ordering::Release);
                        keep(made);
                    });
                    leaves[here >> SMALL & 511]
                        .store(entry(done, SMALL_BYTES).unwrap_or(0), Ordering::Release);
                    done += SMALL_BYTES;
                }
            }
        }
    }
}

/// Lets a table's address be made a pointer again.
fn keep(table: *mut Leaves) {
    table.expose_provenance();
}

/// Returns the entries for 4 KiB behind an entry for 2 MiB.
#[inline(always)]
fn small<'t>(entry: u64) -> Option<&'t Leaves> {
    if entry & SPLIT == 0 {
        return None;
    }
    let table: *const Leaves = ptr::with_exposed_provenance((entry & !FLAGS) as usize);
    // SAFETY: the address of a table of the same tree, which lives as long as the tree.
    unsafe { table.as_ref() }
}

/// Returns a table, made now if there is none: aligned to 4 KiB, so that the low bits of its address are flags.
fn child<'t>(table: *mut Leaves, owned: &mut Vec<*mut Leaves>, link: impl FnOnce(*mut Leaves)) -> &'t Leaves {
    let table = if table.is_null() {
        let made = Box::into_raw(Box::new(Page([const { AtomicU64::new(0) }; 512]))).cast();
        owned.push(made);
        link(made);
        made
    } else {
        table
    };
    // SAFETY: a table that its tree owns.
    unsafe { &*table }
}

#[repr(C, align(4096))]
struct Page(Leaves);

impl Drop for Translation {
    fn drop(&mut self) {
        for table in self.owned.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // SAFETY: from `Box::into_raw` in `child`, once; nobody reads the tree any more.
            drop(unsafe { Box::from_raw(table.cast::<Page>()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_by_pages_of_both_sizes() {
        let table = Translation::new();
        let at = 0x7f00_0010_0000;
        assert_eq!(table.find(at), None);
        // From the middle of one 2 MiB to the middle of another, with a whole one between them.
        table.map(at, 4 << 20, usize::MAX, |offset| 0x10_0000_0000 + offset as u64);
        let run = |offset: usize| table.find(at + offset).unwrap();
        assert_eq!(run(5), Run { iova: 0x10_0000_0005, len: 4091 });
        assert_eq!(run(1 << 20), Run { iova: 0x10_0010_0000, len: 2 << 20 });
        assert_eq!(run((3 << 20) + 4096), Run { iova: 0x10_0030_1000, len: 4096 });
        assert_eq!(table.find(at - 1), None);
        assert_eq!(table.find(at + (4 << 20)), None);
        table.unmap(at, 2 << 20);
        assert_eq!((table.find(at), table.find(at + (2 << 20) - 1)), (None, None));
        assert_eq!(run(3 << 20).iova, 0x10_0030_0000);
        for wild in [0, 1, usize::MAX, 1 << 47, (1 << 47) - 1] {
            assert_eq!(table.find(wild), None, "{wild:#x}");
        }
    }

    #[test]
    fn pages_that_are_apart_for_the_device_stay_apart() {
        let table = Translation::new();
        let at = 0x7f00_0000_0000;
        table.map(
            at,
            4 << 20,
            2 << 20,
            |offset| if offset < 2 << 20 { 0x4000_0000 } else { 0x100_0000 - (2 << 20) } + offset as u64,
        );
        assert_eq!(table.find(at + 4096).unwrap().iova, 0x4000_1000);
        assert_eq!(table.find(at + (2 << 20)).unwrap(), Run { iova: 0x100_0000, len: 2 << 20 });
    }
}
