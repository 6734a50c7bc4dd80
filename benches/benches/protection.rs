//! Protection information of 4 KiB blocks in software, against a plain copy of the block with a checksum by the fastest crate
//! that we know.

mod compare;

use compare::compare;
use crc_fast::{CrcAlgorithm, checksum};
use criterion::{Criterion, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use upcie_benches::thread_time;
use upcie_nvme::protection::{BlockFormat, Guard, Protect, Protection, ProtectionType};

const BLOCK: usize = 4096;
/// Blocks of a run, each in memory of its own; together they fit into a core's cache.
const BLOCKS: usize = 64;
/// Passes over the blocks in a run.
const PASSES: usize = 16;

/// The blocks of both sides.
struct Sides {
    source: Vec<u8>,
    /// Blocks with their protection information after each.
    ours: Vec<u8>,
    theirs: Vec<u8>,
    format: BlockFormat,
}

impl Sides {
    fn new(guard: Guard) -> Self {
        let protection = Protection::new(ProtectionType::Type1, guard);
        let format = BlockFormat::new(BLOCK as u32, protection.size() as u16, true);
        let format = format.with_protection(protection).expect("room for the protection information");
        let source = (0..BLOCKS * BLOCK).map(|at| (at * 7 + at / 256) as u8).collect();
        let bytes = vec![0; BLOCKS * format.transfer_size()];
        Self { source, ours: bytes.clone(), theirs: bytes, format }
    }

    /// Copies each block and makes its protection information.
    fn generate(&mut self) {
        let size = self.format.transfer_size();
        let blocks = self.source.chunks_exact(BLOCK).zip(self.ours.chunks_exact_mut(size));
        for (slba, (source, block)) in (0..).zip(blocks) {
            block[..BLOCK].copy_from_slice(source);
            self.format.generate(slba, block, &Protect::new().reference_tag(slba));
        }
        black_box(&mut self.ours);
    }

    /// Copies each block and stores its checksum.
    fn copy_and_sum(&mut self, algorithm: CrcAlgorithm) {
        let size = self.format.transfer_size();
        for (source, block) in self.source.chunks_exact(BLOCK).zip(self.theirs.chunks_exact_mut(size)) {
            block[..BLOCK].copy_from_slice(source);
            let sum = checksum(algorithm, &block[..BLOCK]);
            block[BLOCK..BLOCK + 8].copy_from_slice(&sum.to_be_bytes());
        }
        black_box(&mut self.theirs);
    }
}

/// Returns the nanoseconds of CPU time per block of `pass`.
fn timed(mut pass: impl FnMut()) -> f64 {
    let start = thread_time();
    (0..PASSES).for_each(|_| pass());
    (thread_time() - start) as f64 / (PASSES * BLOCKS) as f64
}

fn generate(criterion: &mut Criterion) {
    for (name, guard, algorithm) in [
        ("crc16", Guard::Crc16, CrcAlgorithm::Crc16T10Dif),
        ("crc32", Guard::Crc32, CrcAlgorithm::Crc32Iscsi),
        ("crc64", Guard::Crc64, CrcAlgorithm::Crc64Nvme),
    ] {
        let name = format!("protection/{name}_4096");
        compare(
            criterion,
            &name,
            &[(&name, 0, Some(1))],
            || {
                let mut sides = Sides::new(guard);
                sides.generate();
                sides.copy_and_sum(algorithm);
                let bytes = guard.size();
                assert_eq!(
                    sides.ours[BLOCK..BLOCK + bytes],
                    sides.theirs[BLOCK + 8 - bytes..BLOCK + 8],
                    "the same checksum"
                );
                sides
            },
            |sides| [timed(|| sides.generate()), timed(|| sides.copy_and_sum(algorithm))],
        );
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = generate
}
criterion_main!(benches);
