//! The C path of `c_path.c`: the work of a header-only C driver for the same I/Os, on the same stand-in
//! device.

use crate::{rings::Rings, standin::step, thread_time};
use std::{ffi::c_void, ptr::NonNull};

type Completed = unsafe extern "C" fn(*mut c_void, *const c_void);

unsafe extern "C" {
    fn c_path_completed(user: *mut c_void, entry: *const c_void);
    fn c_path_new(
        sq: *mut u64,
        cq: *mut u64,
        doorbells: *mut u32,
        depth: u32,
        in_flight: u32,
        call: Completed,
    ) -> *mut c_void;
    fn c_path_run(
        bench: *mut c_void,
        count: u64,
        max: u32,
        step: unsafe extern "C" fn(*mut c_void),
        device: *mut c_void,
    ) -> u64;
}

/// The C path's state over all measurements.
#[derive(Debug)]
pub struct CPath {
    rings: Rings,
    bench: NonNull<c_void>,
}

impl CPath {
    /// Makes the C path over rings of `entries`, with `depth` reads in flight.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn new(entries: usize, depth: usize) -> Self {
        let rings = Rings::new(entries);
        let Rings { sq, cq, doorbells, .. } = rings;
        // SAFETY: the rings have this many entries and are never freed; fewer commands than entries are in
        // flight.
        let bench = unsafe { c_path_new(sq, cq, doorbells, entries as u32, depth as u32, c_path_completed) };
        Self { rings, bench: NonNull::new(bench).expect("memory") }
    }

    /// Returns the nanoseconds of CPU time per I/O, with at most `batch` completions reaped in a pass.
    #[inline(never)]
    pub fn run(&mut self, batch: usize, count: u64) -> f64 {
        let device = (&raw mut self.rings.device).cast();
        let start = thread_time();
        // SAFETY: `c_path_new` made the bench, and the device belongs to the rings.
        let done = unsafe { c_path_run(self.bench.as_ptr(), count, batch as u32, step, device) };
        (thread_time() - start) as f64 / done as f64
    }
}
