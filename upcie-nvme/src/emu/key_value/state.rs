//! The keys of a namespace, and their values.

use super::super::Options;
use crate::spec::{Command, Key, KeyList, KeyValueFormat, Status, StoreOptions};
use std::collections::BTreeMap;
use zerocopy::FromZeros;

/// Bytes that a pair takes beside its value: its key, and the map's own. So the memory of many small pairs is bounded by the
/// namespace's size, too.
const PAIR: u64 = 64;

/// The keys and values of a namespace, in memory.
#[derive(Debug)]
pub(in super::super) struct Keys {
    pairs: BTreeMap<Key, Box<[u8]>>,
    /// Bytes of all pairs, at most the capacity.
    used: u64,
    capacity: u64,
    /// The most bytes of a key, and of a value.
    max_key: u8,
    max_value: u32,
    most: Option<u32>,
    /// Feature 20h: a Delete of a key that does not exist fails. It stays over resets.
    pub error_on_missing_key: bool,
}

impl Keys {
    /// Makes a namespace of `capacity` bytes, without keys.
    pub fn new(options: &Options, capacity: u64) -> Self {
        Self {
            pairs: BTreeMap::new(),
            used: 0,
            capacity,
            max_key: options.keys.max_key,
            max_value: options.keys.max_value.unwrap_or(options.mdts),
            most: options.keys.most,
            error_on_missing_key: false,
        }
    }

    /// Removes all pairs.
    pub fn clear(&mut self) {
        self.pairs.clear();
        self.used = 0;
    }

    /// Removes pairs that have taken `most` bytes, or one more, as far as there are some; returns their bytes.
    pub fn forget(&mut self, most: u64) -> u64 {
        let before = self.used;
        while before - self.used < most {
            let Some((_, value)) = self.pairs.pop_first() else { break };
            self.used -= PAIR + value.len() as u64;
        }
        before - self.used
    }

    /// Returns the bytes of the namespace, and those that its pairs take.
    pub fn bytes(&self) -> (u64, u64) {
        (self.capacity, self.used)
    }

    /// Returns the limits as Identify Namespace lists them.
    pub fn format(&self) -> KeyValueFormat {
        let mut format = KeyValueFormat::new_zeroed();
        format.max_key_length = self.max_key.into();
        format.max_value_length = self.max_value;
        format.max_keys = self.most.unwrap_or(0);
        format
    }

    /// Checks the length of a key in a command.
    pub fn check_key(&self, len: u8) -> Result<(), Status> {
        if (1..=self.max_key).contains(&len) {
            Ok(())
        } else {
            Err(Status::INVALID_KEY_SIZE.with_do_not_retry())
        }
    }

    /// Returns the key of a command that has to have one.
    pub fn key(&self, command: &Command) -> Result<Key, Status> {
        self.check_key(command.key_length())?;
        command.key().ok_or(Status::INTERNAL_ERROR)
    }

    /// Checks that a value of `len` bytes can be stored under a key.
    pub fn check_store(&self, key: Key, len: u32, options: StoreOptions) -> Result<(), Status> {
        let present = self.pairs.get(&key).map(|value| PAIR + value.len() as u64);
        let used = self.used - present.unwrap_or(0);
        let is_full = present.is_none() && self.most.is_some_and(|most| self.pairs.len() >= most as usize);
        let status = match present {
            _ if len > self.max_value => Status::INVALID_VALUE_SIZE,
            None if options.contains(StoreOptions::MUST_EXIST) => Status::KEY_DOES_NOT_EXIST,
            Some(_) if options.contains(StoreOptions::MUST_NOT_EXIST) => Status::KEY_EXISTS,
            _ if is_full || self.capacity - used < PAIR + u64::from(len) => Status::CAPACITY_EXCEEDED,
            _ => return Ok(()),
        };
        Err(status.with_do_not_retry())
    }

    /// Stores a value, which was [checked](Self::check_store).
    pub fn store(&mut self, key: Key, value: Box<[u8]>) {
        self.used += PAIR + value.len() as u64;
        if let Some(before) = self.pairs.insert(key, value) {
            self.used -= PAIR + before.len() as u64;
        }
    }

    /// Returns a value.
    pub fn get(&self, key: Key) -> Result<&[u8], Status> {
        let value = self.pairs.get(&key).ok_or(Status::KEY_DOES_NOT_EXIST.with_do_not_retry())?;
        Ok(value)
    }

