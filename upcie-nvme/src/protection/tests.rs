//! Checksums against published values and bit by bit implementations, and every form of protection information.

use super::*;
use crate::spec::ProtectionField;
use upcie_core::testing::Random;

/// Divides bit by bit, most significant bit first.
fn slow16(bytes: &[u8]) -> u16 {
    let mut crc = 0_u16;
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        let out = crc >> 15 != u16::from(bit);
        crc = crc << 1 ^ if out { 0x8bb7 } else { 0 };
    }
    crc
}

/// Divides bit by bit, least significant bit first, by the polynomial as it is published.
fn slow_reflected(bytes: &[u8], polynomial: u64, width: u32) -> u64 {
    let top = 1_u64 << (width - 1);
    let all = u64::MAX >> (64 - width);
    let mut crc = all;
    for bit in bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1)) {
        let out = (crc & top != 0) != (bit != 0);
        crc = (crc << 1 ^ if out { polynomial } else { 0 }) & all;
    }
    (crc.reverse_bits() >> (64 - width)) ^ all
}

#[test]
fn checksums_have_the_published_check_values() {
    let check = b"123456789";
    assert_eq!(crc16_t10_dif(check), 0xd0db);
    assert_eq!(crc32c(check), 0xe306_9283);
    assert_eq!(crc64_nvme(check), 0xae8b_1486_0a79_9888);
    // NVM, "64b CRC Test Cases": 4 KiB of zeros, of ones, counting up, counting down.
    let up: Vec<u8> = (0..4096).map(|at| at as u8).collect();
    let down: Vec<u8> = (0..4096).map(|at| 255 - at as u8).collect();
    for (bytes, crc32, crc64) in [
        (vec![0; 4096], 0x98f9_4189, 0x6482_d367_eb22_b64e),
        (vec![0xff; 4096], 0x25c1_fe13, 0xc0dd_ba73_02ec_a3ac),
        (up, 0x9c71_fe32, 0x3e72_9f5f_6750_449c),
        (down, 0x2149_41a8, 0x9a2d_f64b_8e9e_517e),
    ] {
        assert_eq!((crc32c(&bytes), crc64_nvme(&bytes)), (crc32, crc64), "{:?}…", &bytes[..4]);
    }
}

#[test]
fn checksums_of_any_length_are_those_of_single_bits() {
    let mut random = Random(3);
    for len in (0..300).chain([511, 512, 520, 4095]) {
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        assert_eq!(crc16_t10_dif(&bytes), slow16(&bytes), "{len} bytes");
        assert_eq!(u64::from(crc32c(&bytes)), slow_reflected(&bytes, 0x1edc_6f41, 32), "{len} bytes");
        assert_eq!(crc64_nvme(&bytes), slow_reflected(&bytes, 0xad93_d235_94c9_3659, 64), "{len} bytes");
        let (head, tail) = bytes.split_at(len / 3);
        assert_eq!(crc::update16(crc::update16(0, head), tail), crc16_t10_dif(&bytes), "in two parts");
    }
}

/// All forms: type, guard, bits of the storage tag, bytes of metadata, place.
fn forms() -> Vec<BlockFormat> {
    let mut all = Vec::new();
    for kind in [ProtectionType::Type1, ProtectionType::Type2, ProtectionType::Type3] {
        for (guard, bits) in
            [(Guard::Crc16, [0, 8, 32]), (Guard::Crc32, [16, 40, 64]), (Guard::Crc64, [0, 20, 48])]
        {
            for bits in bits {
                let protection = Protection::new(kind, guard).storage_tag(bits).unwrap();
                for protection in [protection, protection.first()] {
                    for metadata in [guard.protection_size() as u16, 64] {
                        for extended in [true, false] {
                            let format = BlockFormat::new(512, metadata, extended);
                            all.push(format.with_protection(protection).unwrap());
                        }
                    }
                }
            }
        }
    }
    all
}

/// Returns random data and metadata of `count` blocks.
fn blocks(format: &BlockFormat, count: usize) -> (Vec<u8>, Vec<u8>) {
    let mut random = Random(format.metadata_size() as u64);
    let mut bytes = |len: usize| (0..len).map(|_| random.next() as u8).collect();
    (bytes(count * format.data_size()), bytes(count * format.metadata_size()))
}

