//! Commands of the key value command set that a turn submits.

use super::{Extent, Refusal, Refused, Turn, common::CLOSED, prp::DataPointer};
use crate::spec::{Command, Key, KeyList, NvmOpcode, RetrieveOptions, StoreOptions};
use std::ops::Range;
use upcie_core::dma::DmaBuf;

/// A command of the key value command set without its buffer, for [`Turn::submit_key`].
///
/// # Examples
/// ```
/// # use upcie_nvme::{Controller, Wait, spec::{Key, StoreOptions}};
/// use upcie_nvme::KeyCommand;
///
/// let controller = Controller::open("emu:size=1M,kv=true")?;
/// let namespace = controller.namespace(1)?;
/// let mut queue = controller.queue_pair().create::<u64>()?;
/// let key = Key::new(b"greeting")?;
/// let mut value = controller.alloc(5)?;
/// value.write_at(0, b"hello");
/// let store = KeyCommand::store_with(&namespace, key, StoreOptions::MUST_NOT_EXIST);
/// queue.turn()?.submit_key(store, value, 0)?;
/// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
/// queue.turn()?.next().unwrap().result()?;
///
/// queue.turn()?.submit_key(KeyCommand::retrieve(&namespace, key), controller.alloc(4096)?, 1)?;
/// # assert!(queue.wait(Wait::Poll, std::time::Duration::from_secs(10))?);
/// let done = queue.turn()?.next().unwrap();
/// let len = done.dword0() as usize; // of the value, which may be longer than the buffer
/// let (_, result, value) = done.into_parts();
/// result?;
/// assert_eq!(value.to_vec()[..len], *b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a command is sent by a turn's `submit_key`"]
pub struct KeyCommand<'n> {
    pub(crate) extent: &'n Extent,
    pub(crate) kind: KeyAction,
}

/// The action of a command of the key value command set, with its key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum KeyAction {
    Store(Key, StoreOptions),
    Retrieve(Key, RetrieveOptions),
    List(Option<Key>),
    Delete(Key),
    Exist(Key),
    Flush,
}

impl<'n> KeyCommand<'n> {
    /// Describes a Store: all of the command's buffer becomes the value of `key`, which replaces the one that it has. The value
    /// of a command with the empty buffer has no bytes.
    pub fn store(namespace: &'n impl AsRef<Extent>, key: Key) -> Self {
        Self::store_with(namespace, key, StoreOptions::empty())
    }

    /// Describes a Store like [`store`](Self::store), with options.
    pub fn store_with(namespace: &'n impl AsRef<Extent>, key: Key, options: StoreOptions) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::Store(key, options) }
    }

    /// Describes a Retrieve of the value of `key`, as much of it as the buffer has room for. Dword 0 of the completion
    /// ([`Completion::dword0`](super::Completion::dword0)) is the length of the whole value in bytes; the bytes of the buffer behind
    /// a shorter one have no meaning.
    pub fn retrieve(namespace: &'n impl AsRef<Extent>, key: Key) -> Self {
        Self::retrieve_with(namespace, key, RetrieveOptions::empty())
    }

    /// Describes a Retrieve like [`retrieve`](Self::retrieve), with options.
    pub fn retrieve_with(namespace: &'n impl AsRef<Extent>, key: Key, options: RetrieveOptions) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::Retrieve(key, options) }
    }

    /// Describes a List of as many keys as the buffer has room for, 24 bytes at least: a [`KeyList`]. `from` is the first of
    /// them if it exists; otherwise, and without it, the controller chooses the first one.
    pub fn list(namespace: &'n impl AsRef<Extent>, from: Option<Key>) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::List(from) }
    }

    /// Describes a Delete of `key` and its value. It has no buffer.
    pub fn delete(namespace: &'n impl AsRef<Extent>, key: Key) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::Delete(key) }
    }

    /// Describes an Exist, which fails with [`Status::KEY_DOES_NOT_EXIST`](crate::spec::Status::KEY_DOES_NOT_EXIST) if there is no
    /// `key`. It has no buffer.
    pub fn exist(namespace: &'n impl AsRef<Extent>, key: Key) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::Exist(key) }
    }

    /// Describes a Flush: every Store and Delete completed before it becomes durable. It has no buffer.
    pub fn flush(namespace: &'n impl AsRef<Extent>) -> Self {
        Self { extent: namespace.as_ref(), kind: KeyAction::Flush }
    }

