//! Commands to key value namespaces of the embedded controller and of `nvme-emu`.

use std::time::Duration;
use upcie_nvme::{
    Controller, DmaBuf, Failure, KeyCommand, Refusal,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    queue::SglUse,
    spec::{Command, DatasetRange, Key, KeyList, KeyValueOpcode, RetrieveOptions, Status, StoreOptions},
};
use upcie_tests::{
    io::{create, finish},
    keys::{OPTIONS, buffer, key, keys, on_each, open, pool, refusal, status, value},
    says,
};

/// Commands in flight are told apart, and each has the length of its own value.
#[test]
fn commands_in_flight_have_the_results_of_their_keys() {
    on_each(|controller, keys| {
        let mut queue = create::<usize>(controller.queue_pair().depth(16));
        let lengths = [1, 5, 4096, 0, 4097, 12_288, 3];
        let mut turn = queue.turn().unwrap();
        for (index, len) in lengths.into_iter().enumerate() {
            let data = buffer(controller, &value(len, index as u64));
            let store = KeyCommand::store_with(keys, pool(index), StoreOptions::MUST_NOT_EXIST);
            turn.submit_key(store, data, index).unwrap();
        }
        drop(turn);
        for done in finish(&mut queue) {
            let (index, result, data) = done.into_parts();
            assert_eq!((result, data.total_len()), (Ok(()), lengths[index]));
        }
        let mut turn = queue.turn().unwrap();
        for index in 0..lengths.len() {
            let room = controller.alloc(4096).unwrap();
            turn.submit_key(KeyCommand::retrieve(keys, pool(index)), room, index).unwrap();
        }
        turn.submit_key(KeyCommand::exist(keys, key(b"none")), DmaBuf::empty(), 99).unwrap();
        turn.submit_key(KeyCommand::list(keys, None), controller.alloc(4096).unwrap(), 100).unwrap();
        turn.submit_key(KeyCommand::flush(keys), DmaBuf::empty(), 101).unwrap();
        drop(turn);
        for done in finish(&mut queue) {
            let len = done.dword0() as usize;
            match done.into_parts() {
                (99, result, _) => assert_eq!(result, Err(Status::KEY_DOES_NOT_EXIST)),
                (100, Ok(()), data) => assert_eq!(KeyList::new(&data.to_vec()).count(), lengths.len()),
                (101, result, _) => assert_eq!(result, Ok(())),
                (index, result, data) => {
                    assert_eq!((result, len), (Ok(()), lengths[index]));
                    let moved = len.min(4096);
                    assert_eq!(data.to_vec()[..moved], value(len, index as u64)[..moved]);
                }
            }
        }
    });
}

/// The controller moves as many bytes as the command says, whatever the length of the value or of the memory behind it.
#[test]
fn no_byte_beside_the_part_is_touched() {
    on_each(|controller, keys| {
        for len in [1, 3, 5, 4095, 4096, 9001] {
            let long = value(12_000, 1);
            keys.store_bytes(key(b"long"), &long, StoreOptions::empty()).unwrap();
            let mut data = buffer(controller, &[0xee; 16_384]);
            let part = 100..100 + len;
            let options = RetrieveOptions::RAW;
            assert_eq!(keys.retrieve_with(key(b"long"), &mut data, part.clone(), options).unwrap(), 12_000);
            let bytes = data.to_vec();
            assert_eq!(bytes[part.clone()], long[..len]);
            assert!(bytes[..100].iter().chain(&bytes[100 + len..]).all(|&byte| byte == 0xee), "{len}");
            // The same for the other direction.
            keys.store_with(key(b"part"), &mut data, part, StoreOptions::empty()).unwrap();
            assert_eq!(keys.retrieve_bytes(key(b"part")).unwrap(), long[..len]);
        }
    });
}