/// Makes and checks by one interface for both places of metadata.
fn generate(format: &BlockFormat, slba: u64, data: &[u8], metadata: &mut [u8], protect: &Protect) {
    if format.is_separate() {
        return format.generate_separate(slba, data, metadata, protect);
    }
    let mut all = interleaved(format, data, metadata);
    format.generate(slba, &mut all, protect);
    let blocks = all.chunks_exact(format.transfer_size());
    for (to, from) in metadata.chunks_exact_mut(format.metadata_size()).zip(blocks) {
        to.copy_from_slice(&from[format.data_size()..]);
    }
}

fn interleaved(format: &BlockFormat, data: &[u8], metadata: &[u8]) -> Vec<u8> {
    let (data, metadata) =
        (data.chunks_exact(format.data_size()), metadata.chunks_exact(format.metadata_size()));
    data.zip(metadata).flat_map(|(data, metadata)| [data, metadata].concat()).collect()
}

fn verify(
    format: &BlockFormat,
    slba: u64,
    data: &[u8],
    metadata: &[u8],
    protect: &Protect,
) -> Result<(), (u64, ProtectionField)> {
    let checked = match format.is_separate() {
        true => format.verify_separate(slba, data, metadata, protect),
        false => format.verify(slba, &interleaved(format, data, metadata), protect),
    };
    checked.map_err(|error| (error.block, error.kind))
}

#[test]
fn every_form_notices_each_wrong_field_at_its_block() {
    let protect =
        Protect::new().check(Checks::all()).application_tag(0x5a01).storage_tag(0x1234_5678_9abc_def0);
    let (slba, count) = (u64::from(u32::MAX) - 1, 4);
    for format in forms() {
        let protection = *format.protection().unwrap();
        let (mut data, mut metadata) = blocks(&format, count);
        generate(&format, slba, &data, &mut metadata, &protect);
        assert_eq!(verify(&format, slba, &data, &metadata, &protect), Ok(()), "{format}");

        let (size, whole) = (format.metadata_size(), protection.size());
        let place = 2 * size + if protection.is_first() { 0 } else { size - whole };
        let guard = protection.guard().size();
        // The last byte of each field of block 2; the first bit of the tags is the storage tag's.
        let mut wrong =
            vec![(place, ProtectionField::GUARD), (place + guard + 1, ProtectionField::APPLICATION_TAG)];
        if protection.reference_tag_bits() > 0 {
            wrong.push((place + whole - 1, ProtectionField::REFERENCE_TAG));
        }
        if protection.storage_tag_bits() > 0 {
            wrong.push((place + guard + 2, ProtectionField::STORAGE_TAG));
        }
        for (at, kind) in wrong {
            metadata[at] ^= 1;
            let found = verify(&format, slba, &data, &metadata, &protect);
            assert_eq!(found, Err((slba + 2, kind)), "{format}, byte {at}");
            metadata[at] ^= 1;
        }
        data[3 * 512 + 17] ^= 4;
        assert_eq!(
            verify(&format, slba, &data, &metadata, &protect),
            Err((slba + 3, ProtectionField::GUARD)),
            "{format}"
        );
        data[3 * 512 + 17] ^= 4;
        // Metadata beside protection information is under the guard only before it.
        if size > whole {
            metadata[size + if protection.is_first() { whole } else { 0 }] ^= 1;
            let wanted = if protection.is_first() { Ok(()) } else { Err((slba + 1, ProtectionField::GUARD)) };
            assert_eq!(verify(&format, slba, &data, &metadata, &protect), wanted, "{format}");
        }
    }
}

