//! The powers of x that move a part of a message, and what ends its division.

/// Bytes of a lane: half of what is multiplied has the first eight of them, half the others.
pub(in super::super) const LANE: usize = 16;

/// The powers of x, modulo a polynomial, that move a lane: for the low and for the high half of it. A polynomial of degree n
/// stands for its product with x to the power of 64 - n, so that all have degree 64.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has an implementation"))]
pub(in super::super) struct Folds {
    pub(super) by_8_lanes: [u64; 2],
    pub(super) by_4_lanes: [u64; 2],
    pub(super) by_2_lanes: [u64; 2],
    pub(super) by_1_lane: [u64; 2],
    /// Moves the first half of a lane behind the lane.
    pub(super) by_half: u64,
    /// x to the power of 128 divided by the polynomial, without the remainder and the highest coefficient.
    pub(super) quotient: u64,
    /// The polynomial without its highest coefficient. If reflected, it and the quotient lack their lowest one in its place.
    pub(super) polynomial: u64,
    /// All ones if reflected, and the polynomial's lowest coefficient is 1.
    pub(super) lowest: u64,
    /// The least significant bit of a byte comes first.
    pub(super) reflected: bool,
}

impl Folds {
    /// Computes the powers for the polynomial of degree `width` whose other coefficients are `polynomial`.
    pub(in super::super) const fn new(polynomial: u64, width: u32, reflected: bool) -> Self {
        let polynomial = polynomial << (64 - width);
        let quotient = quotient(polynomial);
        Self {
            by_8_lanes: powers(polynomial, reflected, 8 * LANE),
            by_4_lanes: powers(polynomial, reflected, 4 * LANE),
            by_2_lanes: powers(polynomial, reflected, 2 * LANE),
            by_1_lane: powers(polynomial, reflected, LANE),
            by_half: if reflected { power(polynomial, 127).reverse_bits() } else { power(polynomial, 128) },
            quotient: if reflected { quotient.reverse_bits() << 1 | 1 } else { quotient },
            polynomial: if reflected { polynomial.reverse_bits() << 1 | 1 } else { polynomial },
            lowest: if reflected && polynomial & 1 != 0 { u64::MAX } else { 0 },
            reflected,
        }
    }
}

/// Returns what the low and the high half of a lane are multiplied with to move it by `bytes`.
const fn powers(polynomial: u64, reflected: bool, bytes: usize) -> [u64; 2] {
    let bits = bytes as u32 * 8;
    if reflected {
        // The low half comes first in the message. The product of two reflected factors lacks one bit: it is that of the
        // factors times x.
        let [low, high] = [power(polynomial, bits + 63), power(polynomial, bits - 1)];
        [low.reverse_bits(), high.reverse_bits()]
    } else {
        [power(polynomial, bits), power(polynomial, bits + 64)]
    }
}

/// Returns x to the power of `exponent`, modulo the polynomial.
const fn power(polynomial: u64, exponent: u32) -> u64 {
    let (mut value, mut done) = (1_u64, 0);
    while done < exponent {
        let carry = value >> 63 != 0;
        value <<= 1;
        if carry {
            value ^= polynomial;
        }
        done += 1;
    }
    value
}

/// Returns x to the power of 128 divided by the polynomial, without the remainder and the highest coefficient.
const fn quotient(polynomial: u64) -> u64 {
    // The rest after the highest coefficient of the quotient was taken: the polynomial, at x to the power of 64.
    let (mut left, mut quotient, mut done) = (polynomial, 0_u64, 0);
    while done < 64 {
        let carry = left >> 63 != 0;
        left <<= 1;
        quotient = quotient << 1 | carry as u64;
        if carry {
            left ^= polynomial;
        }
        done += 1;
    }
    quotient
}
