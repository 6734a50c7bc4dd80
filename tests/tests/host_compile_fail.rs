//! Misuse that must not compile. Each case of `compile_fail/` is also a doc test of this package
//! (`compile_fail`), for any compiler; the messages are checked for one compiler only.

use std::process::Command;

/// The compiler whose messages are stored beside the cases.
const PINNED: &str = "rustc 1.95.";

#[test]
fn misuse_fails_to_compile_with_clear_messages() {
    let output =
        Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output();
    let version = String::from_utf8(output.expect("rustc").stdout).unwrap();
    if !version.starts_with(PINNED) {
        // Printed, not failed: the doc tests still show that no case compiles.
        println!("messages not compared: {} is not {PINNED}x", version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("compile_fail/*.rs");
}
