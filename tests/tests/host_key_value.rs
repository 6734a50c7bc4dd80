//! Key value namespaces of the embedded controller and of `nvme-emu`.

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use std::{collections::BTreeMap, time::Duration};
use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, KeyCommand, KeyValue, Refusal, ResetKind,
    emu::{Fault, FaultPlan, FaultRule, spawn_with_faults},
    queue::SglUse,
    spec::{
        AttachNamespace, Cns, Command, CommandSetActiveNamespaces, CommandSetCombinations, CreateNamespace,
        Csi, DatasetRange, DeleteNamespace, FormatNvm, IdentifyData, IndependentNamespace, Key, KeyList,
        KeyValueConfiguration, KeyValueOpcode, RetrieveOptions, Status, StoreOptions,
    },
};
use upcie_tests::{
    io::{create, finish},
    process::Server,
    says, scaled,
};

/// A namespace with blocks, then one with keys; and one with keys alone, without scatter gather lists.
const OPTIONS: [&str; 2] = [
    "size=1M,namespaces=2,kv=false+true,kv-key=8,kv-value=12K,kv-keys=40,mdts=16K",
    "size=64K,kv=true,mdts=16K,sgl=false",
];

/// Bytes that the embedded controller counts for a pair beside its value.
const PAIR: u64 = 64;

fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::new(bytes.as_ref()).unwrap()
}

/// Returns the keys of the first key value namespace.
fn keys(controller: &Controller) -> KeyValue {
    let all = controller.namespaces().unwrap();
    let namespace = all.into_iter().find(|namespace| namespace.command_set() == Csi::KEY_VALUE);
    namespace.expect("a key value namespace").keys().unwrap()
}

fn open(options: &str) -> (Controller, KeyValue) {
    let controller = Controller::open(format!("emu:{options}")).unwrap();
    let keys = keys(&controller);
    (controller, keys)
}

/// Runs a check on the embedded controller and on a server of its own.
fn on_each(check: impl Fn(&Controller, &KeyValue)) {
    for options in OPTIONS {
        println!("emu:{options}");
        let (controller, keys) = open(options);
        check(&controller, &keys);
    }
    let server = Server::start(OPTIONS[0]);
    println!("nvme-emu {}", OPTIONS[0]);
    let controller = Controller::open(server.address().to_string()).unwrap();
    check(&controller, &keys(&controller));
}

/// Returns the bytes of a value: each of its length and version.
fn value(len: usize, version: u64) -> Vec<u8> {
    (0..len as u64).map(|at| (at ^ at >> 8 ^ version.wrapping_mul(0x35)) as u8).collect()
}

fn buffer(controller: &Controller, bytes: &[u8]) -> DmaBuf {
    if bytes.is_empty() {
        return DmaBuf::empty();
    }
    let mut buffer = controller.alloc(bytes.len()).unwrap();
    buffer.write_at(0, bytes);
    buffer
}

/// Returns the status that the controller has answered with.
#[track_caller]
fn status<T>(result: Result<T, Error>) -> Status {
    match result {
        Ok(_) => Status::SUCCESS,
        Err(error) => error.status().unwrap_or_else(|| panic!("{error}")),
    }
}