#[test]
fn the_fields_are_where_the_specification_has_them() {
    let format = |guard, bits| {
        let protection = Protection::new(ProtectionType::Type2, guard).storage_tag(bits).unwrap();
        BlockFormat::new(512, 16, true).with_protection(protection).unwrap()
    };
    let protect = Protect::new().application_tag(0xabcd).reference_tag(0x11_2233_4455).storage_tag(0x77);
    for (guard, bits, wanted) in [
        (Guard::Crc16, 0, "abcd22334455"),
        (Guard::Crc16, 8, "abcd77334455"),
        (Guard::Crc32, 16, "abcd00770000001122334455"),
        (Guard::Crc64, 8, "abcd771122334455"),
    ] {
        let mut block = vec![0; 528];
        format(guard, bits).generate(0, &mut block, &protect);
        let tail: String = block[528 - wanted.len() / 2..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(tail, wanted, "{guard:?} with {bits} bits");
    }
    let mut block = vec![0xff; 520];
    let protection = Protection::new(ProtectionType::Type1, Guard::Crc16);
    BlockFormat::new(512, 8, true).with_protection(protection).unwrap().generate(
        7,
        &mut block,
        &Protect::new(),
    );
    assert_eq!(block[512..514], crc16_t10_dif(&[0xff; 512]).to_be_bytes());
    assert_eq!(block[516..], [0, 0, 0, 7], "the number of the block");
}

#[test]
fn reference_tags_count_as_the_type_says() {
    let tags = |kind, protect: Protect| {
        let protection = Protection::new(kind, Guard::Crc16);
        [0, 1, 2].map(|index| protect.tags(&protection, 0x5_ffff_fffe, index).reference)
    };
    let plain = Protect::new();
    assert_eq!(tags(ProtectionType::Type1, plain), [0xffff_fffe, 0xffff_ffff, 0], "modulo 2^32");
    assert_eq!(tags(ProtectionType::Type2, plain.reference_tag(9)), [9, 10, 11]);
    assert_eq!(tags(ProtectionType::Type3, plain.reference_tag(9)), [9, 9, 9]);
}

#[test]
fn exempt_blocks_pass_and_masked_bits_are_not_compared() {
    let protect = Protect::new().check(Checks::all());
    for (kind, reference, passes) in [
        (ProtectionType::Type1, 0, true),
        (ProtectionType::Type2, 0, true),
        (ProtectionType::Type3, 0, false),
        (ProtectionType::Type3, 0xff, true),
    ] {
        let protection = Protection::new(kind, Guard::Crc16);
        let format = BlockFormat::new(512, 8, false).with_protection(protection).unwrap();
        let metadata = [0x12, 0x34, 0xff, 0xff, reference, reference, reference, reference];
        let found = format.verify_separate(3, &[1; 512], &metadata, &protect);
        assert_eq!(found.is_ok(), passes, "{kind:?} {reference:#x}: {found:?}");
    }
    let protection = Protection::new(ProtectionType::Type1, Guard::Crc16);
    let format = BlockFormat::new(512, 8, false).with_protection(protection).unwrap();
    let mut metadata = [0; 8];
    format.generate_separate(3, &[1; 512], &mut metadata, &protect.application_tag(0x12aa));
    let wanted = protect.application_tag(0x1255).application_mask(0xff00);
    assert_eq!(format.verify_separate(3, &[1; 512], &metadata, &wanted), Ok(()));
    let error =
        format.verify_separate(3, &[1; 512], &metadata, &wanted.application_mask(0xff0f)).unwrap_err();
    assert_eq!((error.expected, error.found), (0x1205, 0x120a));
    assert_eq!(error.to_string(), "block 3: the application tag is 0x120a, and 0x1205 was expected");
}

/// Without the bit the reference tags of type 1 would be those of the zone's first block, which the controller refuses.
#[test]
fn an_append_of_type_1_has_its_reference_tags_remapped() {
    for (kind, wanted) in
        [(ProtectionType::Type1, true), (ProtectionType::Type2, false), (ProtectionType::Type3, false)]
    {
        let protection = Protection::new(kind, Guard::Crc16);
        let format = BlockFormat::new(512, 8, false).with_protection(protection).unwrap();
        let mut words = [0; 8];
        let protect = Protect::new().action().check(Checks::GUARD);
        protect.of_append(format.protection()).put(&mut words, &format, 0x1000, 0);
        // PRACT is bit 29 of dword 12, the check of the guard bit 28, PIREMAP bit 25.
        assert_eq!(words[6], 1 << 29 | 1 << 28 | u64::from(wanted) << 25, "{kind:?}");
    }
}
