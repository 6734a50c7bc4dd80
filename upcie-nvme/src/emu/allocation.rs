//! Namespaces that a host creates, deletes, attaches, detaches and formats.

use super::{
    Options,
    erasure::{Erasure, Purpose},
    formats::Layout,
    io::Io,
    key_value::Keys,
    media::Media,
    namespace::{Away, Namespace},
    placement::GROUP,
};
use crate::spec::{ALL_NAMESPACES, Command, Status};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_NAMESPACE: Status = Status::INVALID_NAMESPACE_OR_FORMAT.with_do_not_retry();
const INVALID_FORMAT: Status = Status::INVALID_FORMAT.with_do_not_retry();
/// The most placement handles that the data of Namespace Management has room for.
const MOST_HANDLES: usize = 128;
const NO_ROOM: Status = Status::NAMESPACE_INSUFFICIENT_CAPACITY.with_do_not_retry();

/// Returns the little-endian number of `N` bytes at an offset of a page.
fn number<const N: usize>(page: &[u8; 4096], at: usize) -> u64 {
    page[at..at + N].iter().rev().fold(0, |all, &byte| all << 8 | u64::from(byte))
}

impl<M: Media> Io<M> {
    /// Returns the bytes of the media that belong to no namespace.
    pub fn unallocated(&self) -> u64 {
        let all = self.namespaces.iter().filter(|namespace| namespace.is_allocated());
        self.capacity - all.map(|namespace| namespace.capacity).sum::<u64>()
    }

    /// Returns an error while the medium is write protected.
    pub fn changeable(&self) -> Result<(), Status> {
        if self.protected { Err(Status::WRITE_PROTECTED.with_do_not_retry()) } else { Ok(()) }
    }

    /// Creates a namespace, detached, as the data of a Namespace Management says; returns its identifier.
    pub fn create(&mut self, page: &[u8; 4096]) -> Result<u32, Status> {
        self.changeable()?;
        let (size, capacity) = (number::<8>(page, 0), number::<8>(page, 8));
        let (format, protection) = (page[26], page[29]);
        if format >> 7 != 0 || protection >> 4 != 0 {
            return Err(INVALID_FORMAT);
        }
        let index = usize::from(format & 0xf | format >> 5 << 4);
        let layout = self.layout(index, format & 0x10 != 0, protection & 7, protection & 8 != 0)?;
        // Neither ANA groups nor NVM sets; an endurance group and placement handles with flexible data placement only.
        let placed = self.placement.is_some();
        let zeros = [92..96, 100..if placed { 102 } else { 104 }, 384..if placed { 392 } else { 394 }];
        if size == 0 || capacity > size || zeros.into_iter().flatten().any(|at| page[at] != 0) {
            return Err(INVALID_FIELD);
        }
        if capacity < size {
            return Err(Status::THIN_PROVISIONING_NOT_SUPPORTED.with_do_not_retry());
        }
        let handles = self.chosen_handles(page)?;
        let bytes = layout.bytes(size).ok_or(NO_ROOM)?;
        let nsid = self.allocate(bytes, |start| Namespace::new(start, bytes, layout, Away::Detached))?;
        if let (Some(placement), Some((handles, by_host))) = (&mut self.placement, handles) {
            placement.assign(nsid as usize - 1, handles, by_host);
        }
        Ok(nsid)
    }

    /// Creates a key value namespace, detached, as the data of a Namespace Management says; returns its identifier.
    pub fn create_keys(&mut self, options: &Options, page: &[u8; 4096]) -> Result<u32, Status> {
        self.changeable()?;
        let size = number::<8>(page, 0);
        // Neither ANA groups nor NVM sets nor endurance groups.
        let zeros = [92..96, 100..104];
        if size == 0 || zeros.into_iter().flatten().any(|at| page[at] != 0) {
            return Err(INVALID_FIELD);
        }
        // Namespaces with blocks begin at multiples of them.
        let bytes = size.checked_next_multiple_of(4096).ok_or(NO_ROOM)?;
        let made = |start| Namespace::new(start, bytes, Layout::PLAIN, Away::Detached).with_keys();
        let nsid = self.allocate(bytes, made)?;
        if let Some(keys) = self.keys.get_mut(nsid as usize - 1) {
            *keys = Some(Keys::new(options, bytes));
        }
        Ok(nsid)
    }

