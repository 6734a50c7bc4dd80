//! The commands of a namespace with keys.

use super::{
    super::{HostMemory, data::Data, io::Io, media::Media, namespace::Away, zones::HAS_RESULT},
    Keys,
};
use crate::spec::{
    ALL_NAMESPACES, Command, FeatureSelect, FeaturesDword10, Key, KeyList, KeyValueConfiguration,
    KeyValueOpcode, Status, StoreOptions,
};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

impl<M: Media> Io<M> {
    /// Returns the index of a namespace that has keys and takes commands.
    pub(in super::super) fn keyed(&self, nsid: u32) -> Option<usize> {
        let index = nsid.wrapping_sub(1) as usize;
        let namespace = self.namespaces.get(index)?;
        (namespace.keys && namespace.away == Away::Not).then_some(index)
    }

    /// Returns `true` for a namespace that has keys, whether it takes commands or not.
    pub(in super::super) fn has_keys(&self, nsid: u32) -> bool {
        self.namespaces.get(nsid.wrapping_sub(1) as usize).is_some_and(|namespace| namespace.keys)
    }

    /// Removes the keys of namespaces whose part of the media is erased.
    pub(in super::super) fn renew_keys(&mut self, start: u64, len: u64) {
        for (keys, namespace) in self.keys.iter_mut().zip(&self.namespaces) {
            let erased = namespace.start >= start && namespace.start < start.saturating_add(len);
            if let Some(keys) = keys.as_mut().filter(|_| erased) {
                keys.clear();
            }
        }
    }

