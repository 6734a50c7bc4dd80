//! The driver's side of the comparisons: a queue pair on the stand-in device.

use crate::{
    Random, caller,
    standin::{Device, StandIn},
    thread_time,
};
use std::{hint::black_box, sync::Arc};
use upcie_nvme::{Controller, DmaBuf, Namespace, QueuePair};

/// Brings up a controller on the stand-in.
///
/// # Panics
/// Panics if that fails.
pub fn controller(namespaces: u32) -> (Arc<StandIn>, Controller) {
    let standin = StandIn::with_namespaces(namespaces);
    let controller = Controller::builder().from_device(standin.clone()).expect("bring-up");
    (standin, controller)
}

/// The driver's state over all measurements. Measured through `black_box`: an optimiser that sees the queue
/// and the namespaces would fold their constants and flatter the result.
#[derive(Debug)]
pub struct Ours {
    device: Device,
    queue: QueuePair<u64>,
    /// Beside the queue, so that one register addresses both.
    namespace: Namespace,
    others: Vec<Namespace>,
    random: Random,
    standin: Arc<StandIn>,
    _controller: Controller,
}

impl Drop for Ours {
    fn drop(&mut self) {
        // The queue is deleted next, which needs the helper thread.
        self.standin.resume();
    }
}

impl Ours {
    /// Makes a queue of `entries` on a controller of its own, with `depth` reads of 4 KiB in flight.
    pub fn new(entries: usize, depth: usize) -> Box<Self> {
        Self::with_namespaces(entries, depth, 1)
    }

    /// Makes a queue with several namespaces, a power of two.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn with_namespaces(entries: usize, depth: usize, namespaces: u32) -> Box<Self> {
        let (standin, controller) = controller(namespaces);
        Self::on(&standin, &controller, entries, depth)
    }

    /// Makes `count` queues on one controller.
    pub fn several(count: usize, entries: usize, depth: usize) -> Vec<Box<Self>> {
        let (standin, controller) = controller(1);
        (0..count).map(|_| Self::on(&standin, &controller, entries, depth)).collect()
    }

    /// Makes a queue on a controller of its own, with a read in flight into each of the buffers that `make`
    /// makes.
    pub fn with_buffers(entries: usize, make: impl Fn(&Controller) -> Vec<DmaBuf>) -> Box<Self> {
        let (standin, controller) = controller(1);
        let buffers = make(&controller);
        Self::reading(&standin, &controller, entries, buffers)
    }

    fn on(standin: &Arc<StandIn>, controller: &Controller, entries: usize, depth: usize) -> Box<Self> {
        let buffers = (0..depth).map(|_| controller.alloc(4096).expect("a buffer")).collect();
        Self::reading(standin, controller, entries, buffers)
    }

    fn reading(
        standin: &Arc<StandIn>,
        controller: &Controller,
        entries: usize,
        buffers: Vec<DmaBuf>,
    ) -> Box<Self> {
        standin.resume();
        let namespaces = controller.namespaces().expect("the namespaces");
        let mut queue = controller.queue_pair().depth(entries as u32).create().expect("a queue");
        let device = standin.release(queue.id());
        let mut random = Random::new();
        let mut turn = queue.turn().expect("a turn");
        for (tag, buffer) in (0..).zip(buffers) {
            turn.read(&namespaces[0], random.next() & 0xff_fff8, buffer, tag).expect("room");
        }
        drop(turn);
        standin.pause();
        Box::new(Self {
            device,
            queue,
            namespace: namespaces[0].clone(),
            others: namespaces,
            random,
            standin: standin.clone(),
            _controller: controller.clone(),
        })
    }

    /// Does at least `count` I/Os; returns their number. With `LIMITED`, each turn of the device and each
    /// pair of doorbells handles at most `batch`; otherwise all that are done. `pick` chooses an I/O's
    /// namespace by its number.
    #[inline(always)]
    fn turns<const LIMITED: bool>(
        &mut self,
        batch: usize,
        count: u64,
        pick: impl for<'a> Fn(&'a Namespace, &'a [Namespace], u64) -> &'a Namespace,
    ) -> u64 {
        let Self { device, queue, namespace, others, random, .. } = black_box(self);
        let mut random_here = random.clone();
        let (mut done, mut sum) = (0, 0_u64);
        while done < count {
            device.step();
            let mut turn = match queue.turn() {
                Ok(turn) => turn,
                Err(_) => std::process::abort(),
            };
            let mut left = batch;
            while let Some(completion) = turn.next() {
                let (tag, result, buffer): (u64, _, DmaBuf) = completion.into_parts();
                if result.is_err() {
                    std::process::abort();
                }
                sum = sum.wrapping_add(tag);
                done += 1;
                let namespace = pick(namespace, others, done);
                if turn.read(namespace, random_here.next() & 0xff_fff8, buffer, tag).is_err() {
                    std::process::abort();
                }
                if LIMITED {
                    left -= 1;
                    if left == 0 {
                        break;
                    }
                }
            }
        }
        *random = random_here;
        black_box(sum);
        done
    }

    /// Does at least `count` I/Os, all that are done in each turn; returns their number.
    #[inline(always)]
    pub fn pass(&mut self, count: u64) -> u64 {
        self.turns::<false>(0, count, |namespace, _, _| namespace)
    }

    /// Returns the nanoseconds of CPU time per I/O.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let start = thread_time();
        let done = self.pass(count);
        (thread_time() - start) as f64 / done as f64
    }

    /// Does at least `count` I/Os as a program would, with its loop in a function and the namespace
    /// elsewhere.
    #[inline(always)]
    pub fn pass_by_caller(&mut self, count: u64) -> u64 {
        let Self { device, queue, others, random, .. } = self;
        let mut done = 0;
        while done < count {
            device.step();
            match caller::reap_and_read(queue, &others[0], random) {
                Ok(Some(more)) => done += more,
                _ => std::process::abort(),
            }
        }
        done
    }

    /// Returns the nanoseconds of CPU time per I/O of [`pass_by_caller`](Self::pass_by_caller).
    #[inline(never)]
    pub fn run_by_caller(&mut self, count: u64) -> f64 {
        let start = thread_time();
        let done = self.pass_by_caller(count);
        (thread_time() - start) as f64 / done as f64
    }

    /// Returns the nanoseconds per I/O over several queues, one turn each in turn.
    #[inline(never)]
    pub fn run_by_turns(queues: &mut [Box<Self>], count: u64) -> f64 {
        let (mut done, start) = (0, thread_time());
        while done < count {
            for queue in &mut *queues {
                done += queue.pass(1);
            }
        }
        (thread_time() - start) as f64 / done as f64
    }

    /// Like [`run`](Self::run), with at most `batch` I/Os (not 0) for each turn of the device and each pair
    /// of doorbells.
    #[inline(never)]
    pub fn run_batches(&mut self, batch: usize, count: u64) -> f64 {
        let start = thread_time();
        let done = self.turns::<true>(batch, count, |namespace, _, _| namespace);
        (thread_time() - start) as f64 / done as f64
    }

    /// Like [`run`](Self::run), with the namespaces in turn.
    #[inline(never)]
    pub fn run_namespaces(&mut self, count: u64) -> f64 {
        let start = thread_time();
        let done = self.turns::<false>(0, count, |_, others, at| &others[at as usize & (others.len() - 1)]);
        (thread_time() - start) as f64 / done as f64
    }
}