    /// Puts a namespace of so many bytes into a gap between others; returns its identifier.
    fn allocate(&mut self, bytes: u64, made: impl FnOnce(u64) -> Namespace) -> Result<u32, Status> {
        let start = self.gap(bytes).ok_or(NO_ROOM)?;
        let free = (1_u32..).zip(&mut self.namespaces).find(|(_, namespace)| !namespace.is_allocated());
        let (nsid, namespace) = free.ok_or(Status::NAMESPACE_ID_UNAVAILABLE.with_do_not_retry())?;
        let generation = namespace.generation + 1;
        *namespace = Namespace { generation, ..made(start) };
        self.note_metadata();
        Ok(nsid)
    }

    /// Returns the reclaim unit handles of a namespace to create, and `true` if its host has chosen them; `None` while there is
    /// no flexible data placement, or it is off.
    fn chosen_handles(&self, page: &[u8; 4096]) -> Result<Option<(Vec<u16>, bool)>, Status> {
        let Some(placement) = &self.placement else { return Ok(None) };
        let count = number::<2>(page, 392) as usize;
        if number::<2>(page, 102) > GROUP.into() || count > MOST_HANDLES {
            return Err(INVALID_FIELD);
        }
        if count > 0 {
            placement.check_on()?;
        }
        if !placement.is_on() {
            return Ok(None);
        }
        let chosen: Vec<u16> = (0..count).map(|index| number::<2>(page, 512 + 2 * index) as u16).collect();
        Ok(Some((placement.choose(&chosen)?, count > 0)))
    }

    /// Returns the layout of a host's choices.
    fn layout(&self, index: usize, extended: bool, protection: u8, first: bool) -> Result<Layout, Status> {
        let layout = Layout::chosen(index, extended, protection, first).ok_or(INVALID_FORMAT)?;
        // Without data there is no metadata either.
        let keeps = self.media.moves_data() && !self.is_cached;
        if layout.metadata() != 0 && !keeps { Err(INVALID_FORMAT) } else { Ok(layout) }
    }

    /// Returns the first byte of the first gap between namespaces that has `bytes`.
    fn gap(&self, bytes: u64) -> Option<u64> {
        let mut used: Vec<_> = self.namespaces.iter().filter(|namespace| namespace.is_allocated()).collect();
        used.sort_unstable_by_key(|namespace| namespace.start);
        let mut start = 0;
        for namespace in used {
            if namespace.start - start >= bytes {
                return Some(start);
            }
            start = namespace.start + namespace.capacity;
        }
        (self.capacity - start >= bytes).then_some(start)
    }

    /// Begins to delete a namespace, or all, with the data: the command completes when they are erased. One whose data can't be
    /// erased stays.
    pub fn delete(&mut self, command: &Command) -> Result<(), Status> {
        self.changeable()?;
        let named = self.named(command.nsid, Namespace::exists)?;
        self.check_formats(&named)?;
        self.begin_erasure(Purpose::Delete, named, Away::Deleting, command);
        Ok(())
    }

    /// Attaches a namespace to this controller, the only one, or detaches it.
    pub fn attach(&mut self, nsid: u32, list: &[u8; 4096], attach: bool) -> Result<(), Status> {
        let found = self.namespaces.get_mut(nsid.wrapping_sub(1) as usize).ok_or(INVALID_NAMESPACE)?;
        if !found.exists() {
            return Err(INVALID_FIELD);
        }
        if (number::<2>(list, 0), number::<2>(list, 2)) != (1, self.controller.into()) {
            return Err(Status::CONTROLLER_LIST_INVALID.with_do_not_retry());
        }
        match (attach, found.is_active()) {
            (true, true) => return Err(Status::NAMESPACE_ALREADY_ATTACHED.with_do_not_retry()),
            (false, false) => return Err(Status::NAMESPACE_NOT_ATTACHED.with_do_not_retry()),
            // Attached again, it would take commands.
            (false, true) if matches!(found.away, Away::Formatting | Away::Unformatted) => {
                return Err(found.refusal());
            }
            (true, false) => found.set_away(Away::Not),
            (false, true) => found.set_away(Away::Detached),
        }
        Ok(())
    }