    /// Removes a key and its value.
    pub fn delete(&mut self, key: Option<Key>) -> Result<(), Status> {
        match key.and_then(|key| self.pairs.remove(&key)) {
            Some(value) => self.used -= PAIR + value.len() as u64,
            None if self.error_on_missing_key => return Err(Status::KEY_DOES_NOT_EXIST.with_do_not_retry()),
            None => {}
        }
        Ok(())
    }

    /// Returns the keys that `len` bytes have room for, as a List returns them: from `from` on, in the order of their bytes.
    pub fn list(&self, from: Option<Key>, len: usize) -> Vec<u8> {
        let (mut keys, mut count) = (Vec::new(), 0_u32);
        let room = len.saturating_sub(KeyList::HEADER);
        let all = match from {
            Some(from) => self.pairs.range(from..),
            None => self.pairs.range(..),
        };
        for (key, _) in all {
            let before = keys.len();
            KeyList::push(&mut keys, key);
            if keys.len() > room {
                keys.truncate(before);
                break;
            }
            count += 1;
        }
        let mut list = count.to_le_bytes().to_vec();
        list.extend(keys);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(options: &str) -> Keys {
        Keys::new(&options.parse().unwrap(), 4096)
    }

    fn store(keys: &mut Keys, key: &[u8], len: usize) -> Result<(), Status> {
        let key = Key::new(key).unwrap();
        keys.check_store(key, len as u32, StoreOptions::empty())?;
        keys.store(key, vec![7; len].into());
        Ok(())
    }

    /// Pairs take at most the namespace's bytes, and give them back.
    #[test]
    fn pairs_take_no_more_than_the_namespace_has() {
        let mut keys = keys("kv=true");
        let full = Err(Status::CAPACITY_EXCEEDED);
        assert_eq!(store(&mut keys, b"big", 4033), full);
        store(&mut keys, b"big", 4000).unwrap();
        assert_eq!(keys.bytes(), (4096, 4064));
        assert_eq!(store(&mut keys, b"other", 0), full);
        // A longer value may take the place of the one before.
        store(&mut keys, b"big", 4032).unwrap();
        store(&mut keys, b"big", 1).unwrap();
        let count = (0_u8..255).take_while(|&key| store(&mut keys, &[key], 0).is_ok()).count();
        assert_eq!((count as u64 + 2) * 64, 4096, "pairs without a value take memory, too");
        keys.delete(Some(Key::new(b"big").unwrap())).unwrap();
        assert_eq!(keys.bytes().1, count as u64 * 64);
        keys.clear();
        assert_eq!(keys.bytes().1, 0);
    }

    #[test]
    fn the_number_of_keys_has_a_limit() {
        let mut keys = keys("kv=true,kv-keys=2");
        store(&mut keys, b"a", 1).unwrap();
        store(&mut keys, b"b", 1).unwrap();
        assert_eq!(store(&mut keys, b"c", 1), Err(Status::CAPACITY_EXCEEDED));
        store(&mut keys, b"b", 9).unwrap();
    }

    #[test]
    fn lists_have_whole_keys_in_order() {
        let mut all = keys("kv=true");
        for key in [&b"b"[..], b"abcde", b"0123456789abcdef", b"ab"] {
            store(&mut all, key, 0).unwrap();
        }
        let list = |from: Option<&[u8]>, len| {
            let bytes = all.list(from.map(|from| Key::new(from).unwrap()), len);
            assert!(bytes.len() <= len.max(4) && bytes.len() % 4 == 0);
            let keys: Vec<_> = KeyList::new(&bytes).map(|key| key.as_bytes().to_vec()).collect();
            keys
        };
        let expected: [&[u8]; 4] = [b"0123456789abcdef", b"ab", b"abcde", b"b"];
        assert_eq!(list(None, 4096), expected);
        assert_eq!(list(Some(b"ab"), 4096), expected[1..]);
        assert_eq!(list(Some(b"aba"), 4096), expected[2..], "there is no such key: the next one");
        assert_eq!(list(Some(b"c"), 4096), expected[4..]);
        // 4 bytes of the number, then 20, 4, 8 and 4.
        for (len, count) in [(0, 0), (4, 0), (23, 0), (24, 1), (27, 1), (28, 2), (35, 2), (36, 3), (40, 4)] {
            assert_eq!(list(None, len).len(), count, "{len} bytes");
        }
    }
}
