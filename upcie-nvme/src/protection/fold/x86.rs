//! Folding on x86-64: in lanes of 128 bits (PCLMULQDQ), or two of them at once (VPCLMULQDQ).

#![allow(
    unused_unsafe,
    reason = "Rust 1.85 has these intrinsics as unsafe functions, later ones as safe ones"
)]
#![allow(clippy::multiple_unsafe_ops_per_block, reason = "all need the same: the processor's features")]

use super::powers::{Folds, LANE};
use std::arch::{
    asm,
    x86_64::{
        __m128i, __m256i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_loadu_si128, _mm_set_epi8,
        _mm_set_epi64x, _mm_setzero_si128, _mm_shuffle_epi8, _mm_slli_si128, _mm_srli_si128, _mm_xor_si128,
        _mm256_broadcastsi128_si256, _mm256_castsi128_si256, _mm256_castsi256_si128,
        _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_shuffle_epi8, _mm256_xor_si256,
    },
};

/// Folds a message of four lanes or more, by four lanes at once.
///
/// # Safety
/// The processor has PCLMULQDQ and SSSE3.
pub(super) unsafe fn narrow<'b>(folds: &Folds, first: [u8; LANE], bytes: &'b [u8]) -> (u64, &'b [u8]) {
    // SAFETY: the caller's promise.
    unsafe {
        match folds.reflected {
            true => narrow_in::<true>(folds, first, bytes),
            false => narrow_in::<false>(folds, first, bytes),
        }
    }
}

/// Folds a message of eight lanes or more, by eight lanes at once.
///
/// # Safety
/// The processor has PCLMULQDQ, SSSE3, VPCLMULQDQ and AVX2.
pub(super) unsafe fn wide<'b>(folds: &Folds, first: [u8; LANE], bytes: &'b [u8]) -> (u64, &'b [u8]) {
    // SAFETY: the caller's promise.
    unsafe {
        match folds.reflected {
            true => wide_in::<true>(folds, first, bytes),
            false => wide_in::<false>(folds, first, bytes),
        }
    }
}

/// Folds like [`narrow`], in the order of bits of a message.
///
/// # Safety
/// The processor has PCLMULQDQ and SSSE3.
#[target_feature(enable = "pclmulqdq,ssse3")]
unsafe fn narrow_in<'b, const REFLECTED: bool>(
    folds: &Folds,
    first: [u8; LANE],
    bytes: &'b [u8],
) -> (u64, &'b [u8]) {
    let (steps, rest) = bytes.split_at(bytes.len() / (4 * LANE) * (4 * LANE));
    // SAFETY: the caller's promise, for this and all that follows.
    unsafe {
        let by = factors(folds.by_4_lanes);
        let mut lanes = [_mm_setzero_si128(); 4];
        for (number, step) in steps.chunks_exact(4 * LANE).enumerate() {
            for (lane, bytes) in lanes.iter_mut().zip(step.chunks_exact(LANE)) {
                let next = load::<REFLECTED>(bytes.first_chunk().expect("a lane"));
                *lane = if number == 0 { next } else { _mm_xor_si128(moved(*lane, by), next) };
            }
            if number == 0 {
                lanes[0] = _mm_xor_si128(lanes[0], load::<REFLECTED>(&first));
            }
        }
        join::<REFLECTED>(folds, lanes, rest)
    }
}

/// Folds like [`wide`], in the order of bits of a message.
///
/// # Safety
/// The processor has PCLMULQDQ, SSSE3, VPCLMULQDQ and AVX2.
#[target_feature(enable = "pclmulqdq,ssse3,avx2")]
unsafe fn wide_in<'b, const REFLECTED: bool>(
    folds: &Folds,
    first: [u8; LANE],
    bytes: &'b [u8],
) -> (u64, &'b [u8]) {
    let (steps, rest) = bytes.split_at(bytes.len() / (8 * LANE) * (8 * LANE));
    // SAFETY: the caller's promise, for this and all that follows.
    unsafe {
        let by = _mm256_broadcastsi128_si256(factors(folds.by_8_lanes));
        let mut pairs = [_mm256_castsi128_si256(_mm_setzero_si128()); 4];
        for (number, step) in steps.chunks_exact(8 * LANE).enumerate() {
            for (pair, bytes) in pairs.iter_mut().zip(step.chunks_exact(2 * LANE)) {
                let next = load_pair::<REFLECTED>(bytes.first_chunk().expect("two lanes"));
                *pair = if number == 0 { next } else { _mm256_xor_si256(moved_pair(*pair, by), next) };
            }
            if number == 0 {
                let mut pair = [0; 2 * LANE];
                pair[..LANE].copy_from_slice(&first);
                pairs[0] = _mm256_xor_si256(pairs[0], load_pair::<REFLECTED>(&pair));
            }
        }
        let by = factors(folds.by_4_lanes);
        let half = |lane, to| _mm_xor_si128(moved(lane, by), to);
        let low = pairs.map(|pair| _mm256_castsi256_si128(pair));
        let high = pairs.map(|pair| _mm256_extracti128_si256::<1>(pair));
        let lanes =
            [half(low[0], low[2]), half(high[0], high[2]), half(low[1], low[3]), half(high[1], high[3])];
        join::<REFLECTED>(folds, lanes, rest)
    }
}

