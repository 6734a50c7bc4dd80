//! Seeded mutations of inputs.

use super::{Random, mix};
use std::{
    fmt::Write,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
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

/// Calls `target` with each of `seeds`, then with `runs` mutations of them. The target's name and the mutation's number decide a
/// mutation, so a run goes on where another has ended.
///
/// Variables of the environment, which `cargo xtask fuzz` sets: `UPCIE_FUZZ_RUNS`, another number of mutations; `UPCIE_FUZZ_FROM`, the
/// number of the first; `UPCIE_FUZZ_TARGETS`, words with commas between them: a target runs if its name, or its test's, contains one.
///
/// # Panics
/// Panics as `target` does, and prints the input before. Panics if the test's name does not contain `fuzz`, by which the task finds it.
pub fn fuzz(name: &str, runs: u64, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let current = thread::current();
    // A harness with one thread runs its tests in the main thread.
    let test = current.name().filter(|name| *name != "main");
    assert!(test.is_none_or(|test| test.contains("fuzz")), "{name}: `fuzz` must be in its test's name");
    let words = std::env::var("UPCIE_FUZZ_TARGETS");
    if words.is_ok_and(|words| !is_named(&words, [name, test.unwrap_or_default()])) {
        return;
    }
    let (from, runs) = (number("UPCIE_FUZZ_FROM").unwrap_or(0), number("UPCIE_FUZZ_RUNS").unwrap_or(runs));
    play(name, from..from.saturating_add(runs), seeds, target);
    println!("{name}: {} seeds, {runs} mutations from {from} on", seeds.len());
}

/// Reads a number from a variable of the environment.
fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text}: a number is needed")))
}

/// Returns whether one of `words`, with commas between them, is in one of `names`.
fn is_named(words: &str, names: [&str; 2]) -> bool {
    words.split(',').any(|word| names.iter().any(|name| name.contains(word)))
}

/// Calls `target` with each of `seeds`, then with the mutations of these numbers.
fn play(name: &str, numbers: Range<u64>, seeds: &[Vec<u8>], target: impl Fn(&[u8])) {
    let hash = name.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
    for (number, seed) in seeds.iter().enumerate() {
        run(name, &format!("seed {number}"), seed, &target);
    }
    for number in numbers {
        let input = mutate(&mut Random(mix(hash ^ mix(number))), seeds);
        run(name, &format!("run {number}"), &input, &target);
    }
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
    use std::cell::RefCell;

    #[test]
    fn a_run_goes_on_where_another_has_ended() {
        let seeds = [vec![1, 2, 3, 4, 5, 6, 7, 8]];
        let inputs = |name, numbers: Range<u64>| {
            let inputs = RefCell::new(Vec::new());
            play(name, numbers, &seeds, |input| inputs.borrow_mut().push(input.to_vec()));
            // Without the seed.
            inputs.into_inner().split_off(1)
        };
        let whole = inputs("a", 0..40);
        assert_eq!([inputs("a", 0..15), inputs("a", 15..40)].concat(), whole);
        assert_ne!(inputs("b", 0..40), whole);
    }

    #[test]
    fn targets_are_chosen_by_their_names() {
        let names = ["vfio_user_server", "fuzz::any_bytes_of_a_client"];
        for (words, wanted) in [("server", true), ("share,client", true), ("share", false)] {
            assert_eq!(is_named(words, names), wanted, "{words}");
        }
    }

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
