//! The reservation commands, and the check of others.

use super::{
    super::{
        HostMemory,
        data::Data,
        io::Io,
        media::Media,
        namespace::{Away, refusal},
        zones::Fields,
    },
    Access, Host,
    state::Registrant,
};
use crate::spec::{
    ALL_NAMESPACES, ExtendedRegisteredController, NvmOpcode, PersistenceChange, RegisteredController,
    ReservationAcquireAction, ReservationAcquireData, ReservationAcquireDword10, ReservationRegisterAction,
    ReservationRegisterData, ReservationRegisterDword10, ReservationReleaseAction, ReservationReleaseData,
    ReservationReleaseDword10, ReservationStatus, ReservationType, Status,
};
use zerocopy::{FromZeros, IntoBytes, little_endian::U16};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

impl<M: Media> Io<M> {
    /// Notes whether a reservation restricts this controller's host, namespaces are write protected, or the path to them refuses
    /// commands: they take another way then.
    pub(in super::super) fn note_reservations(&mut self) {
        self.restricted = self.reservations.restrict(self.controller);
        let any_keys = self.namespaces.iter().any(|namespace| namespace.keys);
        let others = self.placement.is_some() || self.has_own_memory || self.most_prps != 0;
        self.guarded = self.any_protected() || self.path.refusal().is_some();
        self.careful = self.any_metadata || any_keys || others || self.restricted || self.guarded;
    }

    /// Returns an error if a reservation keeps the host from an I/O command, the namespace is write protected, or out of
    /// reach.
    pub(in super::super) fn check_command(&self, opcode: NvmOpcode, nsid: u32) -> Result<(), Status> {
        if self.guarded {
            self.path.check(opcode)?;
            self.check_change(opcode, nsid)?;
        }
        Access::of(opcode).map_or(Ok(()), |access| self.check_access(nsid, access))
    }

    /// Returns an error if a reservation keeps the host from an access to a namespace, or to any.
    pub(in super::super) fn check_access(&self, nsid: u32, access: Access) -> Result<(), Status> {
        if !self.restricted {
            return Ok(());
        }
        let index = Some(nsid.wrapping_sub(1) as usize).filter(|_| nsid != ALL_NAMESPACES);
        self.reservations.check(self.controller, index, access)
    }

    /// Carries out a reservation command.
    pub(in super::super) fn reserve(
        &mut self,
        host: &mut impl HostMemory,
        fields: Fields,
    ) -> Result<u64, Status> {
        let index = fields.nsid.wrapping_sub(1) as usize;
        match self.namespaces.get(index) {
            Some(namespace) if namespace.away == Away::Not => {}
            other => return Err(refusal(other)),
        }
        let data = Data::of(fields.flags, fields.pointers, self.sgls)?;
        let who = self.reservations.host(self.controller);
        let dword = fields.dwords[0];
        match fields.opcode {
            NvmOpcode::RESERVATION_REPORT => return self.report(host, index, data, &fields),
            NvmOpcode::RESERVATION_REGISTER => {
                let mut keys = ReservationRegisterData::new_zeroed();
                data.fetch(host, self.page, keys.as_mut_bytes())?;
                self.register(index, who, ReservationRegisterDword10::from_bits(dword), keys)?;
            }
            NvmOpcode::RESERVATION_ACQUIRE => {
                let mut keys = ReservationAcquireData::new_zeroed();
                data.fetch(host, self.page, keys.as_mut_bytes())?;
                self.acquire(index, who, ReservationAcquireDword10::from_bits(dword), keys)?;
            }
            _ => {
                let mut keys = ReservationReleaseData::new_zeroed();
                data.fetch(host, self.page, keys.as_mut_bytes())?;
                self.release(index, who, ReservationReleaseDword10::from_bits(dword), keys)?;
            }
        }
        self.note_reservations();
        Ok(0)
    }

    fn register(
        &mut self,
        index: usize,
        who: Host,
        dword: ReservationRegisterDword10,
        keys: ReservationRegisterData,
    ) -> Result<(), Status> {
        let current = Some(keys.current_key).filter(|_| !dword.ignore_existing_key());
        let persists = match dword.persistence() {
            PersistenceChange::NONE => None,
            PersistenceChange::CLEAR => Some(false),
            PersistenceChange::SET if self.keeps_reservations => Some(true),
            _ => return Err(INVALID_FIELD),
        };
        self.reservations.change(index, |space, notices| {
            match dword.action() {
                // No host could name such a registrant.
                ReservationRegisterAction::REGISTER | ReservationRegisterAction::REPLACE
                    if keys.new_key == 0 =>
                {
                    return Err(INVALID_FIELD);
                }
                ReservationRegisterAction::REGISTER => space.register(who, keys.new_key)?,
                ReservationRegisterAction::UNREGISTER => space.unregister(who, current, notices)?,
                ReservationRegisterAction::REPLACE => space.replace(who, current, keys.new_key)?,
                _ => return Err(INVALID_FIELD),
            }
            space.persists = persists.unwrap_or(space.persists);
            Ok(())
        })
    }

