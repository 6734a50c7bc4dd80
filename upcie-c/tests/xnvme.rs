//! xNVMe's backend: compiled against the interface's facts in `xnvme/tests/include`, and called as xNVMe does.

mod common;

use common::{compile_all, on_each_device, run};

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
    for block in ["512", "4096"] {
        on_each_device(&format!("size=64M,namespaces=2,lba={block}"), |address| {
            let other = format!("emu:size=16M,lba={block},serial=OTHER");
            assert!(run(&program, &[address, &other, block]).contains("contract: ok"));
        });
    }
}
