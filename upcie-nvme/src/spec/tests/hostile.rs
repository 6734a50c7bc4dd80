//! Every helper returns an answer, whatever bytes a controller sends.

use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::spec::*;
use upcie_core::testing::Random;

fn fill<T: FromBytes + IntoBytes>(random: &mut Random) -> T {
    let mut value = T::new_zeroed();
    value.as_mut_bytes().fill_with(|| random.next() as u8);
    value
}

fn no_control_characters(text: &str) -> bool {
    !text.contains(char::is_control)
}

#[test]
fn structures_of_noise_do_not_panic() {
    let mut random = Random(0x5eed);
    for _ in 0..500 {
        let id: IdentifyController = fill(&mut random);
        for text in [id.model(), id.serial(), id.firmware(), id.subsystem_name()] {
            assert!(no_control_characters(&text), "{text:?}");
        }
        assert!((1..=32).contains(&id.power_states().len()));
        for state in id.power_states() {
            let _ =
                (state.max_power(), state.entry_latency(), state.exit_latency(), state.is_non_operational());
        }
        let _ = (
            id.max_transfer(random.next()),
            id.total_capacity(),
            id.unallocated_capacity(),
            format!("{id:?}"),
        );

        let ns: IdentifyNamespace = fill(&mut random);
        assert!(ns.format_index() < 64 && (1..=64).contains(&ns.format_count()));
        let _ = (ns.lba_format(), ns.block_size(), format!("{ns:?}"));

        let smart: SmartLog = fill(&mut random);
        let _ = (smart.warnings(), smart.data_units_written(), format!("{smart:?}"));
        let firmware: FirmwareSlotLog = fill(&mut random);
        let _ = (firmware.active_slot(), firmware.next_slot());
        for slot in 0..=8 {
            assert!(firmware.revision(slot).is_none_or(|revision| no_control_characters(&revision)));
        }
        let entry: ErrorLogEntry = fill(&mut random);
        let _ = (entry.is_used(), entry.status().to_string());
        let command: Command = fill(&mut random);
        let _ = (command.slba(), command.block_count(), command.log_page_bytes(), command.log_page_offset());
        let completion: CompletionEntry = fill(&mut random);
        let _ = (completion.result(), completion.phase(), format!("{completion:?}"));
    }
}

#[test]
fn registers_of_noise_do_not_panic() {
    let mut random = Random(0xcafe);
    for bits in (0..10_000).map(|_| random.next()).chain([0, u64::MAX]) {
        let cap = Capabilities::from_bits(bits);
        assert!((1..=65536).contains(&cap.max_queue_entries()));
        assert!(cap.page_size_min().is_power_of_two() && cap.page_size_max().is_power_of_two());
        let _ = (cap.timeout(), cap.doorbell_stride(), format!("{cap:?}"));
        let low = bits as u32;
        let _ = format!("{:?} {:?}", Configuration::from_bits(low), ControllerStatus::from_bits(low));
        let _ = format!("{:?} {:?}", CmbLocation::from_bits(low), CmbSize::from_bits(low).bytes());
        let _ = format!("{:?} {}", PmrCapabilities::from_bits(low), Version::from_bits(low));
        let crto = ReadyTimeouts::from_bits(low);
        assert!(crto.with_media().max(crto.independent_of_media()).as_millis() <= 65535 * 500);
    }
}

#[test]
fn mdts_for_all_values_and_page_sizes() {
    for mdts in 0..=u8::MAX {
        let id = IdentifyController { mdts, ..FromZeros::new_zeroed() };
        for mpsmin in 0..16 {
            let page = Capabilities::new().with_mpsmin(mpsmin).page_size_min();
            let exact = 1_u128.checked_shl(mdts.into()).and_then(|pages| pages.checked_mul(page.into()));
            let fits = exact.and_then(|bytes| u64::try_from(bytes).ok()).filter(|_| mdts != 0);
            assert_eq!(id.max_transfer(page), fits, "MDTS {mdts}, MPSMIN {mpsmin}");
        }
    }
}

#[test]
fn formats_for_all_bytes() {
    for flbas in 0..=u8::MAX {
        for nlbaf in 0..=u8::MAX {
            let mut ns = IdentifyNamespace { flbas, nlbaf, ..FromZeros::new_zeroed() };
            ns.lbaf = core::array::from_fn(|index| LbaFormat::new().with_ms(index as u16).with_lbads(9));
            let low = usize::from(flbas & 0xf);
            let index = if nlbaf >= 16 { low + usize::from(flbas >> 5 & 3) * 16 } else { low };
            assert_eq!(ns.format_index(), index);
            let has = index <= usize::from(nlbaf);
            assert_eq!(ns.lba_format().map(|format| usize::from(format.ms())), has.then_some(index));
        }
    }
}

#[test]
fn block_sizes_for_all_lbads() {
    for lbads in 0..=u8::MAX {
        let size = LbaFormat::new().with_lbads(lbads).block_size();
        assert_eq!(size, (9..64).contains(&lbads).then(|| 1 << lbads));
    }
}

#[test]
fn namespace_lists_end() {
    let list = |nsids: &[u32]| {
        let mut list = NamespaceList::new_zeroed();
        list.nsids[..nsids.len()].copy_from_slice(nsids);
        list
    };
    let above = |nsid, nsids: &[u32]| list(nsids).above(nsid).collect::<Vec<_>>();
    assert_eq!(above(0, &[1, 2, 9]), [1, 2, 9]);
    assert_eq!(above(0, &[1, 2, 2, 3]), [1, 2]);
    assert_eq!(above(0, &[5, 4, 6]), [5]);
    assert_eq!(above(2, &[1, 2, 3]), [0_u32; 0]);
    assert_eq!(above(0, &[7, ALL_NAMESPACES]), [7]);
    assert!(list(&[ALL_NAMESPACES]).is_overflowed());
    assert!(!list(&[1]).is_overflowed());
    let full: Vec<u32> = (1..=1024).collect();
    assert_eq!(above(0, &full), full);
}

#[test]
fn descriptors_are_walked_within_their_bytes() {
    let mut bytes = vec![1, 8, 0, 0, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
    bytes.extend([3, 16, 0, 0]);
    bytes.extend(0..16);
    bytes.extend([4, 1, 0, 0, 2, 0x77, 2, 0, 0, 9, 9]);
    bytes.extend([0; 8]);
    bytes.extend([1, 1, 0, 0, 5]);
    let shown: Vec<_> = NamespaceDescriptors::new(&bytes).map(|descriptor| descriptor.to_string()).collect();
    let uuid = "uuid.00010203-0405-0607-0809-0a0b0c0d0e0f";
    assert_eq!(shown, ["eui.0123456789abcdef", uuid, "csi.02", "type77.0909"]);
    assert_eq!(NamespaceDescriptors::new(&bytes).find_map(|descriptor| descriptor.csi()), Some(Csi::ZONED));

    let shapes: [&[u8]; 5] = [&[], &[1], &[1, 8, 0], &[1, 8, 0, 0], &[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7]];
    for shape in shapes {
        assert_eq!(NamespaceDescriptors::new(shape).count(), 0, "{shape:?}");
    }
    let mut random = Random(0xd15c);
    for _ in 0..2_000 {
        let noise: [u8; 4096] = fill(&mut random);
        let used: usize = NamespaceDescriptors::new(&noise).map(|descriptor| descriptor.nid.len() + 4).sum();
        assert!(used <= noise.len());
    }
}
