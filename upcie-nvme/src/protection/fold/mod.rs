//! Long messages made short for a checksum, by carry-less multiplication: up to 128 bytes per step.
//!
//! The remainder of a message does not change when 16 bytes of it are taken away at one place and added, times a power
//! of x, at a later one. A step does this for several such lanes at once. The last lane is divided by the polynomial by
//! two more multiplications (P. Barrett's reduction).

mod powers;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use powers::{Folds, LANE};

/// Returns the remainder of all of `bytes` but those that are returned with it, of which there are less than 16.
/// `first` is added to the first 16 bytes. A remainder has its place in 64 bits: the lowest bits if the least
/// significant bit of a byte comes first, else the highest. `None` if the message is short, or the processor can't.
#[cfg(target_arch = "x86_64")]
pub(super) fn fold<'b>(folds: &Folds, first: [u8; LANE], bytes: &'b [u8]) -> Option<(u64, &'b [u8])> {
    let has_narrow = || is_x86_feature_detected!("pclmulqdq") && is_x86_feature_detected!("ssse3");
    let has_wide = || is_x86_feature_detected!("vpclmulqdq") && is_x86_feature_detected!("avx2");
    match bytes.len() / LANE {
        // SAFETY: the processor has PCLMULQDQ, SSSE3, VPCLMULQDQ and AVX2.
        8.. if has_narrow() && has_wide() => Some(unsafe { x86::wide(folds, first, bytes) }),
        // SAFETY: the processor has PCLMULQDQ and SSSE3.
        4.. if has_narrow() => Some(unsafe { x86::narrow(folds, first, bytes) }),
        _ => None,
    }
}

/// Returns `None`: other processors go through the tables.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn fold<'b>(_: &Folds, _: [u8; LANE], _: &'b [u8]) -> Option<(u64, &'b [u8])> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests;
