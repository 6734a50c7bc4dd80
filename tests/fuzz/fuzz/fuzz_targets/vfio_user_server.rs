//! libFuzzer's entry point of the target `vfio_user_server`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| upcie_fuzz::run("vfio_user_server", input));