    fn acquire(
        &mut self,
        index: usize,
        who: Host,
        dword: ReservationAcquireDword10,
        keys: ReservationAcquireData,
    ) -> Result<(), Status> {
        let kind = dword.reservation_type();
        if dword.ignore_existing_key() || !ReservationType::ALL.contains(&kind) {
            return Err(INVALID_FIELD);
        }
        self.reservations.change(index, |space, notices| match dword.action() {
            ReservationAcquireAction::ACQUIRE => space.acquire(who, keys.current_key, kind),
            // Commands of other hosts are carried out as they are fetched: there is none to abort.
            ReservationAcquireAction::PREEMPT | ReservationAcquireAction::PREEMPT_AND_ABORT => {
                space.preempt(who, (keys.current_key, keys.preempted_key), kind, notices)
            }
            _ => Err(INVALID_FIELD),
        })
    }

    fn release(
        &mut self,
        index: usize,
        who: Host,
        dword: ReservationReleaseDword10,
        keys: ReservationReleaseData,
    ) -> Result<(), Status> {
        if dword.ignore_existing_key() {
            return Err(INVALID_FIELD);
        }
        self.reservations.change(index, |space, notices| match dword.action() {
            ReservationReleaseAction::RELEASE => {
                space.release(who, keys.current_key, dword.reservation_type(), notices)
            }
            ReservationReleaseAction::CLEAR => space.clear(who, keys.current_key, notices),
            _ => Err(INVALID_FIELD),
        })
    }

    fn report(
        &mut self,
        host: &mut impl HostMemory,
        index: usize,
        data: Data,
        fields: &Fields,
    ) -> Result<u64, Status> {
        let len = (u64::from(fields.dwords[0]) + 1) * 4;
        if len > self.mdts {
            return Err(INVALID_FIELD);
        }
        let is_extended = fields.dwords[1] & 1 != 0;
        // In the form of the host's identifier.
        self.reservations.identifier(self.controller, is_extended)?;
        let space = self.reservations.spaces.get(index).ok_or(Status::INTERNAL_ERROR)?;
        let mut status = ReservationStatus::new_zeroed();
        status.generation = space.generation;
        status.reservation_type = space.kind().map_or(0, |kind| kind.0);
        status.persists = space.persists.into();
        let (mut all, mut count) = (Vec::new(), 0_u16);
        for registrant in &space.registrants {
            let holds = space.is_held_by(registrant.host);
            let used: Vec<u16> = self.reservations.controllers(registrant.host).collect();
            let used = match (registrant.host, used.is_empty()) {
                (_, false) => used,
                (Host::Unnamed(controller), true) => vec![controller],
                // The host uses no controller now.
                (Host::Named(_), true) => vec![u16::MAX],
            };
            for controller in used {
                all.extend(listed(controller, holds, *registrant, is_extended));
                count += 1;
            }
        }
        status.registered_controllers = U16::new(count);
        let mut bytes = status.as_bytes().to_vec();
        if is_extended {
            bytes.resize(ReservationStatus::EXTENDED, 0);
        }
        bytes.extend(all);
        data.store_padded(host, self.page, bytes, len).map(|()| len)
    }
}

/// Returns a registered controller as a report lists it.
fn listed(controller_id: u16, holds: bool, registrant: Registrant, is_extended: bool) -> Vec<u8> {
    let id = match registrant.host {
        Host::Unnamed(_) => 0,
        Host::Named(id) => id,
    };
    let (status, key) = (holds.into(), registrant.key);
    match is_extended {
        false => {
            let one = RegisteredController {
                controller_id,
                status,
                host_id: id as u64,
                key,
                ..FromZeros::new_zeroed()
            };
            one.as_bytes().to_vec()
        }
        true => {
            let one = ExtendedRegisteredController {
                controller_id,
                status,
                key,
                host_id: id.to_le_bytes(),
                ..FromZeros::new_zeroed()
            };
            one.as_bytes().to_vec()
        }
    }
}