    /// Carries out a command of a namespace with keys. `flip` is a random number: the position of a bit of the value to flip.
    /// Returns the bytes moved, with [`HAS_RESULT`] where the completion has a result.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn execute_keys(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        command: &Command,
        flip: Option<u64>,
    ) -> Result<u64, Status> {
        let opcode = KeyValueOpcode(command.opcode);
        if opcode == KeyValueOpcode::FLUSH {
            return self.flush_media();
        }
        if opcode.name().is_none() {
            return Err(Status::INVALID_OPCODE.with_do_not_retry());
        }
        let (len, key) = (command.key_length(), command.key());
        if usize::from(len) > Key::MOST {
            return Err(INVALID_FIELD);
        }
        let changes = matches!(opcode, KeyValueOpcode::STORE | KeyValueOpcode::DELETE);
        if changes {
            self.writable()?;
            self.check_protection(command.nsid)?;
        }
        let moves = matches!(opcode, KeyValueOpcode::STORE | KeyValueOpcode::RETRIEVE | KeyValueOpcode::LIST);
        if moves && u64::from(command.cdw10) > self.mdts {
            return Err(INVALID_FIELD);
        }
        let missing = Status::KEY_DOES_NOT_EXIST.with_do_not_retry();
        match opcode {
            KeyValueOpcode::STORE => self.store_value(host, index, command, flip),
            KeyValueOpcode::RETRIEVE => self.retrieve_value(host, index, command, flip),
            KeyValueOpcode::LIST => {
                let bytes = command.cdw10 as usize;
                if len != 0 {
                    self.keys_of(index)?.check_key(len)?;
                }
                if bytes < KeyList::HEADER {
                    return Err(INVALID_FIELD);
                }
                let list = self.keys_of(index)?.list(key, bytes);
                self.send_part(host, command, &list)
            }
            KeyValueOpcode::DELETE => self.keys_of(index)?.delete(key).map(|()| 0),
            _ => self.keys_of(index)?.get(key.ok_or(missing)?).map(|_| 0),
        }
    }

    fn keys_of(&mut self, index: usize) -> Result<&mut Keys, Status> {
        self.keys.get_mut(index).and_then(Option::as_mut).ok_or(Status::INTERNAL_ERROR)
    }

    fn store_value(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        command: &Command,
        flip: Option<u64>,
    ) -> Result<u64, Status> {
        let (len, page, sgls) = (command.cdw10, self.page, self.sgls);
        let keys = self.keys_of(index)?;
        let key = keys.key(command)?;
        keys.check_store(key, len, StoreOptions::from_bits_truncate(command.key_options()))?;
        let mut value = vec![0; len as usize].into_boxed_slice();
        if len > 0 {
            let pointers = (command.prp1(), command.prp2());
            Data::of(command.flags, pointers, sgls)?.fetch(host, page, &mut value)?;
        }
        flip_bit(&mut value, flip);
        self.keys_of(index)?.store(key, value);
        self.counters.writes += 1;
        self.counters.bytes_written += u64::from(len);
        Ok(len.into())
    }

    fn retrieve_value(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        command: &Command,
        flip: Option<u64>,
    ) -> Result<u64, Status> {
        let keys = self.keys_of(index)?;
        let value = keys.get(keys.key(command)?)?;
        let whole = value.len() as u64;
        let part = value.get(..command.cdw10 as usize).unwrap_or(value);
        // The values and the host's memory are both this value's to access: the copy ends the first borrow.
        let mut part = part.to_vec();
        flip_bit(&mut part, flip);
        let moved = self.send_part(host, command, &part)?;
        self.counters.reads += 1;
        self.counters.bytes_read += moved;
        self.result = whole;
        Ok(moved | HAS_RESULT)
    }

    /// Sends `bytes`, which may be fewer than the command has a buffer for.
    fn send_part(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        bytes: &[u8],
    ) -> Result<u64, Status> {
        let data = Data::of(command.flags, (command.prp1(), command.prp2()), self.sgls)?;
        if bytes.is_empty() {
            return Ok(0);
        }
        // A scatter gather list has the length of the buffer; of PRPs only those of the data are read.
        let len = match data {
            Data::Prps(..) => bytes.len() as u64,
            Data::Sgl(..) => command.cdw10.into(),
        };
        data.store_first(host, self.page, len, bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Returns the value of feature 20h that a Get Features asks for.
    pub(in super::super) fn key_configuration(&self, command: &Command) -> Result<u32, Status> {
        if self.keys.is_empty() {
            return Err(INVALID_FIELD);
        }
        match FeaturesDword10::from_bits(command.cdw10).sel() {
            FeatureSelect::CURRENT => {
                let keys = self.keyed(command.nsid).and_then(|index| self.keys.get(index)?.as_ref());
                let error = keys.ok_or(INVALID_FIELD)?.error_on_missing_key;
                Ok(KeyValueConfiguration::new().with_error_on_missing_key(error).into_bits())
            }
            FeatureSelect::DEFAULT | FeatureSelect::SAVED => Ok(0),
            // Changeable, by namespace.
            FeatureSelect::SUPPORTED => Ok(1 << 2 | 1 << 1),
            _ => Err(INVALID_FIELD),
        }
    }

    /// Sets feature 20h of a namespace, or of all that have keys.
    pub(in super::super) fn configure_keys(&mut self, command: &Command) -> Result<u32, Status> {
        let error = KeyValueConfiguration::from_bits(command.cdw11).error_on_missing_key();
        if self.keys.is_empty() {
            return Err(INVALID_FIELD);
        }
        if command.nsid == ALL_NAMESPACES {
            self.keys.iter_mut().flatten().for_each(|keys| keys.error_on_missing_key = error);
            return Ok(0);
        }
        let index = self.keyed(command.nsid).ok_or(INVALID_FIELD)?;
        self.keys_of(index)?.error_on_missing_key = error;
        Ok(0)
    }
}

/// Flips a bit of a value that has some.
fn flip_bit(value: &mut [u8], flip: Option<u64>) {
    let Some(bit) = flip.and_then(|bit| bit.checked_rem(value.len() as u64 * 8)) else { return };
    if let Some(byte) = value.get_mut((bit / 8) as usize) {
        *byte ^= 1 << (bit % 8);
    }
}
