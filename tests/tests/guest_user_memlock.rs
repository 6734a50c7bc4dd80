//! A plain user whose limit of locked memory is too small gets a clear error, and nothing leaks.

use std::fs;
use upcie_nvme::Controller;
use upcie_tests::on_each_device;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn limit() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max locked memory")).expect("the limit");
    line.split_whitespace().nth(3).expect("a soft limit").parse().expect("a number of bytes")
}

#[test]
fn the_error_names_the_limit_and_how_to_raise_it() {
    let limit = limit();
    assert!(limit < 1 << 20, "the guest gives {limit} bytes");
    on_each_device(|device| {
        let before = descriptors();
        for _ in 0..2 {
            // If the controller's own memory still fits, the program's does not.
            let result = Controller::open(device.address());
            let error =
                result.and_then(|controller| controller.alloc(1 << 20)).expect_err("more than the limit");
            let text = format!("{error:?}");
            for part in ["RLIMIT_MEMLOCK", &limit.to_string(), "ulimit -l"] {
                assert!(text.contains(part), "{part:?} is not in: {text}");
            }
        }
        assert_eq!(descriptors(), before, "open files");
    });
}