/// Returns the reason why a command was refused.
#[track_caller]
fn refusal<T>(result: Result<T, Error>) -> Refusal {
    let Err(error) = result else { panic!("it was sent") };
    match error.failure() {
        Failure::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

/// An operation on a namespace.
#[derive(Debug, Clone)]
enum Step {
    Store(usize, usize, StoreOptions),
    /// Into a buffer of so many bytes.
    Retrieve(usize, usize),
    Delete(usize),
    Exists(usize),
    /// From a key, or from the first on.
    List(Option<usize>, usize),
    /// On a queue, all in flight together.
    RetrieveAll,
    Reset(ResetKind),
}

/// Returns a key of a pool, some of which differ by zeros at their end alone.
fn pool(index: usize) -> Key {
    match index % 4 {
        0 => key([index as u8]),
        1 => key([index as u8 - 1, 0]),
        2 => key(format!("key{index}")),
        _ => key([[0xff; 7].as_slice(), &[index as u8]].concat()),
    }
}

const POOL: usize = 60;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lengths = || prop_oneof![Just(0_usize), 1..64_usize, 1..5000_usize, 12_200..17_000_usize];
    let options = (0..8_u8).prop_map(StoreOptions::from_bits_truncate);
    let kinds = prop_oneof![Just(ResetKind::Controller), Just(ResetKind::Function)];
    let step = prop_oneof![
        12 => (0..POOL, lengths(), prop_oneof![3 => Just(StoreOptions::empty()), 2 => options])
            .prop_map(|(key, len, options)| Step::Store(key, len, options)),
        4 => (0..POOL, lengths()).prop_map(|(key, room)| Step::Retrieve(key, room)),
        4 => (0..POOL).prop_map(Step::Delete),
        2 => (0..POOL).prop_map(Step::Exists),
        2 => (proptest::option::of(0..POOL), 0..80_usize).prop_map(|(from, most)| Step::List(from, most)),
        1 => Just(Step::RetrieveAll),
        1 => kinds.prop_map(Step::Reset),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A namespace as it should be.
#[derive(Debug, Default)]
struct Model {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    version: u64,
}

impl Model {
    fn used(&self) -> u64 {
        self.pairs.values().map(|value| PAIR + value.len() as u64).sum()
    }

    /// Returns the status that a Store should have.
    fn expect_store(&self, keys: &KeyValue, key: Key, len: usize, options: StoreOptions) -> Status {
        let before = self.pairs.get(key.as_bytes());
        let used = self.used() - before.map_or(0, |value| PAIR + value.len() as u64);
        let most = keys.identify().formats()[0].max_keys as usize;
        if before.is_none() && options.contains(StoreOptions::MUST_EXIST) {
            Status::KEY_DOES_NOT_EXIST
        } else if before.is_some() && options.contains(StoreOptions::MUST_NOT_EXIST) {
            Status::KEY_EXISTS
        } else if used + PAIR + len as u64 > keys.size()
            || before.is_none() && most > 0 && self.pairs.len() >= most
        {
            Status::CAPACITY_EXCEEDED
        } else {
            Status::SUCCESS
        }
    }

    fn run(&mut self, controller: &Controller, keys: &KeyValue, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Store(index, len, options) => {
                let key = pool(index);
                self.version += 1;
                let bytes = value(len, self.version);
                let mut data = buffer(controller, &bytes);
                let stored = keys.store_with(key, &mut data, 0..len, options);
                prop_assert_eq!(data.total_len(), len, "the buffer is back");
                if len > keys.max_value() {
                    prop_assert_eq!(refusal(stored), Refusal::ValueLength);
                    return Ok(());
                }
                prop_assert_eq!(status(stored), self.expect_store(keys, key, len, options));
                if self.expect_store(keys, key, len, options) == Status::SUCCESS {
                    self.pairs.insert(key.as_bytes().to_vec(), bytes);
                }
            }
            Step::Retrieve(index, room) => {
                let key = pool(index);
                let mut data = buffer(controller, &vec![0xee; room]);
                let found = keys.retrieve(key, &mut data);
                if room > keys.max_transfer() {
                    prop_assert_eq!(refusal(found), Refusal::ValueLength);
                    return Ok(());
                }
                let Some(value) = self.pairs.get(key.as_bytes()) else {
                    prop_assert_eq!(status(found), Status::KEY_DOES_NOT_EXIST);
                    return Ok(());
                };
                prop_assert_eq!(found.unwrap(), value.len(), "the length of the whole value");
                let (bytes, moved) = (data.to_vec(), value.len().min(room));
                prop_assert_eq!(&bytes[..moved], &value[..moved]);
                prop_assert!(bytes[moved..].iter().all(|&byte| byte == 0xee), "no byte behind the value");
                prop_assert_eq!(&keys.retrieve_bytes(key).unwrap(), value);
            }
            Step::Delete(index) => {
                keys.delete(pool(index)).unwrap();
                self.pairs.remove(pool(index).as_bytes());
            }
            Step::Exists(index) => {
                let exists = self.pairs.contains_key(pool(index).as_bytes());
                prop_assert_eq!(keys.exists(pool(index)).unwrap(), exists);
            }
            Step::List(from, most) => {
                let from = from.map(pool);
                let listed = keys.list(from, most).unwrap();
                let first = from.map_or(Vec::new(), |from| from.as_bytes().to_vec());
                let expected: Vec<Key> =
                    self.pairs.range(first..).take(most).map(|(name, _)| key(name)).collect();
                prop_assert_eq!(listed, expected);
            }
            Step::RetrieveAll => self.retrieve_all(controller, keys),
            Step::Reset(kind) => controller.reset_by(kind).unwrap(),
        }
        let used = controller.namespace(keys.namespace().nsid()).unwrap().keys().unwrap();
        prop_assert_eq!(used.identify().utilization, self.used());
        Ok(())
    }

    fn retrieve_all(&self, controller: &Controller, keys: &KeyValue) {
        let mut queue = create::<Vec<u8>>(controller.queue_pair().depth(64));
        let mut turn = queue.turn().unwrap();
        for (name, value) in &self.pairs {
            let data = buffer(controller, &vec![0xee; value.len()]);
            turn.submit_key(KeyCommand::retrieve(keys, key(name)), data, name.clone()).unwrap();
        }
        drop(turn);
        for done in finish(&mut queue) {
            let len = done.dword0() as usize;
            let (name, result, data) = done.into_parts();
            assert_eq!((result, len), (Ok(()), self.pairs[&name].len()));
            assert_eq!(data.to_vec(), self.pairs[&name]);
        }
    }
}

/// Pairs are those of a map, by blocking calls and on a queue, over resets, and within the namespace's limits.
#[test]
fn pairs_are_those_of_a_model() {
    on_each(|controller, keys| {
        let config = Config {
            cases: scaled(24) as u32,
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(7),
            max_shrink_iters: 200,
            ..Config::default()
        };
        let run = |steps: Vec<Step>| {
            for key in keys.list(None, usize::MAX).unwrap() {
                keys.delete(key).unwrap();
            }
            let mut model = Model::default();
            steps.into_iter().try_for_each(|step| model.run(controller, keys, step))
        };
        TestRunner::new(config).run(&steps(), run).unwrap_or_else(|error| panic!("{error}"));
    });
}

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
    assert_eq!(io(Command::write_zeroes(2, 0, 1), &mut []), Status::INVALID_OPCODE);
    assert_eq!(io(Command::flush(2), &mut []), Status::SUCCESS);
    let mut block = [7; 512];
    assert_eq!(io(Command::write(1, 8, 1), &mut block), Status::SUCCESS);
    assert_eq!(KeyValueOpcode::STORE.to_string(), "Store (01h)");
}

/// A protected namespace takes no changes.
#[test]
fn a_protected_namespace_takes_no_changes() {
    let keys = open("size=64K,kv=true,ro=true").1;
    assert_eq!(status(keys.store_bytes(key(b"a"), b"1", StoreOptions::empty())), Status::WRITE_PROTECTED);
    assert_eq!(status(keys.delete(key(b"a"))), Status::WRITE_PROTECTED);
    assert_eq!(keys.identify().attributes & 1, 1);
    assert!(!keys.exists(key(b"a")).unwrap());
}

/// Feature 20h decides whether a missing key can be deleted, of each namespace, and stays over a reset.
#[test]
fn the_feature_decides_whether_a_missing_key_can_be_deleted() {
    let (controller, keys) = open("size=64K,namespaces=2,kv=true");
    let query = |nsid| upcie_nvme::FeatureQuery { nsid, ..Default::default() };
    let read = |nsid| {
        let value: KeyValueConfiguration = controller.feature_with(&query(nsid)).unwrap();
        value.error_on_missing_key()
    };
    assert!(!read(1) && !read(2));
    keys.delete(key(b"missing")).unwrap();
    let error = KeyValueConfiguration::new().with_error_on_missing_key(true);
    let update = upcie_nvme::FeatureUpdate { nsid: 1, ..Default::default() };
    controller.set_feature_with(&error, &update).unwrap();
    assert!(read(1) && !read(2));
    assert_eq!(status(keys.delete(key(b"missing"))), Status::KEY_DOES_NOT_EXIST);
    controller.reset().unwrap();
    assert!(read(1) && !read(2));
    keys.store_bytes(key(b"missing"), b"", StoreOptions::empty()).unwrap();
    keys.delete(key(b"missing")).unwrap();
    let plain = Controller::open("emu:size=1M").unwrap();
    assert!(plain.feature_with::<KeyValueConfiguration>(&query(1)).is_err());
}

/// Format NVM, Sanitize and the deletion of a namespace remove its keys, and those of no other.
#[test]
fn erasing_a_namespace_removes_its_keys() {
    let (controller, first) = open("size=64K,namespaces=3,kv=true+true+false,nn=4");
    let second = || controller.namespace(2).unwrap().keys().unwrap();
    let put = |keys: &KeyValue| keys.store_bytes(key(b"a"), b"1", StoreOptions::empty()).unwrap();
    put(&first);
    put(&second());
    controller.execute(&FormatNvm { nsid: 1, ..Default::default() }).unwrap();
    says(&first.exists(key(b"a")).unwrap_err(), &["get the namespace again"]);
    let first = keys(&controller);
    assert!(!first.exists(key(b"a")).unwrap() && second().exists(key(b"a")).unwrap());
    let wrong = controller.execute(&FormatNvm { nsid: 1, format: 1, ..Default::default() });
    assert_eq!(status(wrong), Status::INVALID_FORMAT);
    assert!(second().exists(key(b"a")).unwrap());

    // Another one in its place, of half the size, and one with blocks.
    controller.execute(&DeleteNamespace { nsid: 2 }).unwrap();
    let nsid = controller.execute(&CreateNamespace::key_value(32 << 10)).unwrap();
    let controllers = vec![controller.identify().cntlid];
    controller.execute(&AttachNamespace { nsid, controllers: controllers.clone() }).unwrap();
    assert_eq!(nsid, 2);
    assert_eq!((second().size(), second().exists(key(b"a")).unwrap()), (32 << 10, false));
    put(&second());
    let nsid = controller.execute(&CreateNamespace::new(64, 0)).unwrap();
    controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
    let blocks = controller.namespace(nsid).unwrap();
    assert_eq!((blocks.command_set(), blocks.blocks()), (Csi::NVM, 64));
    blocks.write(0, &mut controller.alloc(512).unwrap()).unwrap();
    assert!(second().exists(key(b"a")).unwrap());
}

/// A handle of a namespace that has blocks now is stale: its commands would have another meaning there.
#[test]
fn a_namespace_that_has_blocks_now_makes_handles_stale() {
    let (controller, keys) = open("size=64K,namespaces=2,kv=true+false");
    controller.execute(&DeleteNamespace { nsid: 1 }).unwrap();
    let nsid = controller.execute(&CreateNamespace::new(64, 0)).unwrap();
    let controllers = vec![controller.identify().cntlid];
    controller.execute(&AttachNamespace { nsid, controllers }).unwrap();
    assert_eq!(nsid, 1);
    assert_eq!(refusal(keys.retrieve(key(b"a"), &mut DmaBuf::empty())), Refusal::StaleNamespace);
    // A handle that is as it was stays good over resets.
    let (controller, keys) = open("size=64K,kv=true");
    keys.store_bytes(key(b"a"), b"1", StoreOptions::empty()).unwrap();
    for kind in [ResetKind::Controller, ResetKind::Function, ResetKind::Subsystem] {
        controller.reset_by(kind).unwrap();
        assert_eq!(keys.retrieve_bytes(key(b"a")).unwrap(), b"1", "{kind:?}");
    }
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

/// The Identify data of a controller with three command sets, and of its namespaces.
#[test]
fn identify_data_tells_the_command_sets() {
    let options =
        "size=1M,namespaces=3,kv=false+true+false,zoned=false+false+true,zone-size=64K,kv-key=8,kv-value=4K";
    let (controller, keys) = open(options);
    let query = |nsid| upcie_nvme::IdentifyQuery { nsid, ..Default::default() };
    let page = |cns, csi, nsid| controller.identify_bytes(cns, csi, &query(nsid));
    let id = keys.identify();
    assert_eq!((id.size, id.utilization, id.formats().len()), (1 << 20, 0, 1));
    let format = id.formats()[0];
    assert_eq!((format.max_key_length, format.max_value_length, format.max_keys), (8, 4096, 0));
    for (csi, nsid) in [(Csi::NVM, 1), (Csi::KEY_VALUE, 2), (Csi::ZONED, 3)] {
        assert_eq!(controller.namespace(nsid).unwrap().command_set(), csi);
        let list = page(Cns::COMMAND_SET_ACTIVE_NAMESPACES, csi, 0).unwrap();
        let list = CommandSetActiveNamespaces::from_page(&list);
        assert_eq!(list.0.above(0).collect::<Vec<_>>(), [nsid]);
        for other in [1, 2, 3] {
            let found = page(Cns::COMMAND_SET_NAMESPACE, csi, other);
            let expected = if other == nsid { Status::SUCCESS } else { Status::INVALID_FIELD };
            assert_eq!(status(found), expected, "{csi} of namespace {other}");
        }
        let independent: IndependentNamespace = controller.identify_as(&query(nsid)).unwrap();
        assert_eq!(independent.status, 1);
    }
    // No data of the controller, and none of blocks.
    assert_eq!(*page(Cns::COMMAND_SET_CONTROLLER, Csi::KEY_VALUE, 0).unwrap(), [0; 4096]);
    for cns in [Cns::NAMESPACE, Cns::ALLOCATED_NAMESPACE] {
        assert_eq!(status(page(cns, Csi::NVM, 2)), Status::INVALID_COMMAND_SET);
        page(cns, Csi::NVM, 1).unwrap();
    }
    let sets: CommandSetCombinations = controller.identify_as(&query(0)).unwrap();
    let set = sets.used()[0];
    assert!(set.nvm() && set.key_value() && set.zoned(), "{sets}");
    let plain = Controller::open("emu:size=1M").unwrap();
    let lacks = plain.identify_bytes(Cns::COMMAND_SET_NAMESPACE, Csi::KEY_VALUE, &query(1));
    assert_eq!(status(lacks), Status::INVALID_FIELD);
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
