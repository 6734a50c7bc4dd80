//! The import of a shared region, against the bytes of its owner.

use crate::wire::{MEMORY, Peer, clear_memory};
use std::time::Duration;
use upcie_core::share::SharedRegion;

// The first byte tells how many descriptors of memory come along: none, one, or one with each half.

pub fn target(data: &[u8]) {
    play(data);
}

/// Imports a region; returns whether that succeeds.
fn play(data: &[u8]) -> bool {
    let Some((&first, message)) = data.split_first() else { return false };
    let (peer, theirs) = Peer::new();
    clear_memory();
    let (head, tail) = message.split_at(message.len() / 2);
    // A part without bytes sends no descriptor.
    peer.send(head, first & 1 != 0);
    peer.send(tail, first & 2 != 0);
    peer.end();
    let Ok(mut region) = SharedRegion::import(&theirs, Duration::from_millis(50)) else { return false };
    assert_eq!(region.len(), MEMORY, "the whole file and no more");
    assert!(!region.device().contains(char::is_control));
    let page = region.page_size().bytes();
    for offset in [0, 1, page - 1, page, MEMORY - 1] {
        let iova = region.iova(offset).expect("an address of each byte");
        assert_eq!(iova % page as u64, (offset % page) as u64);
    }
    for offset in [MEMORY, MEMORY + 1, usize::MAX] {
        assert!(region.iova(offset).is_err() && region.read_at(offset, &mut [0]).is_err());
    }
    region.write_at(8, b"shared").expect("memory");
    let mut back = [0; 6];
    region.read_at(8, &mut back).expect("memory");
    assert_eq!(&back, b"shared");
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let make = |kind: u16, table: &[u64], name: &str| {
        let mut bytes = vec![1];
        bytes.extend(b"uPCIe-DM");
        bytes.extend(1_u16.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        for word in [name.len() as u32, table.len() as u32, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        for word in [7_u64, MEMORY as u64, 4096] {
            bytes.extend(word.to_ne_bytes());
        }
        table.iter().for_each(|address| bytes.extend(address.to_ne_bytes()));
        bytes.extend(name.as_bytes());
        bytes
    };
    let pages: Vec<u64> = (0..MEMORY as u64 / 4096).map(|page| 0x10_0000 + page * 0x3000).collect();
    vec![make(0, &[0x1_0000_0000], "0000:01:00.0"), make(3, &pages, "emu")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_are_regions() {
        assert!(seeds().iter().all(|seed| play(seed)));
        let twice = [vec![3], seeds()[0][1..].to_vec()].concat();
        assert!(!play(&twice), "two descriptors");
    }
}
