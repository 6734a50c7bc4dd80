//! What must not compile. Each case of `compile_fail/` is also a doc test of this package (`compile_fail`), which holds for
//! any compiler; the messages are those of one.

use std::process::Command;

/// The compiler whose messages are kept beside the cases.
const PINNED: &str = "rustc 1.95.";

#[test]
fn misuse_does_not_compile_and_the_messages_make_sense() {
    let output =
        Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into())).arg("--version").output();
    let version = String::from_utf8(output.expect("rustc").stdout).unwrap();
    if !version.starts_with(PINNED) {
        // Said, not failed: the doc tests still show that nothing of it compiles.
        println!("messages not compared: {} is not {PINNED}x", version.trim());
        return;
    }
    trybuild::TestCases::new().compile_fail("compile_fail/*.rs");
}
