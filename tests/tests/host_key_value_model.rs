//! Key value namespaces hold the pairs of a map, whatever the order of commands and resets.

use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed, TestCaseError, TestRunner},
};
use std::collections::BTreeMap;
use upcie_nvme::{
    Controller, KeyCommand, KeyValue, Refusal, ResetKind,
    spec::{Key, Status, StoreOptions},
};
use upcie_tests::{
    io::{create, finish},
    keys::{buffer, key, on_each, pool, refusal, status, value},
    scaled,
};

/// Bytes that the embedded controller counts for a pair beside its value.
const PAIR: u64 = 64;

/// An operation on a namespace.
#[derive(Debug, Clone)]
enum Step {
    Store(usize, usize, StoreOptions),
    /// Into a buffer of so many bytes.
    Retrieve(usize, usize),
    Delete(usize),
    Exists(usize),
    /// Starts at a key, or at the first.
    List(Option<usize>, usize),
    /// On a queue, all in flight together.
    RetrieveAll,
    Reset(ResetKind),
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
