//! The structures that a controller sends: Identify data, log pages, completions, registers, answers of migration commands.

use upcie_nvme::spec::*;

/// Reads a structure from the start of the input, with zeros behind its end.
fn of<T: FromBytes>(data: &[u8]) -> T {
    let mut bytes = data[..data.len().min(size_of::<T>())].to_vec();
    bytes.resize(size_of::<T>(), 0);
    T::read_from_bytes(&bytes).unwrap_or_else(|_| panic!("as many bytes as the structure has"))
}

fn plain(text: &str) {
    assert!(!text.contains(char::is_control), "{text:?}");
}

pub fn target(data: &[u8]) {
    let Some((&which, data)) = data.split_first() else { return };
    match which % 8 {
        0 => controller(&of(data)),
        1 => {
            let namespace: IdentifyNamespace = of(data);
            assert!(namespace.format_index() < 64 && (1..=64).contains(&namespace.format_count()));
            if let Some(size) = namespace.block_size() {
                assert!(size.is_power_of_two() && size >= 512);
            }
            let _ = (namespace.lba_format(), format!("{namespace:?}"));
        }
        2 => {
            let smart: SmartLog = of(data);
            let _ = (smart.warnings(), smart.data_units_written(), format!("{smart:?}"));
        }
        3 => {
            let firmware: FirmwareSlotLog = of(data);
            let _ = (firmware.active_slot(), firmware.next_slot());
            (0..=u8::MAX).filter_map(|slot| firmware.revision(slot)).for_each(|revision| plain(&revision));
        }
        4 => {
            let entry: ErrorLogEntry = of(data);
            plain(&entry.status().to_string());
            let _ = (entry.is_used(), format!("{entry:?}"));
            let completion: CompletionEntry = of(data);
            let _ = (completion.result(), completion.phase(), format!("{completion:?}"));
            let command: Command = of(data);
            let _ =
                (command.slba(), command.block_count(), command.log_page_bytes(), command.log_page_offset());
        }
        5 => {
            let list: NamespaceList = of(data);
            for start in [0, 1, u32::MAX - 1] {
                let found: Vec<_> = list.above(start).collect();
                assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "ascending");
                assert!(found.iter().all(|&nsid| nsid > start && nsid != ALL_NAMESPACES));
            }
            let _ = list.is_overflowed();
        }
        6 => {
            let used: usize = NamespaceDescriptors::new(data)
                .map(|descriptor| {
                    plain(&descriptor.to_string());
                    let _ = descriptor.csi();
                    descriptor.nid.len() + 4
                })
                .sum();
            assert!(used <= data.len());
            keys(data);
            migration(data);
        }
        _ => registers(of(data)),
    }
}

/// The keys of a List, and the limits of a namespace with keys.
fn keys(data: &[u8]) {
    let mut used = 0;
    for key in KeyList::new(data) {
        assert!((1..=Key::MOST).contains(&key.as_bytes().len()));
        plain(&key.to_string());
        used += 2 + key.as_bytes().len();
    }
    assert!(used <= data.len());
    let id: KeyValueNamespace = of(data);
    assert!((1..=16).contains(&id.formats().len()) && id.max_key_length() <= Key::MOST);
    let command: Command = of(data);
    let _ = (command.key(), command.key_options(), id.max_value_length(), format!("{id:?}"));
}

/// The state of a controller, and the changes of memory that it has made.
fn migration(data: &[u8]) {
    if let Some(state) = ControllerState::from_bytes(data) {
        let queues = state.submission_queues.len() + state.completion_queues.len();
        assert!(48 + 24 * queues + state.vendor_specific.len() <= data.len());
        assert!(state.header.total().is_some_and(|total| total <= data.len()));
        assert!(!state.to_string().contains(|c: char| c.is_control() && c != '\n'));
    }
    if let Some(answer) = (GetMemoryChanges { controller: 0, changes: 9 }).answer(0, data.to_vec()) {
        assert!(16 + 16 * answer.changes.len() <= data.len());
        assert!(answer.unit().is_none_or(u64::is_power_of_two));
    }
}

fn controller(id: &IdentifyController) {
    for text in [id.model(), id.serial(), id.firmware(), id.subsystem_name()] {
        plain(&text);
    }
    assert!((1..=32).contains(&id.power_states().len()));
    for state in id.power_states() {
        let _ = (state.max_power(), state.entry_latency(), state.exit_latency(), state.is_non_operational());
    }
    for page in [4096, 1 << 16, 1 << 27] {
        if let Some(most) = id.max_transfer(page) {
            assert!(most >= page);
        }
    }
    let _ = (id.total_capacity(), id.unallocated_capacity(), format!("{id:?}"));
}

fn registers(bits: u64) {
    let cap = Capabilities::from_bits(bits);
    assert!((1..=65536).contains(&cap.max_queue_entries()));
    assert!(cap.page_size_min().is_power_of_two() && cap.page_size_max().is_power_of_two());
    let _ = (cap.timeout(), cap.doorbell_stride(), format!("{cap:?}"));
    let low = bits as u32;
    let _ = format!("{:?} {:?}", Configuration::from_bits(low), ControllerStatus::from_bits(low));
    let _ = format!("{:?} {:?}", CmbLocation::from_bits(low), CmbSize::from_bits(low).bytes());
    let _ = format!("{:?} {}", PmrCapabilities::from_bits(low), Version::from_bits(low));
    let _ = ReadyTimeouts::from_bits(low).with_media();
    plain(&Status::from_bits(bits as u16).to_string());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let padded = |which: u8, bytes: &[u8], len: usize| {
        let mut seed = vec![which];
        seed.extend(bytes);
        seed.resize(len + 1, 0);
        seed
    };
    let mut id = vec![0; 4096];
    id[4..24].copy_from_slice(b"SERIAL 1            ");
    id[24..64].copy_from_slice(b"A model                                 ");
    id[64..72].copy_from_slice(b"1.0     ");
    (id[77], id[263]) = (5, 3);
    let list: Vec<u8> = (1..20_u32).flat_map(u32::to_le_bytes).collect();
    let descriptors =
        [&[1, 8, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 16, 0, 0][..], &[9; 16], &[4, 1, 0, 0, 2]].concat();
    // A state with a submission queue, a completion queue, and a dword of the vendor's.
    let mut state = vec![0; 48 + 8 + 2 * 24];
    (state[16], state[32], state[50], state[52]) = (14, 1, 1, 1);
    vec![
        padded(0, &id, 4096),
        padded(1, &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0], 4096),
        padded(2, &[1, 0x2c, 1, 100, 10, 1], 512),
        padded(3, &[0x21, 0, 0, 0, 0, 0, 0, 0, b'1', b'.', b'0'], 512),
        padded(4, &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 5, 0, 2, 0x42], 64),
        padded(5, &list, 4096),
        padded(6, &descriptors, 4096),
        padded(6, &[2, 0, 0, 0, 3, 0, b'a', b'b', b'c', 0, 0, 0, 1, 0, b'z', 0], 64),
        padded(6, &state, state.len() + 4),
        padded(7, &0x0040_0030_1e01_ffff_u64.to_le_bytes(), 8),
    ]
}
