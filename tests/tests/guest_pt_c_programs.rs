//! C programs over libupcie use huge pages of both sizes: with a controller in software, and with QEMU's, whose addresses are
//! physical.

mod c_program;
mod direct;

use c_program::run;
use direct::prepare;

#[test]
fn pages_of_both_sizes_are_memory_of_a_heap() {
    // Named files of 1 GiB pages, which the controller's heap has, need a mount.
    run("hugepages", &["mount", "--size", "1G"], "");
    for address in ["emu:size=16M".to_owned(), prepare("uio").to_string()] {
        run("c-huge-pages", &[&address], "2097152 1073741824 huge pages: ok");
    }
    // Nothing is left in it.
    run("hugepages", &["unmount", "--size", "1G"], "is not mounted");
}