    /// Begins a Format NVM, which completes when the namespaces are erased: they have blocks of the new size then, and no data. One
    /// that can't be erased keeps its layout: with the new one, old data would be blocks that nobody wrote.
    pub fn format(&mut self, command: &Command) -> Result<(), Status> {
        let dword = command.cdw10;
        let format = (dword & 0xf | dword >> 12 << 4 & 0x30) as usize;
        let layout = self.layout(format, dword >> 4 & 1 != 0, (dword >> 5 & 7) as u8, dword >> 8 & 1 != 0)?;
        if dword >> 9 & 7 > 2 {
            return Err(INVALID_FIELD);
        }
        self.changeable()?;
        let named = self.named(command.nsid, Namespace::is_active)?;
        let fits = |namespace: &Namespace| {
            // The one key value format has the index 0.
            let fits_keys = !namespace.keys || dword & 0x31ff == 0;
            let has_metadata = namespace.zoned && layout.metadata() > 0;
            layout.blocks(namespace.capacity) > 0 && !has_metadata && fits_keys
        };
        if !named.iter().all(|&index| fits(&self.namespaces[index])) {
            return Err(INVALID_FORMAT);
        }
        self.check_formats(&named)?;
        self.begin_erasure(Purpose::Format(layout), named, Away::Formatting, command);
        Ok(())
    }

    /// Returns an error if a namespace is being formatted.
    fn check_formats(&self, named: &[usize]) -> Result<(), Status> {
        let is_busy = |index: &usize| self.namespaces[*index].away == Away::Formatting;
        if named.iter().any(is_busy) { Err(Status::FORMAT_IN_PROGRESS) } else { Ok(()) }
    }

    /// Begins to erase namespaces for a command, which completes when all are erased. They take no commands meanwhile.
    fn begin_erasure(&mut self, purpose: Purpose, named: Vec<usize>, away: Away, command: &Command) {
        let mut all = Vec::with_capacity(named.len());
        for index in named {
            let namespace = &mut self.namespaces[index];
            all.push((index, namespace.away));
            namespace.set_away(away);
        }
        self.erasures.push_back(Erasure::new(purpose, all, Some(command)));
    }

    /// Begins to erase the medium. No namespace takes commands until [`sanitized`](Self::sanitized).
    pub fn sanitize(&mut self) {
        for namespace in self.namespaces.iter_mut().filter(|namespace| namespace.is_active()) {
            namespace.set_away(Away::Sanitizing);
        }
        self.erasures.push_back(Erasure::new(Purpose::Sanitize, Vec::new(), None));
    }

    /// Lets the namespaces that were to be erased take commands again; none if they were not erased.
    pub fn sanitized(&mut self, is_erased: bool) {
        let away = if is_erased { Away::Not } else { Away::NotSanitized };
        for namespace in &mut self.namespaces {
            if matches!(namespace.away, Away::Sanitizing | Away::NotSanitized) {
                namespace.set_away(away);
            }
        }
    }

    /// Returns the indices of the namespaces that a command names: one, which has to be `there`, or all that are.
    fn named(&self, nsid: u32, there: fn(&Namespace) -> bool) -> Result<Vec<usize>, Status> {
        let index = nsid.wrapping_sub(1) as usize;
        match self.namespaces.get(index) {
            _ if nsid == ALL_NAMESPACES => {
                let all = (0..).zip(&self.namespaces).filter(|(_, namespace)| there(namespace));
                Ok(all.map(|(index, _)| index).collect())
            }
            Some(namespace) if there(namespace) => Ok(vec![index]),
            Some(_) => Err(INVALID_FIELD),
            None => Err(INVALID_NAMESPACE),
        }
    }
}
