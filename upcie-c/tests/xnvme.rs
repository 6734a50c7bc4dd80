//! xNVMe's backend: compiled against the interface's facts in `xnvme/tests/include`, and called as xNVMe does.

mod common;

use common::{compile_all, on_each_device, run};
use std::path::PathBuf;

const FILES: [&str; 7] = [
    "../xnvme/upcie_rs.c",
    "../xnvme/upcie_rs_dev.c",
    "../xnvme/upcie_rs_admin.c",
    "../xnvme/upcie_rs_sync.c",
    "../xnvme/upcie_rs_async.c",
    "../xnvme/upcie_rs_events.c",
    "../xnvme/upcie_rs_mem.c",
];

/// Compiles a program with the backend.
fn build(program: &str) -> PathBuf {
    let files: Vec<_> = [program].into_iter().chain(FILES).collect();
    compile_all(&files, &["-std=gnu11", "-pthread"], &["../xnvme/tests/include"])
}

#[test]
fn the_backend_keeps_the_contract() {
    for name in ["contract", "devices"] {
        let program = build(&format!("../xnvme/tests/{name}.c"));
        for block in ["512", "4096"] {
            on_each_device(&format!("size=64M,namespaces=2,lba={block}"), |address| {
                let other = format!("emu:size=16M,lba={block},serial=OTHER");
                assert!(run(&program, &[address, &other, block]).contains(&format!("{name}: ok")));
            });
        }
    }
}

#[test]
fn the_backend_takes_all_command_sets() {
    let program = build("../xnvme/tests/sets.c");
    for (set, options) in [
        ("metadata", "size=4M,ms=8,pi=1"),
        ("zones", "size=1M,zoned=true,zone-size=64K"),
        ("keys", "size=1M,kv=true"),
    ] {
        on_each_device(options, |address| {
            assert!(run(&program, &[set, address]).contains(&format!("{set}: ok")));
        });
    }
}
