//! xNVMe's backend: compiled against the interface's facts in `xnvme/tests/include`, and called as xNVMe does.

mod common;

use common::{compile_all, run};

const FILES: [&str; 7] = [
    "../xnvme/tests/contract.c",
    "../xnvme/upcie_rs.c",
    "../xnvme/upcie_rs_dev.c",
    "../xnvme/upcie_rs_admin.c",
    "../xnvme/upcie_rs_sync.c",
    "../xnvme/upcie_rs_async.c",
    "../xnvme/upcie_rs_mem.c",
];

#[test]
fn the_backend_keeps_the_contract() {
    let program = compile_all(&FILES, &["-std=gnu11", "-pthread"], &["../xnvme/tests/include"]);
    let (first, second) = ("emu:size=64M,namespaces=2,lba=512", "emu:size=16M,lba=512,serial=OTHER");
    assert!(run(&program, &[first, second, "512"]).contains("contract: ok"));
}
