//! libFuzzer's entry point of the target `config_space`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| upcie_fuzz::run("config_space", input));
