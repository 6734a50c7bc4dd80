#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| upcie_fuzz::run("vfio_user_server", data));
