//! libFuzzer's entry point of the target `fault_plans`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| upcie_fuzz::run("fault_plans", input));
