//! A run leaves no descriptor open. This is a program of its own, since other tests open some meanwhile.

use upcie_simulation::{Case, Class, run};

/// Seeds, the first ones of which may open what the process keeps.
const SEEDS: u64 = 50;
const FIRST: u64 = 10;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("descriptors").count()
}

#[test]
fn a_run_leaves_no_descriptor_open() {
    for case in (0..SEEDS).map(Case::generate) {
        let before = descriptors();
        assert_eq!(run(&case, false).failure, None, "seed {}", case.seed);
        // Memory of a controller that can't be stopped is kept.
        if case.seed >= FIRST && case.class != Class::Dying {
            assert_eq!(descriptors(), before, "seed {}, {:?}", case.seed, case.class);
        }
    }
}
