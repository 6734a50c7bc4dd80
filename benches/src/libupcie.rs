//! The C interface's side of the comparisons: the calls of libupcie, as a C program makes them, on the stand-in device.

use crate::{
    Random,
    standin::{Device, StandIn},
    thread_time,
};
use std::{
    ffi::{c_int, c_void},
    hint::black_box,
    process::abort,
    ptr::{null, null_mut},
    sync::Arc,
};
use upcie::{Completion, Opaque, Request};
use upcie_nvme::spec::{Command, CompletionEntry, NvmOpcode};

/// The calls, behind pointers that no optimiser sees through: those of a C program are never inlined.
#[derive(Debug)]
struct Calls {
    submit: unsafe extern "C" fn(
        *mut Opaque,
        *const c_void,
        *mut c_void,
        usize,
        *mut c_void,
        usize,
        *mut c_void,
    ) -> c_int,
    poll: unsafe extern "C" fn(*mut Opaque, u32, Option<upcie::Done>, *mut c_void) -> c_int,
    submit_many: unsafe extern "C" fn(*mut Opaque, *const Request, usize) -> c_int,
    reap: unsafe extern "C" fn(*mut Opaque, *mut Completion, usize) -> c_int,
    ring: unsafe extern "C" fn(*mut Opaque) -> c_int,
}

/// The program's state over all measurements.
#[derive(Debug)]
pub struct LibUpcie {
    heap: *mut Opaque,
    controller: *mut Opaque,
    queue: *mut Opaque,
    command: Command,
    random: Random,
    sum: u64,
    calls: Calls,
    requests: Vec<Request>,
    completions: Vec<Completion>,
    device: Device,
    standin: Arc<StandIn>,
}

impl Drop for LibUpcie {
    fn drop(&mut self) {
        // The queue is deleted next, which needs the helper thread. What fails here stays until the process ends.
        self.standin.resume();
        // SAFETY: the handle is this program's own, and it uses it no more.
        let _ = unsafe { upcie::upcie_queue_delete(self.queue) };
        // SAFETY: the handle is this program's own, and it uses it no more.
        let _ = unsafe { upcie::upcie_close(self.controller) };
        // SAFETY: the handle is this program's own, and it uses neither it nor the heap's memory any more.
        let _ = unsafe { upcie::upcie_heap_destroy(self.heap) };
    }
}

/// Submits the next read into the buffer of one that has completed, as a program's callback does.
unsafe extern "C" fn completed(user: *mut c_void, entry: *const c_void, arg: *mut c_void) {
    // SAFETY: the argument of `pass_by_poll`, which uses it no more until the poll returns.
    let side = unsafe { &mut *arg.cast::<LibUpcie>() };
    // SAFETY: the library's, of 16 bytes, during the call.
    if unsafe { &*entry.cast::<CompletionEntry>() }.status_phase > 1 {
        abort();
    }
    side.sum = side.sum.wrapping_add(user.addr() as u64);
    side.command.cdw10 = (side.random.next() & 0xff_fff8) as u32;
    let command = (&raw const side.command).cast();
    // SAFETY: a queue's handle, a command, and memory of the heap, which nobody else uses.
    if unsafe { (side.calls.submit)(side.queue, command, user, 4096, null_mut(), 0, user) } < 0 {
        abort();
    }
}

