use super::*;

fn mixture(rw: Workload, mix: u8, random: &str, sizes: &str) -> Mixture {
    Mixture { rw, mix, random: random.parse().unwrap(), sizes: sizes.parse().unwrap() }
}

fn take(mixture: &Mixture, blocks: u64, seed: u64, count: u64) -> Vec<Op> {
    let mut source = Source::measured(mixture, blocks, 512, seed);
    (0..count).map(|_| source.next_of_many()).collect()
}

#[test]
fn a_seed_repeats_and_seeds_differ() {
    for (random, sizes) in [("uniform", "4k"), ("zipf:1.1", "4k"), ("uniform", "4k:60,64k:40")] {
        let mixture = mixture(Workload::RandRw, 70, random, sizes);
        let ops = take(&mixture, 8000, 1, 10_000);
        assert_eq!(ops, take(&mixture, 8000, 1, 10_000));
        assert_ne!(ops, take(&mixture, 8000, 2, 10_000));
        assert_eq!(ops.len(), 10_000);
        let reads = ops.iter().filter(|op| !op.write).count();
        assert!((6_700..7_300).contains(&reads), "{reads} of 10000 with a mix of 70");
    }
}

#[test]
fn a_mix_of_one_percent_has_one_in_a_hundred() {
    let ops = take(&mixture(Workload::RandRw, 1, "uniform", "512"), 1000, 1, 1_000_000);
    let reads = ops.iter().filter(|op| !op.write).count();
    assert!((9_600..10_400).contains(&reads), "{reads} of a million");
}

#[test]
fn both_generators_give_the_same_ios() {
    for rw in [Workload::RandRw, Workload::Read] {
        let mixture = mixture(rw, 50, "uniform", "4k");
        let mut source = Source::measured(&mixture, 800, 512, 3);
        assert!(!source.has_many());
        let ops: Vec<_> = (0..500).map(|_| source.next()).collect();
        assert_eq!(ops, take(&mixture, 800, 3, 500));
    }
}

#[test]
fn uniform_uses_all_places_about_as_often() {
    let ops = take(&mixture(Workload::RandRead, 0, "uniform", "4k"), 100 * 8 + 7, 5, 100_000);
    let mut met = [0_f64; 100];
    for op in ops {
        assert_eq!(op.block % 8, 0);
        met[op.block as usize / 8] += 1.0;
    }
    // 99 degrees of freedom: a value above 149 has a probability of 0.1 %. The seed is fixed.
    let chi: f64 = met.iter().map(|met| (met - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi < 149.0, "{chi}");
}

#[test]
fn zipf_prefers_few_places() {
    let ops = take(&mixture(Workload::RandRead, 0, "zipf:1.2", "4k"), 8 * 10_000, 5, 100_000);
    let mut met = std::collections::HashMap::new();
    for op in ops {
        assert!(op.block % 8 == 0 && op.block < 80_000);
        *met.entry(op.block).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = met.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let all: f64 = (1..=10_000).map(|k| f64::from(k).powf(-1.2)).sum();
    let top = f64::from(counts[0]) / 100_000.0;
    assert!((top * all - 1.0).abs() < 0.03, "{top}, not {}", 1.0 / all);
}

#[test]
fn sizes_come_in_their_shares_at_their_own_multiples() {
    for rw in [Workload::RandWrite, Workload::Write] {
        let ops = take(&mixture(rw, 0, "uniform", "4k:60,64k:40"), 1000, 9, 10_000);
        let large = ops.iter().filter(|op| op.size == 1).count();
        assert!((3_800..4_200).contains(&large), "{large} of 10000 are 40 %");
        for op in &ops {
            let blocks = if op.size == 1 { 128 } else { 8 };
            assert!(op.block + blocks <= 1000, "{op:?}");
            assert!(rw == Workload::Write || op.block % blocks == 0, "{op:?}");
        }
    }
}

#[test]
fn a_mix_of_all_or_nothing_is_exact() {
    for (mix, write) in [(100, false), (0, true)] {
        for rw in [Workload::RandRw, Workload::Rw] {
            let ops = take(&mixture(rw, mix, "uniform", "512"), 10, 3, 1000);
            assert!(ops.iter().all(|op| op.write == write));
        }
    }
}

#[test]
fn a_mix_in_order_takes_the_blocks_in_order() {
    let mixture = mixture(Workload::Rw, 70, "uniform", "4k");
    assert!(Source::measured(&mixture, 80_000, 512, 1).has_many());
    let ops = take(&mixture, 80_000, 1, 10_000);
    assert!((0..).zip(&ops).all(|(place, op)| op.block == place * 8));
    let reads = ops.iter().filter(|op| !op.write).count();
    assert!((6_700..7_300).contains(&reads), "{reads} of 10000 with a mix of 70");
}

#[test]
fn sequential_ios_wrap_and_a_sweep_ends() {
    let mixture = mixture(Workload::Write, 0, "uniform", "1k");
    let mut source = Source::measured(&mixture, 7, 512, 0);
    let blocks: Vec<_> = (0..5).map(|_| source.next().block).collect();
    assert_eq!(blocks, [0, 2, 4, 0, 2]);
    assert_eq!(Source::sweep(9, 2, false).left(), 4);
}

#[test]
fn one_size_or_several_with_their_shares() {
    assert_eq!("4k".parse::<Sizes>().unwrap().typed().collect::<Vec<_>>(), [(4096, "4k")]);
    let mixed: Sizes = "4k:60,64k:40".parse().unwrap();
    assert_eq!((mixed.single(), mixed.largest()), (None, 65536));
    assert_eq!(mixed.to_string(), "60 % 4 KiB + 40 % 64 KiB");
    assert_eq!("4k/60:64k/40".parse(), Ok(mixed.clone()), "fio's form");
    let table = mixed.size_table();
    assert_eq!([0, 1].map(|class| table.iter().filter(|&&c| c == class).count()), [60, 40]);
}

#[test]
fn invalid_sizes_are_refused_with_the_reason() {
    for (text, part) in [
        ("4k:60,64k:41", "101 %"),
        ("4k:60", "60 %"),
        ("4k,8k", "lacks its share"),
        ("4k:0,8k:100", "from 1 to 100"),
        ("4k:x,8k:50", "\"x\""),
        ("4k:50,4096:50", "twice"),
        ("0", "at least one block"),
        ("", "is not a size"),
        ("4k:50,:50", "is not a size"),
        ("4k:300", "from 1 to 100"),
        ("4k/60:64k", "lacks its share"),
        ("4k/60:64k/40,8k/100", "40,8k/100"),
    ] {
        let error = text.parse::<Sizes>().unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    let many: Vec<_> = (1..=17).map(|i| format!("{}:{}", i * 512, if i == 1 { 84 } else { 1 })).collect();
    assert!(many.join(",").parse::<Sizes>().unwrap_err().contains("the most is 16"));
}
