//! Signatures of partition tables, file systems and volumes on a namespace.

/// Number of bytes to search at each end.
pub const WINDOW: usize = 1 << 20;

/// A signature at a fixed offset.
struct Mark {
    at: usize,
    bytes: &'static [u8],
    name: &'static str,
}

const fn mark(at: usize, bytes: &'static [u8], name: &'static str) -> Mark {
    Mark { at, bytes, name }
}

const MARKS: [Mark; 27] = [
    mark(0, b"LUKS\xba\xbe", "a LUKS volume"),
    mark(0, b"XFSB", "an XFS file system"),
    mark(0, b"hsqs", "a squashfs file system"),
    mark(0, b"bluestore block device", "a Ceph BlueStore volume"),
    mark(3, b"NTFS    ", "an NTFS file system"),
    mark(3, b"EXFAT   ", "an exFAT file system"),
    mark(3, b"-FVE-FS-", "a BitLocker volume"),
    mark(3, b"ReFS\0\0\0\0", "a ReFS file system"),
    mark(32, b"NXSB", "an APFS container"),
    mark(54, b"FAT1", "a FAT file system"),
    mark(82, b"FAT32   ", "a FAT file system"),
    mark(24, b"LVM2 001", "an LVM volume"),
    mark(512 + 24, b"LVM2 001", "an LVM volume"),
    mark(1024 + 24, b"LVM2 001", "an LVM volume"),
    mark(1536 + 24, b"LVM2 001", "an LVM volume"),
    mark(0, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    mark(4096, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
    mark(1024 + 56, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
    mark(1024, b"\x10\x20\xf5\xf2", "an F2FS file system"),
    mark(1024, b"\xe2\xe1\xf5\xe0", "an EROFS file system"),
    mark(
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
        "a bcache or bcachefs volume",
    ),
    mark(4096 - 10, b"SWAPSPACE2", "swap"),
    mark(4096 - 10, b"SWAP-SPACE", "swap"),
    mark(65536 - 10, b"SWAPSPACE2", "swap"),
    mark(32768 + 1, b"CD001", "an ISO 9660 file system"),
    mark(65536 + 64, b"_BHRfS_M", "a Btrfs file system"),
    mark(16384, b"SKUL\xba\xbe", "a LUKS volume"),
];

/// Block sizes of partition tables.
const BLOCKS: [usize; 2] = [512, 4096];

/// Finds signatures in the first and the last bytes of a namespace.
pub fn find(head: &[u8], tail: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let has =
        |bytes: &[u8], at: usize, mark: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(mark));
    if BLOCKS.iter().any(|&block| has(head, block, b"EFI PART")) {
        found.push("a GPT partition table");
    } else if is_mbr(head) {
        found.push("an MBR partition table");
    }
    found.extend(MARKS.iter().filter(|mark| has(head, mark.at, mark.bytes)).map(|mark| mark.name));
    if is_zfs(head) || is_zfs(tail) {
        found.push("a ZFS pool");
    }
    let backup = |&block: &usize| tail.len().checked_sub(block).is_some_and(|at| has(tail, at, b"EFI PART"));
    if BLOCKS.iter().any(backup) && !found.contains(&"a GPT partition table") {
        found.push("the backup of a GPT partition table");
    }
    if tail.len().checked_sub(8192).is_some_and(|at| has(tail, at / 4096 * 4096, b"\xfc\x4e\x2b\xa9")) {
        found.push("a member of a RAID");
    }
    found.dedup();
    found
}

/// Returns true if the table has a valid entry. The end mark alone does not tell: boot sectors have it too.
fn is_mbr(head: &[u8]) -> bool {
    let Some(table) = head.get(446..512) else { return false };
    let mut used = false;
    for entry in table[..64].chunks_exact(16) {
        let sectors = u32::from_le_bytes([entry[12], entry[13], entry[14], entry[15]]);
        match (entry[0], entry[4], sectors) {
            (0 | 0x80, 0, 0) => {}
            (0 | 0x80, 1.., 1..) => used = true,
            _ => return false,
        }
    }
    used && table[64..] == [0x55, 0xaa]
}

/// Returns true if a ZFS label is found: its second half has uberblocks, 1 KiB or more apart.
fn is_zfs(window: &[u8]) -> bool {
    const LABEL: usize = 256 << 10;
    const UBERBLOCK: u64 = 0x00ba_b10c;
    let labels = window.chunks_exact(LABEL);
    let mut blocks = labels.flat_map(|label| label[LABEL / 2..].chunks_exact(1024));
    blocks.any(|block| {
        let magic = block.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        magic == UBERBLOCK || magic.swap_bytes() == UBERBLOCK
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a window of zeros and some bytes.
    fn window(parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut window = vec![0; WINDOW];
        for (at, bytes) in parts {
            window[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        window
    }

    #[test]
    fn partition_tables_and_file_systems_are_named() {
        let empty = window(&[]);
        assert!(find(&empty, &empty).is_empty());
        for (at, bytes, name) in [
            (512, &b"EFI PART"[..], "a GPT partition table"),
            (4096, b"EFI PART", "a GPT partition table"),
            (1024 + 56, b"\x53\xef", "ext4"),
            (0, b"XFSB", "XFS"),
            (65536 + 64, b"_BHRfS_M", "Btrfs"),
            (512 + 24, b"LVM2 001", "LVM"),
            (0, b"LUKS\xba\xbe", "LUKS"),
            (4086, b"SWAPSPACE2", "swap"),
            (3, b"NTFS    ", "NTFS"),
            (82, b"FAT32   ", "FAT"),
            (128 << 10, b"\x0c\xb1\xba\0\0\0\0\0", "ZFS"),
        ] {
            let found = find(&window(&[(at, bytes)]), &empty);
            assert!(found.len() == 1 && found[0].contains(name), "{name}: {found:?}");
        }
    }

    #[test]
    fn an_mbr_is_told_from_a_boot_sector() {
        let entry = [0x80, 1, 1, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0];
        let table = [(446, &entry[..]), (510, &[0x55, 0xaa])];
        assert_eq!(find(&window(&table), &[]), ["an MBR partition table"]);
        assert!(find(&window(&[(510, &[0x55, 0xaa])]), &[]).is_empty());
        let code = window(&[(440, &[0x41; 70][..]), (510, &[0x55, 0xaa])]);
        assert!(find(&code, &[]).is_empty());
    }

    #[test]
    fn signatures_at_the_end_are_found() {
        let head = window(&[]);
        let backup = window(&[(WINDOW - 512, &b"EFI PART"[..])]);
        assert_eq!(find(&head, &backup), ["the backup of a GPT partition table"]);
        let label = window(&[(WINDOW - (128 << 10), &b"\0\0\0\0\0\xba\xb1\x0c"[..])]);
        assert_eq!(find(&head, &label), ["a ZFS pool"]);
        assert!(find(&[], &[]).is_empty());
    }
}