impl LibUpcie {
    /// Makes a queue of `entries` on a controller of its own, with `depth` reads of 4 KiB in flight.
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn new(entries: usize, depth: usize) -> Box<Self> {
        let standin = StandIn::with_namespaces(1);
        let mut heap = null_mut();
        // SAFETY: NULL gives the default options, and the handle has a place.
        assert_eq!(unsafe { upcie::upcie_heap_create(null(), &raw mut heap) }, 0, "a heap");
        let controller = upcie::open_device(heap, standin.clone()).expect("bring-up");
        let opts = upcie::QueueOpts::of_depth(entries as u32);
        let mut queue = null_mut();
        // SAFETY: a controller's handle, options, and a place for the queue's.
        let made = unsafe { upcie::upcie_queue_create(controller, &raw const opts, &raw mut queue) };
        assert_eq!(made, 0, "a queue");
        let calls = Calls {
            submit: upcie::upcie_submit,
            poll: upcie::upcie_poll,
            submit_many: upcie::upcie_submit_many,
            reap: upcie::upcie_reap,
            ring: upcie::upcie_ring,
        };
        let mut command = Command::io(NvmOpcode::READ, 1);
        command.cdw12 = 7;
        let mut side = Box::new(Self {
            heap,
            controller,
            queue,
            command,
            random: Random::new(),
            sum: 0,
            calls: black_box(calls),
            requests: Vec::new(),
            completions: vec![Completion::default(); depth],
            device: standin.release(1),
            standin,
        });
        for _ in 0..depth {
            // SAFETY: a heap's handle.
            let buffer = unsafe { upcie::upcie_alloc(heap, 4096) };
            assert!(!buffer.is_null(), "a buffer");
            side.requests.push(Request::new(&side.command, buffer, 4096, buffer));
        }
        let (requests, count) = (side.requests.as_ptr(), side.requests.len());
        // SAFETY: a queue's handle, and requests for memory of its heap.
        assert_eq!(unsafe { upcie::upcie_submit_many(queue, requests, count) }, count as c_int, "room");
        // SAFETY: a queue's handle.
        assert_eq!(unsafe { upcie::upcie_ring(queue) }, 0, "the doorbell");
        side.standin.pause();
        side
    }

    /// Does at least `count` I/Os by `upcie_poll`, whose callback submits, and `upcie_ring`; returns their number.
    #[inline(always)]
    pub fn pass_by_poll(&mut self, count: u64) -> u64 {
        let mut done = 0;
        while done < count {
            self.device.step();
            let arg = (&raw mut *self).cast();
            // SAFETY: a queue's handle; the callback alone uses the argument meanwhile.
            let found = unsafe { (self.calls.poll)(self.queue, 0, Some(completed), arg) };
            // SAFETY: a queue's handle.
            if found < 0 || unsafe { (self.calls.ring)(self.queue) } < 0 {
                abort();
            }
            done += found as u64;
        }
        done
    }

    /// Returns the nanoseconds of CPU time per I/O of [`pass_by_poll`](Self::pass_by_poll).
    #[inline(never)]
    pub fn run_by_poll(&mut self, count: u64) -> f64 {
        let start = thread_time();
        let done = self.pass_by_poll(count);
        (thread_time() - start) as f64 / done as f64
    }

    /// Does at least `count` I/Os by `upcie_reap`, `upcie_submit_many` and `upcie_ring`; returns their number.
    #[inline(always)]
    pub fn pass_by_many(&mut self, count: u64) -> u64 {
        let mut done = 0;
        while done < count {
            self.device.step();
            let (completions, requests) = (self.completions.as_mut_ptr(), self.requests.as_mut_ptr());
            // SAFETY: a queue's handle, and room for so many.
            let found = unsafe { (self.calls.reap)(self.queue, completions, self.completions.len()) };
            if found < 0 {
                abort();
            }
            for (completion, request) in self.completions[..found as usize].iter().zip(&mut self.requests) {
                if completion.entry().status_phase > 1 {
                    abort();
                }
                let user = completion.user();
                self.sum = self.sum.wrapping_add(user.addr() as u64);
                request.reuse(user, user, (self.random.next() & 0xff_fff8) as u32);
            }
            // SAFETY: a queue's handle, and as many requests as were found.
            if unsafe { (self.calls.submit_many)(self.queue, requests, found as usize) } != found {
                abort();
            }
            // SAFETY: a queue's handle.
            if unsafe { (self.calls.ring)(self.queue) } < 0 {
                abort();
            }
            done += found as u64;
        }
        done
    }

    /// Returns the nanoseconds of CPU time per I/O of [`pass_by_many`](Self::pass_by_many).
    #[inline(never)]
    pub fn run_by_many(&mut self, count: u64) -> f64 {
        let start = thread_time();
        let done = self.pass_by_many(count);
        (thread_time() - start) as f64 / done as f64
    }
}
