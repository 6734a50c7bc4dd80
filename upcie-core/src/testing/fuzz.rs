//! Seeded mutations of inputs.

use super::Random;
use std::{
    fmt::Write,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

/// Numbers at which parsers err: written over one, two, four or eight bytes.
const EDGES: [u64; 16] = [
    0,
    1,
    2,
    3,
    7,
    8,
    0x3f,
    0x7f,
    0x80,
    0xfff,
    0x1000,
    0x7fff_ffff,
    0x8000_0000,
    u64::MAX / 2,
    u64::MAX - 1,
    u64::MAX,
];
/// The longest input.
const MOST: usize = 64 << 10;

/// Calls `target` with each of `seeds`, then with `runs` mutations of them: the same ones each time. The variable
/// `UPCIE_FUZZ_RUNS` sets another number of runs.
///
/// # Panics
/// Panics as `target` does, and prints the input before.
pub fn fuzz(name: &str, runs: u64, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let runs = match std::env::var("UPCIE_FUZZ_RUNS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("UPCIE_FUZZ_RUNS={text}: a number is needed")),
        Err(_) => runs,
    };
    let mut random = Random(name.bytes().fold(0, |hash, byte| super::mix(hash ^ u64::from(byte))));
    for (number, seed) in seeds.iter().enumerate() {
        run(name, &format!("seed {number}"), seed, &target);
    }
    for number in 0..runs {
        let input = mutate(&mut random, seeds);
        run(name, &format!("run {number}"), &input, &target);
    }
    println!("{name}: {} seeds, {runs} mutations", seeds.len());
}

/// Calls `target`; if it panics, prints the input so that it can be kept.
fn run(name: &str, run: &str, input: &[u8], target: impl Fn(&[u8])) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
        let hex = input.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a string does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        eprintln!("{name}: {run} failed, with {} bytes:\n{hex}\n{}", input.len(), input.escape_ascii());
        resume_unwind(panic);
    }
}

/// Returns a mutation of one of `seeds`, or of several.
pub fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| match seeds.len() {
        0 => &[][..],
        len => &seeds[random.below(len)],
    };
    let mut input = pick(random).to_vec();
    for _ in 0..1 + random.below(6) * random.below(3) {
        match random.below(10) {
            0 | 1 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] ^= 1 << random.below(8);
            }
            2 if !input.is_empty() => {
                let at = random.below(input.len());
                input[at] = random.next() as u8;
            }
            3 | 4 => overwrite(random, &mut input),
            // A part is left out, or doubled.
            5 => {
                let (start, end) = part(random, input.len());
                input.drain(start..end);
            }
            6 => {
                let (start, end) = part(random, input.len());
                let copy = input[start..end].to_vec();
                input.splice(start..start, copy);
            }
            7 => {
                let at = random.below(input.len() + 1);
                let bytes: Vec<u8> = (0..1 + random.below(8)).map(|_| random.next() as u8).collect();
                input.splice(at..at, bytes);
            }
            // A part of another one.
            8 => {
                let other = pick(random);
                let (start, end) = part(random, other.len());
                let at = random.below(input.len() + 1);
                input.splice(at..at, other[start..end].iter().copied());
            }
            _ => {
                let len = random.below(input.len() + 1);
                input.truncate(len);
            }
        }
        input.truncate(MOST);
    }
    input
}

/// Writes a number at an edge, or near to the one that is there.
fn overwrite(random: &mut Random, input: &mut [u8]) {
    let width = [1, 2, 4, 8][random.below(4)];
    let Some(last) = input.len().checked_sub(width) else { return };
    let at = random.below(last + 1);
    let mut number = [0; 8];
    number[..width].copy_from_slice(&input[at..at + width]);
    let near = u64::from_le_bytes(number).wrapping_add(random.within(0..9)).wrapping_sub(4);
    let number = if random.one_in(2) { near } else { EDGES[random.below(EDGES.len())] };
    input[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]);
}

/// Returns the bounds of a part of `len` bytes.
fn part(random: &mut Random, len: usize) -> (usize, usize) {
    let start = random.below(len + 1);
    (start, start + random.below(len - start + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_the_same_each_time_and_differ_from_each_other() {
        let seeds = [vec![1, 2, 3, 4, 5, 6, 7, 8], b"another".to_vec()];
        let of = |seed| {
            let mut random = Random(seed);
            (0..200).map(|_| mutate(&mut random, &seeds)).collect::<Vec<_>>()
        };
        let (first, second) = (of(1), of(1));
        assert_eq!(first, second);
        let different: std::collections::BTreeSet<_> = first.iter().collect();
        assert!(different.len() > 150, "{} of 200", different.len());
        assert!(mutate(&mut Random(1), &[]).len() <= MOST);
    }
}
