//! The keys of a namespace and their values: stored, retrieved, deleted and listed.

use super::{
    Namespace,
    blocking::{Order, What, run},
    retries::Tries,
};
use crate::{
    Error, Result,
    controller::Limit,
    engine::{Extent, KeyCommand},
    spec::{Csi, Key, KeyList, KeyValueNamespace, KeyValueOpcode, RetrieveOptions, Status, StoreOptions},
};
use std::{collections::HashSet, ops::Range};
use upcie_core::dma::DmaBuf;

/// Bytes of keys that one command asks for, at most.
const PIECE: usize = 64 << 10;
/// Bytes for a value of unknown length.
const GUESS: usize = 4096;
/// Retrievals of a value that grows meanwhile.
const GROWTHS: u32 = 8;

/// The keys and values of a namespace of the key value command set (KV): values of any length in bytes, each found by its
/// [`Key`]. There are no blocks, and no offsets into values: a value is stored and retrieved as a whole.
///
/// A [`KeyCommand`] is for several commands in flight ([`Turn::submit_key`](crate::Turn::submit_key)).
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, spec::{Key, Status, StoreOptions}};
///
/// let controller = Controller::open("emu:size=1M,kv=true")?;
/// let keys = controller.namespace(1)?.keys()?;
/// let key = Key::new(b"greeting")?;
/// keys.store_bytes(key, b"hello", StoreOptions::empty())?;
/// assert_eq!(keys.retrieve_bytes(key)?, b"hello");
/// assert_eq!(keys.list(None, usize::MAX)?, [key]);
///
/// let again = keys.store_bytes(key, b"once more", StoreOptions::MUST_NOT_EXIST).unwrap_err();
/// assert_eq!(again.status(), Some(Status::KEY_EXISTS));
/// keys.delete(key)?;
/// assert!(!keys.exists(key)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct KeyValue {
    namespace: Namespace,
}

impl Namespace {
    /// Returns the namespace's keys and values.
    ///
    /// # Errors
    /// [`Failure::NoIo`](crate::Failure::NoIo) if the controller takes no I/O;
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) if the namespace has no keys, or its controller does not describe them.
    pub fn keys(&self) -> Result<KeyValue> {
        self.controller.check_io()?;
        if self.keys.is_none() {
            let reason = match &self.unusable {
                Some(reason) if self.command_set == Csi::KEY_VALUE => reason.to_string(),
                _ => format!("its command set is {}", self.command_set),
            };
            let reason = format!("namespace {} has no keys that can be used: {reason}", self.nsid());
            return Err(Error::unsupported(self.controller.name(), reason));
        }
        Ok(KeyValue { namespace: self.clone() })
    }
}

impl KeyValue {
    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the Identify data of the keys, as it was when the namespace's handle was made.
    pub fn identify(&self) -> &KeyValueNamespace {
        self.namespace.keys.as_ref().expect("checked when this was made")
    }

    /// Returns the bytes that the namespace has for keys and values (NSZE).
    pub fn size(&self) -> u64 {
        self.identify().size
    }

    /// Returns the most bytes of a key, 16 at most.
    pub fn max_key(&self) -> usize {
        self.namespace.extent.keys.key.into()
    }

    /// Returns the most bytes of a value: of the namespace, or of one command (MDTS), which is less.
    pub fn max_value(&self) -> usize {
        self.namespace.extent.keys.value as usize
    }

    /// Returns the most bytes that one command transfers (MDTS): of a buffer for a value or for keys.
    pub fn max_transfer(&self) -> usize {
        self.namespace.extent.keys.transfer as usize
    }

    /// Stores all of `value` under `key`, and waits for it. A value that the key has is replaced, as a whole or not at all. The
    /// empty buffer is a value, too.
    ///
    /// After an error that is not the controller's status the value may have been stored: it is not sent again.
    ///
    /// # Errors
    /// The controller's status: [`Status::CAPACITY_EXCEEDED`], [`Status::INVALID_VALUE_SIZE`], [`Status::INVALID_KEY_SIZE`];
    /// a refusal (nothing is sent then), or a timeout. After a timeout the controller may still use the buffer: then `value` is
    /// left empty, and the error says so.
    pub fn store(&self, key: Key, value: &mut DmaBuf) -> Result<()> {
        let all = 0..value.total_len();
        self.store_with(key, value, all, StoreOptions::empty())
    }

