//! The guards of protection information, a byte at a time: apart from the driver's, so that both do not share a mistake.

use crate::spec::ProtectionFormat;

/// Returns the table of a checksum whose least significant bit comes first.
const fn reflected(polynomial: u64) -> [u64; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u64, 0);
        while bit < 8 {
            value = (value >> 1) ^ ((value & 1) * polynomial);
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

/// Returns the table of CRC-16/T10-DIF, whose most significant bit comes first.
const fn forward() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            value = (value << 1) ^ ((value >> 15) * 0x8bb7);
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

static T10: [u16; 256] = forward();
/// 1EDC6F41h and AD93D23594C93659h, bits reversed.
static CASTAGNOLI: [u64; 256] = reflected(0x82f6_3b78);
static NVME: [u64; 256] = reflected(0x9a6c_9329_ac4b_c9b5);

/// Returns the guard of the bytes in `parts`, one after the other.
pub(super) fn guard(form: ProtectionFormat, parts: [&[u8]; 2]) -> u64 {
    let bytes = parts.into_iter().flatten();
    let run = |table: &[u64; 256], all: u64| {
        let end = bytes.clone().fold(all, |value, &byte| value >> 8 ^ table[usize::from(value as u8 ^ byte)]);
        end ^ all
    };
    match form {
        ProtectionFormat::GUARD_32 => run(&CASTAGNOLI, u64::from(u32::MAX)),
        ProtectionFormat::GUARD_64 => run(&NVME, u64::MAX),
        _ => {
            let step = |value: u16, &byte: &u8| value << 8 ^ T10[usize::from((value >> 8) as u8 ^ byte)];
            bytes.fold(0, step).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_have_the_published_check_values() {
        let of = |form| guard(form, [b"1234", b"56789"]);
        assert_eq!(of(ProtectionFormat::GUARD_16), 0xd0db);
        assert_eq!(of(ProtectionFormat::GUARD_32), 0xe306_9283);
        assert_eq!(of(ProtectionFormat::GUARD_64), 0xae8b_1486_0a79_9888);
    }
}