/// Folds four lanes, and then the whole lanes of `rest`, into one, and returns its remainder.
///
/// # Safety
/// The processor has PCLMULQDQ and SSSE3.
#[inline]
#[target_feature(enable = "pclmulqdq,ssse3")]
unsafe fn join<'b, const REFLECTED: bool>(
    folds: &Folds,
    lanes: [__m128i; 4],
    mut rest: &'b [u8],
) -> (u64, &'b [u8]) {
    // SAFETY: the caller's promise.
    unsafe {
        let by = factors(folds.by_2_lanes);
        let [even, odd] = [0, 1].map(|at| _mm_xor_si128(moved(lanes[at], by), lanes[at + 2]));
        let by = factors(folds.by_1_lane);
        let mut sum = _mm_xor_si128(moved(even, by), odd);
        while let Some((bytes, after)) = rest.split_first_chunk::<LANE>() {
            (sum, rest) = (_mm_xor_si128(moved(sum, by), load::<REFLECTED>(bytes)), after);
        }
        (remainder::<REFLECTED>(folds, sum), rest)
    }
}

/// Returns the remainder of a lane that 64 zero bits follow.
///
/// # Safety
/// The processor has PCLMULQDQ.
#[inline]
#[target_feature(enable = "pclmulqdq")]
unsafe fn remainder<const REFLECTED: bool>(folds: &Folds, lane: __m128i) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let by = factors([folds.by_half, folds.quotient]);
        let polynomial = factors([folds.polynomial, 0]);
        // Each takes the half that comes first in the message, and so has the higher powers of x.
        if REFLECTED {
            let lane = _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(lane, by), _mm_srli_si128::<8>(lane));
            let quotient = _mm_clmulepi64_si128::<0x10>(lane, by);
            let product = _mm_clmulepi64_si128::<0x00>(quotient, polynomial);
            halves(_mm_xor_si128(lane, product))[1] ^ (halves(quotient)[0] & folds.lowest)
        } else {
            let lane = _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(lane, by), _mm_slli_si128::<8>(lane));
            let quotient = _mm_xor_si128(lane, _mm_clmulepi64_si128::<0x11>(lane, by));
            let product = _mm_clmulepi64_si128::<0x01>(quotient, polynomial);
            halves(_mm_xor_si128(lane, product))[0]
        }
    }
}

/// # Safety
/// The processor has SSE2.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn halves(lane: __m128i) -> [u64; 2] {
    // SAFETY: the caller's promise.
    unsafe { [_mm_cvtsi128_si64(lane), _mm_cvtsi128_si64(_mm_srli_si128::<8>(lane))].map(|half| half as u64) }
}

/// # Safety
/// The processor has SSE2.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn factors([low, high]: [u64; 2]) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_set_epi64x(high as i64, low as i64) }
}

/// Multiplies a lane with the powers that move it.
///
/// # Safety
/// The processor has PCLMULQDQ.
#[inline]
#[target_feature(enable = "pclmulqdq")]
unsafe fn moved(lane: __m128i, by: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(lane, by), _mm_clmulepi64_si128::<0x11>(lane, by)) }
}

/// Multiplies two lanes with the powers that move them.
///
/// # Safety
/// The processor has VPCLMULQDQ and AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn moved_pair(pair: __m256i, by: __m256i) -> __m256i {
    let (low, high): (__m256i, __m256i);
    // SAFETY: the processor has the instruction, which changes nothing but its destination. In assembly, since the intrinsic
    // needs Rust 1.89.
    unsafe {
        asm!(
            "vpclmulqdq {low}, {pair}, {by}, 0x00",
            "vpclmulqdq {high}, {pair}, {by}, 0x11",
            low = out(ymm_reg) low,
            high = out(ymm_reg) high,
            pair = in(ymm_reg) pair,
            by = in(ymm_reg) by,
            options(pure, nomem, nostack, preserves_flags),
        );
        _mm256_xor_si256(low, high)
    }
}

/// # Safety
/// The processor has SSSE3.
#[inline]
#[target_feature(enable = "ssse3")]
unsafe fn load<const REFLECTED: bool>(bytes: &[u8; LANE]) -> __m128i {
    // SAFETY: the caller's promise; a load needs no alignment.
    unsafe { order::<REFLECTED>(_mm_loadu_si128(bytes.as_ptr().cast())) }
}

/// # Safety
/// The processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_pair<const REFLECTED: bool>(bytes: &[u8; 2 * LANE]) -> __m256i {
    // SAFETY: the caller's promise; a load needs no alignment.
    unsafe {
        let pair = _mm256_loadu_si256(bytes.as_ptr().cast());
        if REFLECTED { pair } else { _mm256_shuffle_epi8(pair, _mm256_broadcastsi128_si256(backwards())) }
    }
}

/// Reverses the bytes of a lane, if the most significant bit of a byte comes first.
///
/// # Safety
/// The processor has SSSE3.
#[inline]
#[target_feature(enable = "ssse3")]
unsafe fn order<const REFLECTED: bool>(lane: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { if REFLECTED { lane } else { _mm_shuffle_epi8(lane, backwards()) } }
}

/// Returns the places of a lane's bytes, backwards.
///
/// # Safety
/// The processor has SSE2.
#[inline]
#[target_feature(enable = "sse2")]
unsafe fn backwards() -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) }
}