    /// Returns the key, and the bytes that a buffer of the command may have.
    fn limits(&self) -> (Option<Key>, std::ops::RangeInclusive<usize>) {
        const LEAST: usize = KeyList::HEADER + KeyList::ENTRY;
        let limits = self.extent.keys;
        match self.kind {
            KeyAction::Store(key, _) => (Some(key), 0..=limits.value as usize),
            KeyAction::Retrieve(key, _) => (Some(key), 0..=limits.transfer as usize),
            KeyAction::List(from) => (from, LEAST..=limits.transfer as usize),
            KeyAction::Delete(key) | KeyAction::Exist(key) => (Some(key), 0..=0),
            KeyAction::Flush => (None, 0..=0),
        }
    }

    /// Returns the command for `bytes` bytes of data, and one of the same direction that has blocks.
    fn build(&self, bytes: u32) -> (Command, NvmOpcode) {
        let nsid = self.extent.nsid();
        match self.kind {
            KeyAction::Store(key, options) => (Command::store(nsid, key, bytes, options), NvmOpcode::WRITE),
            KeyAction::Retrieve(key, options) => {
                (Command::retrieve(nsid, key, bytes, options), NvmOpcode::READ)
            }
            KeyAction::List(from) => (Command::list_keys(nsid, from, bytes), NvmOpcode::READ),
            KeyAction::Delete(key) => (Command::delete_key(nsid, key), NvmOpcode::READ),
            KeyAction::Exist(key) => (Command::key_exists(nsid, key), NvmOpcode::READ),
            KeyAction::Flush => (Command::flush(nsid), NvmOpcode::READ),
        }
    }
}

impl<T> Turn<'_, T> {
    /// Submits a command of the key value command set with all of `buffer`, of any length in bytes.
    ///
    /// # Errors
    /// A [`Refused`] with the buffer and the tag; nothing was sent. The reason is [`Refusal::NotKeyValue`] for a namespace without
    /// keys, [`Refusal::KeyLength`] or [`Refusal::ValueLength`] beyond a limit of the namespace or the controller, and
    /// [`Refusal::Length`] for a buffer of a command without data, or one that is too short for a key.
    pub fn submit_key(&mut self, command: KeyCommand<'_>, buffer: DmaBuf, tag: T) -> Result<(), Refused<T>> {
        let made = self.key_words(&command, &buffer, 0..buffer.total_len());
        self.push_owned(made, buffer, tag)
    }

    /// Submits a command like [`submit_key`](Self::submit_key), with the bytes `part` of `held`, which stays with the caller.
    ///
    /// # Safety
    /// The obligations are those of [`submit_held`](Self::submit_held).
    ///
    /// # Errors
    /// Those of [`submit_key`](Self::submit_key), with the empty buffer.
    pub unsafe fn submit_key_held(
        &mut self,
        command: KeyCommand<'_>,
        held: &DmaBuf,
        part: Range<usize>,
        tag: T,
    ) -> Result<(), Refused<T>> {
        let made = self.key_words(&command, held, part);
        self.push_held(made, tag)
    }

    /// Makes the words of a command, and its data pointer. The command names as many bytes as the pointer describes, whatever the
    /// length of a value.
    fn key_words(
        &mut self,
        command: &KeyCommand<'_>,
        held: &DmaBuf,
        part: Range<usize>,
    ) -> Result<([u64; 8], DataPointer), Refusal> {
        let extent = command.extent;
        if extent.stamp != self.namespaces || self.is_full() || !extent.is_key_value() {
            return Err(self.refuse_key(extent));
        }
        // A range that ends before it starts has more bytes than any limit.
        let len = part.end.wrapping_sub(part.start);
        let (key, lengths) = command.limits();
        if !lengths.contains(&len) {
            let is_data = *lengths.end() > 0 && len > *lengths.end();
            return Err(if is_data { Refusal::ValueLength } else { Refusal::Length });
        }
        if key.is_some_and(|key| key.len() > usize::from(extent.keys.key)) {
            return Err(Refusal::KeyLength);
        }
        let (command, direction) = command.build(len as u32);
        let pointer = match len {
            0 => DataPointer { prp1: 0, prp2: 0, list: 0, psdt: 0 },
            _ => self.pointer(direction, held, part.start, len)?,
        };
        let words: [u64; 8] = zerocopy::transmute!(command);
        Ok((words, pointer))
    }

    /// Returns the reason why a command was refused that does not depend on the command.
    #[cold]
    fn refuse_key(&self, extent: &Extent) -> Refusal {
        if self.namespaces == CLOSED {
            Refusal::Closed
        } else if extent.controller != self.queue.live.controller {
            Refusal::ForeignNamespace
        } else if extent.stamp != self.namespaces {
            Refusal::StaleNamespace
        } else if !extent.is_key_value() {
            Refusal::NotKeyValue
        } else {
            Refusal::Full
        }
    }
}
