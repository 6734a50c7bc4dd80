use super::{Folds, LANE, fold, x86};
use crate::protection::crc::{FOLDS16, FOLDS32, FOLDS64, update16, update32, update64};

/// Bytes that are never folded, since they are too few at once.
const FEW: usize = 3 * LANE + 1;

/// Checks that `fold` returns the remainders that the tables return.
fn same(bytes: &[u8], fold: impl Fn(&Folds) -> (u64, Vec<u8>)) {
    let (remainder, rest) = fold(&FOLDS16);
    assert!(rest.len() < LANE);
    let slow = bytes.chunks(FEW).fold(0, update16);
    assert_eq!(update16((remainder >> 48) as u16, &rest), slow, "{} bytes, CRC-16", bytes.len());
    let (remainder, rest) = fold(&FOLDS32);
    let slow = bytes.chunks(FEW).fold(0, update32);
    assert_eq!(update32(remainder as u32, &rest), slow, "{} bytes, CRC-32", bytes.len());
    let (remainder, rest) = fold(&FOLDS64);
    let slow = bytes.chunks(FEW).fold(0, update64);
    assert_eq!(update64(remainder, &rest), slow, "{} bytes, CRC-64", bytes.len());
}

#[test]
fn all_widths_leave_the_remainder_as_it_is() {
    if !is_x86_feature_detected!("pclmulqdq") || !is_x86_feature_detected!("ssse3") {
        eprintln!("skipped: the processor has no carry-less multiplication");
        return;
    }
    let wide = is_x86_feature_detected!("vpclmulqdq") && is_x86_feature_detected!("avx2");
    let first = [0; LANE];
    for len in [64, 65, 127, 128, 191, 192, 255, 256, 300, 4096, 4103] {
        let bytes: Vec<u8> = (0..len).map(|at: usize| (at * at + 7 * at) as u8).collect();
        let owned = |(remainder, rest): (u64, &[u8])| (remainder, rest.to_vec());
        same(&bytes, |folds| {
            // SAFETY: the processor has the features.
            owned(unsafe { x86::narrow(folds, first, &bytes) })
        });
        same(&bytes, |folds| owned(fold(folds, first, &bytes).expect("long enough")));
        if len >= 8 * LANE && wide {
            same(&bytes, |folds| {
                // SAFETY: the processor has the features.
                owned(unsafe { x86::wide(folds, first, &bytes) })
            });
        }
    }
}

#[test]
fn short_messages_are_not_folded() {
    assert!(fold(&FOLDS16, [0; LANE], &[1; 63]).is_none());
}