/// Values of any length in scattered memory, by PRPs and by scatter gather lists.
#[test]
fn scattered_buffers_hold_values_of_any_length() {
    let (controller, keys) = open(OPTIONS[0]);
    for usage in [SglUse::Never, SglUse::WhereNeeded, SglUse::Always] {
        let mut queue = create::<()>(controller.queue_pair().depth(4).sgl(usage));
        let chain = |bytes: &[u8]| {
            let (first, rest) = bytes.split_at(4096);
            let (second, third) = rest.split_at(4096);
            let segments = [first, second, third].map(|bytes| {
                let mut segment = controller.heap().alloc_aligned(4096, 4096).unwrap();
                segment.write_at(0, bytes);
                segment.slice(0..bytes.len())
            });
            DmaBuf::gather(segments)
        };
        let bytes = value(4096 + 4096 + 777, 3);
        queue
            .turn()
            .unwrap()
            .submit_key(KeyCommand::store(&keys, key(b"scatter")), chain(&bytes), ())
            .unwrap();
        assert_eq!(finish(&mut queue).remove(0).status(), Status::SUCCESS, "{usage:?}");
        assert_eq!(keys.retrieve_bytes(key(b"scatter")).unwrap(), bytes);
        let room = chain(&[0xee; 4096 + 4096 + 1000]);
        queue.turn().unwrap().submit_key(KeyCommand::retrieve(&keys, key(b"scatter")), room, ()).unwrap();
        let done = finish(&mut queue).remove(0);
        assert_eq!((done.status(), done.dword0() as usize), (Status::SUCCESS, bytes.len()), "{usage:?}");
        let (_, _, data) = done.into_parts();
        let back: Vec<u8> = data.segments().flat_map(|segment| segment.to_vec()).collect();
        assert_eq!(back[..bytes.len()], bytes, "{usage:?}");
        assert!(back[bytes.len()..].iter().all(|&byte| byte == 0xee), "{usage:?}");
    }
}

/// A command that the namespace or the controller can't take is refused with the reason, and nothing is sent.
#[test]
fn a_wrong_key_command_is_refused_before_it_is_sent() {
    let (controller, keys) = open(OPTIONS[0]);
    let plain = controller.namespace(1).unwrap();
    assert_eq!((keys.max_key(), keys.max_value(), keys.max_transfer()), (8, 12 << 10, 16 << 10));
    let name = key(b"name");
    let mut queue = create::<u32>(controller.queue_pair().depth(4));
    let mut refused = |command: KeyCommand<'_>, len: usize| {
        let data = buffer(&controller, &vec![0; len]);
        let refused = queue.turn().unwrap().submit_key(command, data, 9).unwrap_err();
        assert_eq!((refused.tag, refused.buffer.len()), (9, len), "both are back");
        refused.reason
    };
    assert_eq!(refused(KeyCommand::store(&plain, name), 512), Refusal::NotKeyValue);
    assert_eq!(refused(KeyCommand::store(&keys, key([7; 9])), 512), Refusal::KeyLength);
    assert_eq!(refused(KeyCommand::list(&keys, Some(key([7; 9]))), 512), Refusal::KeyLength);
    assert_eq!(refused(KeyCommand::store(&keys, name), (12 << 10) + 1), Refusal::ValueLength);
    assert_eq!(refused(KeyCommand::retrieve(&keys, name), (16 << 10) + 1), Refusal::ValueLength);
    assert_eq!(refused(KeyCommand::list(&keys, None), 23), Refusal::Length);
    assert_eq!(refused(KeyCommand::delete(&keys, name), 512), Refusal::Length);
    assert_eq!(refused(KeyCommand::flush(&keys), 1), Refusal::Length);
    let other = open("size=64K,kv=true").1;
    assert_eq!(refused(KeyCommand::exist(&other, name), 0), Refusal::ForeignNamespace);
    controller.invalidate_namespaces();
    assert_eq!(refused(KeyCommand::exist(&keys, name), 0), Refusal::StaleNamespace);
    assert_eq!(queue.in_flight(), 0);
    let keys = self::keys(&controller);
    // A range beyond its buffer, and one that ends before it starts.
    let mut data = controller.alloc(100).unwrap();
    assert_eq!(refusal(keys.store_with(name, &mut data, 50..101, StoreOptions::empty())), Refusal::Length);
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is tried")]
    let reversed = 50..49;
    let error = keys.store_with(name, &mut data, reversed, StoreOptions::empty());
    assert_eq!(refusal(error), Refusal::ValueLength);
    let error = keys.store_bytes(name, &[0; 20_000], StoreOptions::empty()).unwrap_err();
    says(&error, &["Store", "20000 bytes", "\"name\"", "namespace 2", "max_value"]);
    says(&plain.keys().unwrap_err(), &["namespace 1 has no keys", "NVM"]);
    assert!(keys.list(None, 9).unwrap().is_empty());
}

