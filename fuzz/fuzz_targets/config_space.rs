#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| upcie_fuzz::run("config_space", data));
