//! The driver's side of the comparisons for vectored commands over memory that stays with the program.

use crate::{
    Random,
    ours::controller,
    standin::{Device, StandIn},
    thread_time,
};
use std::{hint::black_box, sync::Arc};
use upcie_nvme::{Controller, DmaBuf, Io, Namespace, QueuePair, Turn};

/// A queue whose commands read into ranges of memory, the same ones for each tag.
#[derive(Debug)]
pub struct Held {
    device: Device,
    /// Present until the drop.
    queue: Option<QueuePair<u64>>,
    namespace: Namespace,
    random: Random,
    standin: Arc<StandIn>,
    controller: Controller,
    memory: Vec<Vec<DmaBuf>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // The queue is deleted next, which needs the helper thread.
        self.standin.resume();
        if self.queue.take().is_some_and(|queue| queue.close().is_err()) {
            for buffer in self.memory.drain(..).flatten() {
                self.controller.keep(buffer);
            }
        }
    }
}

impl Held {
    /// Makes a queue of `entries` on a controller of its own, with a read in flight into each of the vectors of segments
    /// that `make` makes.
    ///
    /// # Panics
    /// Panics if memory is short.
    pub fn new(entries: usize, make: impl Fn(&Controller) -> Vec<Vec<DmaBuf>>) -> Box<Self> {
        let (standin, controller) = controller(1);
        let memory = make(&controller);
        let namespace = controller.namespace(1).expect("the namespace");
        let mut queue = controller.queue_pair().depth(entries as u32).create().expect("a queue");
        let device = standin.release(queue.id());
        let mut turn = queue.turn().expect("a turn");
        for (tag, segments) in (0..).zip(&memory) {
            let segments: Vec<_> = segments
                .iter()
                .flat_map(DmaBuf::segments)
                .map(|segment| (segment, 0..segment.len()))
                .collect();
            // SAFETY: the memory is not looked at before the queue is closed, or kept by the controller.
            unsafe { turn.submit_vectored_held(Io::read(&namespace, 0), &segments, tag) }.expect("room");
        }
        drop(turn);
        standin.pause();
        Box::new(Self {
            device,
            queue: Some(queue),
            namespace,
            random: Random::new(),
            standin,
            controller,
            memory,
        })
    }

    /// Returns the nanoseconds of CPU time per I/O, of at least `count`. A vector of one buffer is submitted as that buffer,
    /// which may be a gathered chain; any other as a list of ranges.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let Self { device, queue, namespace, random, memory, .. } = black_box(self);
        let Some(queue) = queue else { return 0.0 };
        let side = (device, queue, &*namespace, random);
        if memory.iter().all(|segments| segments.len() == 1) {
            let chains: Vec<_> = memory.iter().map(|chain| (&chain[0], 0..chain[0].total_len())).collect();
            return pass(side, count, |turn, io, tag| {
                let (chain, part) = chains[tag as usize].clone();
                // SAFETY: the memory is not looked at before the queue is closed, or kept by the controller.
                unsafe { turn.submit_held(io, chain, part, tag) }.is_ok()
            });
        }
        let vectors: Vec<Vec<_>> = memory
            .iter()
            .map(|segments| segments.iter().map(|segment| (segment, 0..segment.len())).collect())
            .collect();
        pass(side, count, |turn, io, tag| {
            // SAFETY: the memory is not looked at before the queue is closed, or kept by the controller.
            unsafe { turn.submit_vectored_held(io, &vectors[tag as usize], tag) }.is_ok()
        })
    }
}

/// Completes and submits commands until `count` are done; `submit` submits one, and returns `true` if it was taken.
#[inline(always)]
fn pass(
    (device, queue, namespace, random): (&mut Device, &mut QueuePair<u64>, &Namespace, &mut Random),
    count: u64,
    mut submit: impl FnMut(&mut Turn<'_, u64>, Io<'_>, u64) -> bool,
) -> f64 {
    let start = thread_time();
    let mut done = 0;
    while done < count {
        device.step();
        let Ok(mut turn) = queue.turn() else { std::process::abort() };
        while let Some(completion) = turn.next() {
            let (tag, result, _) = completion.into_parts();
            if result.is_err() || !submit(&mut turn, Io::read(namespace, random.next() & 0xff_fff8), tag) {
                std::process::abort();
            }
            done += 1;
        }
    }
    (thread_time() - start) as f64 / done as f64
}
