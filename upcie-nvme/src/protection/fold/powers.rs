//! The powers of x that move a part of a message.

/// Bytes of a lane: half of what is multiplied has the first eight of them, half the others.
pub(in super::super) const LANE: usize = 16;

/// The powers of x, modulo a polynomial, that move a lane: for the low and for the high half of it.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only x86-64 has an implementation"))]
pub(in super::super) struct Folds {
    pub(super) by_8_lanes: [u64; 2],
    pub(super) by_4_lanes: [u64; 2],
    pub(super) by_2_lanes: [u64; 2],
    pub(super) by_1_lane: [u64; 2],
    /// The least significant bit of a byte comes first.
    pub(super) reflected: bool,
}

impl Folds {
    /// Computes the powers for the polynomial of degree `width` whose other coefficients are `polynomial`.
    pub(in super::super) const fn new(polynomial: u64, width: u32, reflected: bool) -> Self {
        Self {
            by_8_lanes: powers(polynomial, width, reflected, 8 * LANE),
            by_4_lanes: powers(polynomial, width, reflected, 4 * LANE),
            by_2_lanes: powers(polynomial, width, reflected, 2 * LANE),
            by_1_lane: powers(polynomial, width, reflected, LANE),
            reflected,
        }
    }
}

/// Returns what the low and the high half of a lane are multiplied with to move it by `bytes`.
const fn powers(polynomial: u64, width: u32, reflected: bool, bytes: usize) -> [u64; 2] {
    let bits = bytes as u32 * 8;
    if reflected {
        // The low half comes first in the message. The product of two reflected factors lacks one bit: it is that of the
        // factors times x.
        let [low, high] = [power(polynomial, width, bits + 63), power(polynomial, width, bits - 1)];
        [low.reverse_bits(), high.reverse_bits()]
    } else {
        [power(polynomial, width, bits), power(polynomial, width, bits + 64)]
    }
}

/// Returns x to the power of `exponent`, modulo the polynomial.
const fn power(polynomial: u64, width: u32, exponent: u32) -> u64 {
    let (mut value, mut done) = (1_u64, 0);
    while done < exponent {
        let carry = value >> (width - 1) & 1 != 0;
        value <<= 1;
        if carry {
            value ^= polynomial;
        }
        if width < 64 {
            value &= (1 << width) - 1;
        }
        done += 1;
    }
    value
}
