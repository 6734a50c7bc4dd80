//! Random numbers that can be repeated.

use upcie_core::testing::Random;

/// Makes a generator seeded by `UPCIE_TEST_SEED` and by `stream`, so that two generators of a test differ.
///
/// # Panics
/// Panics if the variable is not a number.
pub fn seeded(stream: u64) -> Random {
    let seed = match std::env::var("UPCIE_TEST_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("UPCIE_TEST_SEED={text}: a number is needed")),
        Err(_) => 0x5eed,
    };
    let mut random = Random(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    random.next();
    random
}