    /// Stores the bytes `part` of all segments of `value` like [`store`](Self::store), with options.
    ///
    /// # Errors
    /// Those of [`store`](Self::store); [`Status::KEY_EXISTS`] with [`StoreOptions::MUST_NOT_EXIST`],
    /// [`Status::KEY_DOES_NOT_EXIST`] with [`StoreOptions::MUST_EXIST`].
    pub fn store_with(
        &self,
        key: Key,
        value: &mut DmaBuf,
        part: Range<usize>,
        options: StoreOptions,
    ) -> Result<()> {
        let command = KeyCommand::store_with(self, key, options);
        let len = part.end.saturating_sub(part.start);
        let what = || {
            format!("{} of {len} bytes under key {key} of namespace {}", KeyValueOpcode::STORE, self.nsid())
        };
        let mut limit = self.limit_for(part.len());
        self.run(command, value, part, Tries::NONE, &what, &mut limit).map(drop)
    }

    /// Stores bytes of this process, by a copy, like [`store_with`](Self::store_with).
    ///
    /// # Errors
    /// Those of [`store_with`](Self::store_with), and a lack of memory.
    pub fn store_bytes(&self, key: Key, value: &[u8], options: StoreOptions) -> Result<()> {
        let mut buffer = self.buffer(value.len().min(self.max_transfer()))?;
        // A value that is too long is refused before it is sent: its bytes do not matter.
        if value.len() <= buffer.len() {
            buffer.write_at(0, value);
        }
        self.store_with(key, &mut buffer, 0..value.len(), options)
    }

    /// Retrieves the value of `key` into `buffer`, as much of it as there is room for, waits for it, and returns the length of the
    /// whole value in bytes. If that exceeds the buffer's, the buffer has the beginning of the value. With the empty buffer it
    /// asks for the length alone. The bytes behind a shorter value have no meaning.
    ///
    /// # Errors
    /// The controller's status: [`Status::KEY_DOES_NOT_EXIST`], [`Status::UNRECOVERED_ERROR`]; a refusal, also of a buffer
    /// beyond [`max_transfer`](Self::max_transfer); or a timeout, as with [`store`](Self::store).
    pub fn retrieve(&self, key: Key, buffer: &mut DmaBuf) -> Result<usize> {
        let all = 0..buffer.total_len();
        self.retrieve_with(key, buffer, all, RetrieveOptions::empty())
    }

    /// Retrieves a value like [`retrieve`](Self::retrieve), into the bytes `part` of all segments of `buffer`, with options.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve).
    pub fn retrieve_with(
        &self,
        key: Key,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        options: RetrieveOptions,
    ) -> Result<usize> {
        let mut limit = self.limit_for(part.len());
        self.retrieve_limited(key, buffer, part, options, &mut limit)
    }

    /// Retrieves a value like [`retrieve_with`](Self::retrieve_with), as a part of a call.
    fn retrieve_limited(
        &self,
        key: Key,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        options: RetrieveOptions,
        limit: &mut Limit<'_>,
    ) -> Result<usize> {
        let command = KeyCommand::retrieve_with(self, key, options);
        let what = || format!("{} of key {key} of namespace {}", KeyValueOpcode::RETRIEVE, self.nsid());
        self.run(command, buffer, part, self.tries(), &what, limit).map(|len| len as usize)
    }

    /// Retrieves the value of `key`, whatever its length, by a copy.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve), the timeout being that of all commands together; a lack of memory; and
    /// [`Failure::Unsupported`](crate::Failure::Unsupported) for a value that is longer than one command may transfer.
    pub fn retrieve_bytes(&self, key: Key) -> Result<Vec<u8>> {
        let mut room = GUESS.min(self.max_transfer());
        let mut limit = self.limit_for(room);
        for _ in 0..GROWTHS {
            limit.allow_bytes(room as u64);
            let budget = limit.budget();
            let mut buffer = self.buffer(room)?;
            drop(budget);
            let all = 0..buffer.total_len();
            let len = self.retrieve_limited(key, &mut buffer, all, RetrieveOptions::empty(), &mut limit)?;
            if len <= room {
                let mut value = vec![0; len];
                buffer.read_at(0, &mut value);
                return Ok(value);
            }
            if len > self.max_transfer() {
                let (most, device) = (self.max_transfer(), self.namespace.controller.name());
                let reason = format!(
                    "the value of key {key} has {len} bytes, more than the {most} that one command may transfer (MDTS): its \
                     beginning is all that can be retrieved"
                );
                return Err(Error::unsupported(device, reason));
            }
            room = len;
        }
        let what = format!("{} of key {key} of namespace {}", KeyValueOpcode::RETRIEVE, self.nsid());
        let reason = "the value is longer each time than the controller said before";
        Err(Error::protocol(self.namespace.controller.name(), what, reason))
    }

    /// Deletes `key` and its value, and waits for it. It is not repeated after an error.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve). A key that does not exist is an error only if the feature
    /// [`KeyValueConfiguration`](crate::spec::KeyValueConfiguration) says so.
    pub fn delete(&self, key: Key) -> Result<()> {
        let what = || format!("{} of key {key} of namespace {}", KeyValueOpcode::DELETE, self.nsid());
        let command = KeyCommand::delete(self, key);
        self.run(command, &mut DmaBuf::empty(), 0..0, Tries::NONE, &what, &mut self.limit_for(0)).map(drop)
    }

