use super::{Folds, LANE, fold, x86};
use crate::protection::crc::{FOLDS16, FOLDS64, update16, update64};

/// Bytes that are never folded, since they are too few at once.
const FEW: usize = 3 * LANE + 1;

/// Checks that what `fold` returns leaves the same remainders as the message.
fn same(bytes: &[u8], fold: impl Fn(&Folds) -> ([u8; LANE], Vec<u8>)) {
    let (short, rest) = fold(&FOLDS16);
    assert!(rest.len() < LANE);
    let slow = bytes.chunks(FEW).fold(0, update16);
    assert_eq!(update16(update16(0, &short), &rest), slow, "{} bytes, CRC-16", bytes.len());
    let (short, rest) = fold(&FOLDS64);
    let slow = bytes.chunks(FEW).fold(0, update64);
    assert_eq!(update64(update64(0, &short), &rest), slow, "{} bytes, CRC-64", bytes.len());
}

#[test]
fn both_widths_leave_the_remainder_as_it_is() {
    if !is_x86_feature_detected!("pclmulqdq") || !is_x86_feature_detected!("ssse3") {
        eprintln!("skipped: the processor has no carry-less multiplication");
        return;
    }
    let wide = is_x86_feature_detected!("vpclmulqdq") && is_x86_feature_detected!("avx2");
    let first = [0; LANE];
    for len in [64, 65, 127, 128, 191, 192, 255, 256, 300, 4096, 4103] {
        let bytes: Vec<u8> = (0..len).map(|at: usize| (at * at + 7 * at) as u8).collect();
        let owned = |(short, rest): ([u8; LANE], &[u8])| (short, rest.to_vec());
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
