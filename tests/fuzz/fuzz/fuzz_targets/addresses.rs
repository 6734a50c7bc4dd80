//! libFuzzer's entry point of the target `addresses`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| upcie_fuzz::run("addresses", input));