    /// Returns `true` if there is a `key`.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve).
    pub fn exists(&self, key: Key) -> Result<bool> {
        let what = || format!("{} of key {key} of namespace {}", KeyValueOpcode::EXIST, self.nsid());
        let command = KeyCommand::exist(self, key);
        match self.run(command, &mut DmaBuf::empty(), 0..0, self.tries(), &what, &mut self.limit_for(0)) {
            Ok(_) => Ok(true),
            Err(error) if error.status() == Some(Status::KEY_DOES_NOT_EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists at most `most` keys, in the order of the controller's choice: from the key `from` on if it exists, otherwise from one
    /// that the controller chooses. The embedded controller sorts keys by their bytes, and begins with the first that is not
    /// below `from`.
    ///
    /// Keys that are stored and deleted meanwhile may be there or not; each is listed once. It takes the controller's timeout and a
    /// second for each MiB of keys (52428 of them) at most, and each command the timeout.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve).
    pub fn list(&self, from: Option<Key>, most: usize) -> Result<Vec<Key>> {
        let (mut keys, mut seen) = (Vec::new(), HashSet::new());
        let mut limit = self.limit_for(0);
        let budget = limit.budget();
        let mut buffer = self.buffer(PIECE.min(self.max_transfer()))?;
        drop(budget);
        let mut bytes = vec![0; buffer.len()];
        let mut next = from;
        while keys.len() < most {
            let what = || match next {
                Some(key) => {
                    format!("{} of keys of namespace {} from {key} on", KeyValueOpcode::LIST, self.nsid())
                }
                None => format!("{} of keys of namespace {}", KeyValueOpcode::LIST, self.nsid()),
            };
            let len = bytes.len();
            limit.allow_bytes((keys.len() * KeyList::ENTRY) as u64);
            let command = KeyCommand::list(self, next);
            self.run(command, &mut buffer, 0..len, self.tries(), &what, &mut limit)?;
            buffer.read_at(0, &mut bytes);
            let mut list = KeyList::new(&bytes);
            let before = keys.len();
            // The first key of a further piece is the last one of the piece before. A list that goes round ends, too.
            keys.extend(list.by_ref().filter(|key| seen.insert(*key)));
            let is_whole = list.room() >= KeyList::ENTRY;
            if is_whole || keys.len() == before {
                break;
            }
            next = keys.last().copied();
        }
        keys.truncate(most);
        Ok(keys)
    }

    /// Flushes: every [`store`](Self::store) and [`delete`](Self::delete) completed before this call survives a loss of power.
    ///
    /// # Errors
    /// Those of [`retrieve`](Self::retrieve).
    pub fn flush(&self) -> Result<()> {
        let what = || format!("{} of namespace {}", KeyValueOpcode::FLUSH, self.nsid());
        let command = KeyCommand::flush(self);
        self.run(command, &mut DmaBuf::empty(), 0..0, self.tries(), &what, &mut self.limit_for(0)).map(drop)
    }

    /// Sends a command with the bytes `part` of `buffer`, and waits for it. Returns dword 0 of its completion.
    fn run(
        &self,
        command: KeyCommand<'_>,
        buffer: &mut DmaBuf,
        part: Range<usize>,
        tries: Tries,
        what: What<'_>,
        limit: &mut Limit<'_>,
    ) -> Result<u32> {
        let controller = &self.namespace.controller;
        controller.check_io()?;
        let result = run(controller, buffer, what, limit, (tries, Order::Any), |turn, held, _| {
            // SAFETY: the part is checked to be inside of `held`. It outlives the command: `run` gives it back or frees it only
            // when nothing is in flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.submit_key_held(command, held, part.clone(), 0) }.map(|()| false)
        })?;
        Ok(result as u32)
    }

    /// Returns a buffer of `len` bytes; the empty one for none.
    fn buffer(&self, len: usize) -> Result<DmaBuf> {
        match len {
            0 => Ok(DmaBuf::empty()),
            _ => Ok(self.namespace.controller.heap().alloc(len)?),
        }
    }

    /// Starts the deadline of a call that moves so many bytes.
    fn limit_for(&self, bytes: usize) -> Limit<'_> {
        self.namespace.controller.limit_for(bytes as u64)
    }

    fn tries(&self) -> Tries {
        Tries::of(&self.namespace.controller)
    }

    fn nsid(&self) -> u32 {
        self.namespace.nsid()
    }
}

impl AsRef<Extent> for KeyValue {
    /// Returns the namespace's extent for commands on a queue.
    fn as_ref(&self) -> &Extent {
        &self.namespace.extent
    }
}
