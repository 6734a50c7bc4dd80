//! Keys, their commands and their lists against the byte offsets and bits of the specification's figures.

use core::mem::offset_of;

use zerocopy::{FromZeros, IntoBytes};

use crate::spec::*;
use upcie_core::testing::Random;

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes).unwrap()
}

/// Bytes of a random length below `most`.
fn noise(random: &mut Random, most: usize) -> Vec<u8> {
    let len = random.below(most);
    (0..len).map(|_| random.next() as u8).collect()
}

#[test]
fn key_value_identify_data_has_the_specified_layout() {
    assert_eq!(
        [
            offset_of!(KeyValueNamespace, size),
            offset_of!(KeyValueNamespace, utilization),
            offset_of!(KeyValueNamespace, features),
            offset_of!(KeyValueNamespace, format_count),
            offset_of!(KeyValueNamespace, multi_path_and_sharing),
            offset_of!(KeyValueNamespace, optimal_value_granularity),
            offset_of!(KeyValueNamespace, attributes),
            offset_of!(KeyValueNamespace, nguid),
            offset_of!(KeyValueNamespace, eui64),
            offset_of!(KeyValueNamespace, formats),
            offset_of!(KeyValueNamespace, vendor_specific),
        ],
        [0, 16, 24, 25, 26, 32, 43, 48, 64, 72, 3840]
    );
    let mut page = [0; 4096];
    page[25] = 1;
    // The first format: keys of 8 bytes, values of 4 KiB, 9 keys, degraded; the second: keys of 300, which no command has.
    (page[72], page[75], page[77], page[80]) = (8, 3, 0x10, 9);
    (page[88], page[89], page[92]) = (0x2c, 1, 7);
    let id = <KeyValueNamespace as IdentifyData>::from_page(&page);
    let [first, second] = id.formats() else { panic!("two formats") };
    assert_eq!((first.max_key_length, first.max_value_length, first.max_keys), (8, 4096, 9));
    assert_eq!((first.options.relative_performance(), second.max_key_length), (3, 300));
    assert_eq!((id.max_key_length(), id.max_value_length()), (16, 4096));
    let all = KeyValueNamespace { format_count: 255, ..FromZeros::new_zeroed() };
    assert_eq!((all.formats().len(), all.max_key_length()), (16, 0));
}

#[test]
fn key_commands_have_their_fields_in_place() {
    let long = Key::from(*b"0123456789abcdef");
    let options = StoreOptions::MUST_NOT_EXIST | StoreOptions::UNCOMPRESSED;
    let store = Command::store(7, long, 0x12345, options);
    assert_eq!((store.opcode, store.nsid, store.cdw10, store.cdw11), (0x01, 7, 0x12345, 0x610));
    // Byte 0 of the key is the lowest byte of dword 2.
    assert_eq!(store.cdw2, u32::from_le_bytes(*b"0123"));
    assert_eq!(store.cdw3, u32::from_le_bytes(*b"4567"));
    assert_eq!(store.cdw14, u32::from_le_bytes(*b"89ab"));
    assert_eq!(store.cdw15, u32::from_le_bytes(*b"cdef"));
    assert_eq!(store.as_bytes()[8..16], b"01234567"[..]);
    assert_eq!(store.as_bytes()[56..64], b"89abcdef"[..]);
    let short = Command::retrieve(7, key(b"\xff"), 4096, RetrieveOptions::RAW);
    assert_eq!((short.opcode, short.cdw10, short.cdw11), (0x02, 4096, 0x101));
    assert_eq!((short.cdw2, short.cdw3, short.cdw14, short.cdw15), (0xff, 0, 0, 0));
    let list = Command::list_keys(7, None, 4096);
    assert_eq!((list.opcode, list.cdw10, list.cdw11, list.cdw2), (0x06, 4096, 0, 0));
    assert_eq!(Command::list_keys(7, Some(long), 8).cdw11, 16);
    assert_eq!((Command::delete_key(7, long).opcode, Command::key_exists(7, long).opcode), (0x10, 0x14));
    assert_eq!(Command::key_exists(7, key(b"abc")).cdw11, 3);
    let directions = [0x01, 0x02, 0x06, 0x10, 0x14].map(|opcode| KeyValueOpcode(opcode).direction());
    use DataDirection::{FromController, ToController};
    let none = DataDirection::None;
    assert_eq!(directions, [ToController, FromController, FromController, none, none]);
}

