//! The checksums of guards: by tables, 16 bytes per step, and what [`fold`](super::fold) can shorten, by that.

use super::fold::{Folds, fold};

/// Bytes of a step.
const STEP: usize = 16;

/// Makes the tables of a CRC: table `n` has the remainders of each byte that `n` further bytes follow.
macro_rules! tables {
    ($type:ty, $first:expr, $next:expr) => {{
        let mut tables = [[0 as $type; 256]; STEP];
        let mut byte = 0;
        while byte < 256 {
            tables[0][byte] = $first(byte as $type);
            byte += 1;
        }
        let mut number = 1;
        while number < STEP {
            let mut byte = 0;
            while byte < 256 {
                tables[number][byte] = $next(&tables[0], tables[number - 1][byte]);
                byte += 1;
            }
            number += 1;
        }
        tables
    }};
}

/// Returns the remainder of a byte whose most significant bit comes first.
const fn first16(byte: u16) -> u16 {
    let (mut crc, mut bit) = (byte << 8, 0);
    while bit < 8 {
        crc = if crc & 0x8000 != 0 { crc << 1 ^ 0x8bb7 } else { crc << 1 };
        bit += 1;
    }
    crc
}

const fn next16(first: &[u16; 256], crc: u16) -> u16 {
    crc << 8 ^ first[(crc >> 8) as usize]
}

const fn first32(byte: u32) -> u32 {
    let (mut crc, mut bit) = (byte, 0);
    while bit < 8 {
        crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        bit += 1;
    }
    crc
}

const fn next32(first: &[u32; 256], crc: u32) -> u32 {
    crc >> 8 ^ first[(crc & 0xff) as usize]
}

const fn first64(byte: u64) -> u64 {
    let (mut crc, mut bit) = (byte, 0);
    while bit < 8 {
        crc = if crc & 1 != 0 { crc >> 1 ^ 0x9a6c_9329_ac4b_c9b5 } else { crc >> 1 };
        bit += 1;
    }
    crc
}

const fn next64(first: &[u64; 256], crc: u64) -> u64 {
    crc >> 8 ^ first[(crc & 0xff) as usize]
}

/// The powers of x for folding, one for each polynomial.
pub(super) static FOLDS16: Folds = Folds::new(0x8bb7, 16, false);
pub(super) static FOLDS32: Folds = Folds::new(0x1edc_6f41, 32, true);
pub(super) static FOLDS64: Folds = Folds::new(0xad93_d235_94c9_3659, 64, true);

static TABLES16: [[u16; 256]; STEP] = tables!(u16, first16, next16);
static TABLES32: [[u32; 256]; STEP] = tables!(u32, first32, next32);
static TABLES64: [[u64; 256]; STEP] = tables!(u64, first64, next64);

/// Returns the remainder of the 16 bytes of a step.
macro_rules! step {
    ($tables:ident, $step:expr) => {{
        let step: [u8; STEP] = $step;
        $tables.iter().rev().zip(step).fold(0, |crc, (table, byte)| crc ^ table[usize::from(byte)])
    }};
}

/// Continues a remainder with bytes, 16 at a time: `mix` adds the remainder to the first bytes of a step, `byte` takes one
/// byte.
macro_rules! run {
    ($tables:ident, $crc:ident, $bytes:ident, $mix:expr, $byte:expr) => {{
        let steps = $bytes.chunks_exact(STEP);
        let rest = steps.remainder();
        for step in steps.filter_map(|step| step.first_chunk::<STEP>()) {
            $crc = step!($tables, $mix(*step, $crc));
        }
        for byte in rest {
            $crc = $byte($crc, *byte);
        }
        $crc
    }};
}

/// Continues a CRC-16/T10-DIF, which begins with 0.
pub(super) fn update16(mut crc: u16, mut bytes: &[u8]) -> u16 {
    let mix = |mut step: [u8; STEP], crc: u16| {
        let [high, low] = crc.to_be_bytes();
        (step[0], step[1]) = (step[0] ^ high, step[1] ^ low);
        step
    };
    let byte = |crc: u16, byte: u8| crc << 8 ^ TABLES16[0][usize::from((crc >> 8) as u8 ^ byte)];
    if let Some((remainder, rest)) = fold(&FOLDS16, mix([0; STEP], crc), bytes) {
        (crc, bytes) = ((remainder >> 48) as u16, rest);
    }
    run!(TABLES16, crc, bytes, mix, byte)
}

/// Continues a CRC-32C, which begins with all ones and is inverted at its end.
pub(super) fn update32(mut crc: u32, mut bytes: &[u8]) -> u32 {
    let mix = |mut step: [u8; STEP], crc: u32| {
        step.iter_mut().zip(crc.to_le_bytes()).for_each(|(byte, with)| *byte ^= with);
        step
    };
    let byte = |crc: u32, byte: u8| crc >> 8 ^ TABLES32[0][usize::from(crc as u8 ^ byte)];
    if let Some((remainder, rest)) = fold(&FOLDS32, mix([0; STEP], crc), bytes) {
        (crc, bytes) = (remainder as u32, rest);
    }
    run!(TABLES32, crc, bytes, mix, byte)
}

/// Continues a CRC-64/NVME, which begins with all ones and is inverted at its end.
pub(super) fn update64(mut crc: u64, mut bytes: &[u8]) -> u64 {
    let mix = |mut step: [u8; STEP], crc: u64| {
        step.iter_mut().zip(crc.to_le_bytes()).for_each(|(byte, with)| *byte ^= with);
        step
    };
    let byte = |crc: u64, byte: u8| crc >> 8 ^ TABLES64[0][usize::from(crc as u8 ^ byte)];
    if let Some((remainder, rest)) = fold(&FOLDS64, mix([0; STEP], crc), bytes) {
        (crc, bytes) = (remainder, rest);
    }
    run!(TABLES64, crc, bytes, mix, byte)
}

/// Returns the CRC-16/T10-DIF of `bytes`: polynomial 8BB7h, most significant bit first, from 0 on.
///
/// ```
/// assert_eq!(upcie_nvme::protection::crc16_t10_dif(b"123456789"), 0xd0db);
/// ```
#[must_use]
pub fn crc16_t10_dif(bytes: &[u8]) -> u16 {
    update16(0, bytes)
}

/// Returns the CRC-32C of `bytes`: polynomial 1EDC6F41h, least significant bit first, from all ones on, inverted.
///
/// ```
/// assert_eq!(upcie_nvme::protection::crc32c(b"123456789"), 0xe306_9283);
/// ```
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    !update32(!0, bytes)
}

/// Returns the CRC-64/NVME of `bytes`: polynomial AD93D23594C93659h, least significant bit first, from all ones on, inverted.
///
/// ```
/// assert_eq!(upcie_nvme::protection::crc64_nvme(b"123456789"), 0xae8b_1486_0a79_9888);
/// ```
#[must_use]
pub fn crc64_nvme(bytes: &[u8]) -> u64 {
    !update64(!0, bytes)
}