/// No command that counts blocks reaches a namespace with keys: there it would be another one, of another length.
#[test]
fn commands_by_block_are_refused_on_keys() {
    let (controller, keys) = open(OPTIONS[0]);
    let namespace = keys.namespace();
    assert_eq!((namespace.blocks(), namespace.block_size(), namespace.max_transfer()), (0, 0, 0));
    let mut queue = create::<u32>(controller.queue_pair().depth(4));
    for len in [512, 4096] {
        let mut turn = queue.turn().unwrap();
        let data = || controller.alloc(len).unwrap();
        let reasons = [
            turn.read(namespace, 0, data(), 1).unwrap_err().reason,
            turn.write(namespace, 0, data(), 1).unwrap_err().reason,
            turn.flush(namespace, 1).unwrap_err().reason,
            turn.write_zeroes(upcie_nvme::Zeroes::new(namespace, 0, 1), 1).unwrap_err().reason,
            turn.deallocate(namespace, data(), 1, 1).unwrap_err().reason,
            turn.compare(namespace, 0, data(), 1).unwrap_err().reason,
            turn.verify(namespace, 0, 1, 1).unwrap_err().reason,
            turn.write_uncorrectable(namespace, 0, 1, 1).unwrap_err().reason,
            turn.copy(namespace, data(), 1, 0, 1).unwrap_err().reason,
            turn.append(namespace, 0, data(), 1).unwrap_err().reason,
        ];
        assert_eq!(reasons, [Refusal::HasKeys; 10]);
        let held = data();
        // SAFETY: nothing is sent.
        let refused = unsafe { turn.submit_held(upcie_nvme::Io::read(namespace, 0), &held, 0..len, 1) };
        assert_eq!(refused.unwrap_err().reason, Refusal::HasKeys);
    }
    assert_eq!(queue.in_flight(), 0);
    let mut data = controller.alloc(4096).unwrap();
    for error in [
        namespace.read(0, &mut data).unwrap_err(),
        namespace.write(0, &mut data).unwrap_err(),
        namespace.flush().unwrap_err(),
        namespace.write_zeroes(0, 1).unwrap_err(),
        namespace.deallocate(&[DatasetRange::new(0, 1)]).unwrap_err(),
        namespace.read_at(0, &mut [0; 1]).unwrap_err(),
        namespace.write_at(0, &[0; 1]).unwrap_err(),
        namespace.zones().unwrap_err(),
    ] {
        says(&error, &["namespace 2", "keys and values", "Namespace::keys"]);
    }
    assert!(keys.list(None, 9).unwrap().is_empty());
}

/// The statuses of the specification, for commands that the driver sends as they are.
#[test]
fn the_controller_answers_as_the_specification_says() {
    let (controller, keys) = open(OPTIONS[0]);
    let second = Duration::from_secs(30);
    let io = |command: Command, data: &mut [u8]| status(controller.io(&command, data, second));
    let (name, none) = (key(b"name"), StoreOptions::empty());
    assert_eq!(io(Command::store(2, name, 5, none), &mut [7; 5]), Status::SUCCESS);
    assert_eq!(keys.retrieve_bytes(name).unwrap(), [7; 5]);
    // Keys of 16 bytes fit a command, and not this namespace.
    assert_eq!(io(Command::store(2, key([7; 16]), 5, none), &mut [7; 5]), Status::INVALID_KEY_SIZE);
    let options = RetrieveOptions::empty();
    assert_eq!(io(Command::retrieve(2, key([7; 16]), 5, options), &mut [7; 5]), Status::INVALID_KEY_SIZE);
    assert_eq!(io(Command::list_keys(2, Some(key([7; 16])), 64), &mut [7; 64]), Status::INVALID_KEY_SIZE);
    assert_eq!(io(Command::key_exists(2, key([7; 16])), &mut []), Status::KEY_DOES_NOT_EXIST);
    assert_eq!(io(Command::delete_key(2, key([7; 16])), &mut []), Status::SUCCESS);
    let of_length = |len: u32, mut command: Command| {
        command.cdw11 = command.cdw11 & !0xff | len;
        command
    };
    for (opcode, command, len) in [
        ("Store", Command::store(2, name, 5, none), 5),
        ("Retrieve", Command::retrieve(2, name, 5, options), 5),
        ("List", Command::list_keys(2, None, 64), 64),
        ("Delete", Command::delete_key(2, name), 0),
        ("Exist", Command::key_exists(2, name), 0),
    ] {
        for length in [17, 255] {
            let found = io(of_length(length, command), &mut vec![0; len]);
            assert_eq!(found, Status::INVALID_FIELD, "{opcode} of a key of {length} bytes");
        }
    }
    assert_eq!(io(of_length(0, Command::store(2, name, 5, none)), &mut [7; 5]), Status::INVALID_KEY_SIZE);
    assert_eq!(io(Command::store(2, name, 12_289, none), &mut [7; 12_289]), Status::INVALID_VALUE_SIZE);
    assert_eq!(io(Command::list_keys(2, None, 3), &mut [0; 3]), Status::INVALID_FIELD);
    let both = StoreOptions::MUST_EXIST | StoreOptions::MUST_NOT_EXIST;
    assert_eq!(io(Command::store(2, name, 1, both), &mut [7]), Status::KEY_EXISTS);
    assert_eq!(io(Command::store(2, key(b"other"), 1, both), &mut [7]), Status::KEY_DOES_NOT_EXIST);
    // The namespace with blocks, and commands of blocks at the one with keys.
    let error = controller.io(&Command::key_exists(1, name), &mut [], second).unwrap_err();
    says(&error, &["Exist", "namespace 1 has none"]);
    let error = controller.io(&Command::write(2, 1 << 20, 1), &mut [7; 512], second).unwrap_err();
    says(&error, &["Store", "transfers 1048576 bytes here"]);
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    let error = controller.io(&Command::write_zeroes(2, 0, 1), &mut [], second).unwrap_err();
    assert!(matches!(error.failure(), Failure::Argument { .. }), "{error}");
    says(&error, &["opcode 08h is not in its log page", "submit_raw"]);
    assert_eq!(io(Command::flush(2), &mut []), Status::SUCCESS);
    let mut block = [7; 512];
    assert_eq!(io(Command::write(1, 8, 1), &mut block), Status::SUCCESS);
    assert_eq!(KeyValueOpcode::STORE.to_string(), "Store (01h)");
}

