//! The simulation's seeds hold, and a seed means one run.

use std::collections::HashSet;
use upcie_simulation::{Case, Class, GENERATOR, run, shrink};

/// A few: `cargo xtask test simulation` plays 10,000 in an optimised build.
const SEEDS: u64 = 120;
/// Seeds that are looked through for what their classes are for.
const REACH: u64 = 600;

#[test]
fn every_seed_keeps_the_properties() {
    for seed in 0..SEEDS {
        let case = Case::generate(seed);
        if let Some(failure) = run(&case, false).failure {
            let small = shrink(&case);
            panic!("seed {seed}: {failure}\nmade small:\n{}", run(&small, false).lines.join("\n"));
        }
    }
}

#[test]
fn a_seed_means_the_same_run_twice() {
    let mut digests = HashSet::new();
    for seed in 0..30 {
        let case = Case::generate(seed);
        let (first, second) = (run(&case, true), run(&case, true));
        assert_eq!(first.digest, second.digest, "seed {seed}");
        assert_eq!(first.lines, second.lines, "seed {seed}");
        digests.insert(first.digest);
    }
    assert_eq!(digests.len(), 30, "each seed is another run");
}

/// A seed that a failure has printed must not mean another case later.
#[test]
fn another_generator_has_another_version() {
    // Change both: the version, and the digest that the failure prints.
    let known = (4, 0x66b9_a0f6_bbec_2e6f);
    let mut digest = 0xcbf2_9ce4_8422_2325_u64;
    for case in (0..200).map(Case::generate) {
        let Case { class, options, plan, ops, laziness, retries, events, .. } = case;
        let (seed, cache) = (plan.seed, plan.cache);
        let mut text = format!("{class:?} {options} {laziness} {retries} {events} {seed} {cache:?}\n");
        for rule in &plan.rules {
            let (name, queue, after) = (rule.fault.name(), rule.queue, rule.after);
            text += &format!("{name} {queue:?} {after} {:?} {}\n", rule.count, rule.millionths);
        }
        for op in &ops {
            text += &format!("{op}\n");
        }
        for byte in text.bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!((GENERATOR, digest), known, "it is {digest:#x}: a changed generator needs a new version");
}

#[test]
fn seeds_reach_every_class_and_what_it_is_for() {
    let count = |class, part: &str| {
        let cases = (0..REACH).map(Case::generate).filter(|case| case.class == class);
        cases.filter(|case| run(case, false).lines.iter().any(|line| line.contains(part))).count()
    };
    for (class, part) in [
        (Class::Healthy, "came back: ok"),
        (Class::Failing, "h): "),
        (Class::Hanging, "not ready"),
        (Class::Power, "power cut"),
        (Class::Lying, "was not in flight"),
        (Class::Dying, "fatal status"),
        (Class::Admin, "emu:simulated"),
        // Of the parts that any class may have.
        (Class::Failing, "controller reset"),
        (Class::Hanging, "reset by Function"),
        (Class::Hanging, "fault: drop strikes at"),
        (Class::Admin, "of sq 0, opcode"),
        (Class::Power, "reset by Subsystem"),
        (Class::Healthy, "stale handle"),
        (Class::Power, "was given back"),
        (Class::Hanging, "and stays in flight"),
    ] {
        let found = count(class, part);
        assert!(found >= 1, "{class:?}: {found} of {REACH} seeds have {part:?} in their trace");
    }
}