#[test]
fn a_command_returns_its_key() {
    let mut random = Random(4);
    for _ in 0..1000 {
        let bytes = noise(&mut random, 20);
        match Key::new(&bytes) {
            Ok(key) => {
                assert_eq!((key.as_bytes(), key.len()), (&bytes[..], bytes.len()));
                assert_eq!(Command::delete_key(1, key).key(), Some(key));
                let options = RetrieveOptions::RAW;
                assert_eq!(Command::retrieve(1, key, 9, options).key_options(), options.bits());
            }
            Err(error) => assert!(!(1..=16).contains(&bytes.len()) && error == InvalidKey(bytes.len())),
        }
        let mut command = Command::default();
        command.as_mut_bytes().iter_mut().for_each(|byte| *byte = random.next() as u8);
        let found = command.key().map(|key| key.len());
        assert_eq!(found, Some(usize::from(command.key_length())).filter(|len| (1..=16).contains(len)));
    }
    assert_eq!((Command::list_keys(1, None, 64).key(), Command::default().key()), (None, None));
}

/// The order is that of the bytes, and a key that another begins with comes first: also if the rest is zeros.
#[test]
fn keys_are_ordered_by_their_bytes() {
    let sorted: [&[u8]; 6] = [b"\0", b"\0\0", b"a", b"a\0", b"a\x01", b"b"];
    assert!(sorted.map(key).is_sorted_by(|one, next| one < next));
    let mut random = Random(5);
    for _ in 0..1000 {
        let [one, other] = [0; 2].map(|_| {
            let mut bytes = noise(&mut random, 16);
            bytes.push(0);
            bytes
        });
        assert_eq!(key(&one).cmp(&key(&other)), one.cmp(&other), "{one:?} {other:?}");
    }
}

#[test]
fn keys_are_shown_as_text_or_in_hexadecimal() {
    for (bytes, shown) in
        [(&b"user:17"[..], r#""user:17""#), (b"a b", r#""a b""#), (b"a\"b", "0x612262"), (b"\n", "0x0a")]
    {
        assert_eq!(key(bytes).to_string(), shown);
    }
    assert_eq!(InvalidKey(17).to_string(), "a key has 1 to 16 bytes, and this one 17");
}

/// A controller's list: as many keys as it counts and has, each of a possible length, whatever the bytes.
#[test]
fn any_bytes_are_a_list_of_keys() {
    let mut random = Random(6);
    for _ in 0..10_000 {
        let mut bytes = noise(&mut random, 256);
        if let (0, Some(count)) = (random.below(2), bytes.first_chunk_mut::<4>()) {
            *count = (random.below(40) as u32).to_le_bytes();
        }
        // Lengths that may be those of keys.
        for at in (4..bytes.len().saturating_sub(1)).step_by(4).filter(|at| at % 8 == 4) {
            (bytes[at], bytes[at + 1]) = (random.below(18) as u8, 0);
        }
        let count = bytes.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
        let keys: Vec<Key> = KeyList::new(&bytes).collect();
        let used: usize = keys.iter().map(|key| 2 + key.len()).sum();
        assert!(keys.len() as u64 <= count.into() && used <= bytes.len());
    }
    let mut list = 3_u32.to_le_bytes().to_vec();
    list.extend([1, 0, b'a', 0, 0, 0, b'b', 0]);
    assert_eq!(KeyList::new(&list).collect::<Vec<_>>(), [key(b"a")], "the list ends at a key of no bytes");
}