/// Lists of more keys than one command returns are put together.
#[test]
fn all_keys_are_listed_by_several_commands() {
    let (_, keys) = open("size=1M,kv=true,mdts=8K");
    let name = |index: u16| key(index.to_be_bytes());
    // Each takes 4 bytes of a list of 8 KiB.
    for index in 0..5000 {
        keys.store_bytes(name(index), b"", StoreOptions::empty()).unwrap();
    }
    let all: Vec<Key> = (0..5000).map(name).collect();
    assert_eq!(keys.list(None, usize::MAX).unwrap(), all);
    assert_eq!(keys.list(Some(name(1234)), 3000).unwrap(), all[1234..4234]);
    assert!(keys.list(Some(name(6000)), 9).unwrap().is_empty());
}

/// Commands that are served late, in stages, or with a latency have their results.
#[test]
fn late_commands_have_their_results() {
    let rule = FaultRule::new(Fault::Delay(Duration::from_millis(2)));
    let device =
        spawn_with_faults(&"size=64K,kv=true".parse().unwrap(), &FaultPlan::new(1).rule(rule)).unwrap();
    let controllers = [
        Controller::builder().from_device(device).unwrap(),
        Controller::open("emu:size=64K,kv=true,latency=1ms").unwrap(),
    ];
    for controller in controllers {
        let keys = keys(&controller);
        let bytes = value(5000, 2);
        keys.store_bytes(key(b"a"), &bytes, StoreOptions::empty()).unwrap();
        assert_eq!(keys.retrieve(key(b"a"), &mut DmaBuf::empty()).unwrap(), 5000);
        assert_eq!(keys.retrieve_bytes(key(b"a")).unwrap(), bytes);
        assert_eq!(keys.list(None, 9).unwrap(), [key(b"a")]);
    }
}

/// A bit that flips on the way changes the value, and nothing else. A failed retrieval is repeated, a failed store is not.
#[test]
fn faults_strike_keys_as_they_strike_blocks() {
    let flip = FaultRule::new(Fault::Corrupt).opcode(KeyValueOpcode::STORE.0).count(1);
    let failed = |opcode: KeyValueOpcode| {
        FaultRule::new(Fault::Status(Status::INTERNAL_ERROR)).opcode(opcode.0).after(1).count(1)
    };
    let plan = FaultPlan::new(3)
        .rule(flip)
        .rule(failed(KeyValueOpcode::RETRIEVE))
        .rule(failed(KeyValueOpcode::STORE));
    let device = spawn_with_faults(&"size=64K,kv=true".parse().unwrap(), &plan).unwrap();
    let controller = Controller::builder().retries(1).from_device(device).unwrap();
    let keys = keys(&controller);
    let bytes = value(999, 4);
    keys.store_bytes(key(b"a"), &bytes, StoreOptions::empty()).unwrap();
    let back = keys.retrieve_bytes(key(b"a")).unwrap();
    let bits = |(one, other): (&u8, &u8)| (one ^ other).count_ones();
    assert_eq!(bytes.iter().zip(&back).map(bits).sum::<u32>(), 1);
    assert_eq!(keys.retrieve_bytes(key(b"a")).unwrap(), back, "the second try");
    let error = keys.store_bytes(key(b"a"), b"new", StoreOptions::empty()).unwrap_err();
    assert_eq!(error.status(), Some(Status::INTERNAL_ERROR));
    assert_eq!(keys.retrieve_bytes(key(b"a")).unwrap(), back);
}
