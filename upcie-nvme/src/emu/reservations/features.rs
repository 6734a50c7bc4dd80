//! The features of reservations: the host's identifier, masked notifications, persistence.

use super::super::{HostMemory, features::scope, media::Media, namespace::refusal, state::Core};
use crate::spec::{
    ALL_NAMESPACES, Command, FeatureId, FeatureSelect, FeaturesDword10, ReservationPersistence, Status,
};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
/// The notifications that can be masked.
const MASKS: u32 = 0b1110;

impl<M: Media> Core<M> {
    /// Carries out Get Features of a feature of reservations; returns `None` for another one.
    pub(in super::super) fn get_reservations(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Option<Result<u32, Status>> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        let of_namespace = of_namespace(dword.fid())?;
        Some(match dword.sel() {
            FeatureSelect::SUPPORTED => Ok(1 << 2 | u32::from(of_namespace) << 1),
            select if select.0 > 2 => Err(INVALID_FIELD),
            select => self.reservations_value(host, command, select == FeatureSelect::CURRENT),
        })
    }

    fn reservations_value(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        is_current: bool,
    ) -> Result<u32, Status> {
        let (all, controller) = (&self.io.reservations, self.io.controller);
        match FeaturesDword10::from_bits(command.cdw10).fid() {
            FeatureId::HOST_IDENTIFIER => {
                let is_extended = command.cdw11 & 1 != 0;
                let id = if is_current { all.identifier(controller, is_extended)? } else { 0 };
                let len = if is_extended { 16 } else { 8 };
                self.send(host, command, &id.to_le_bytes()[..len]).map(|()| 0)
            }
            feature => {
                let index = self.index_of(command.nsid)?;
                let persists = all.spaces.get(index).is_some_and(|space| space.persists);
                Ok(match feature {
                    _ if !is_current => 0,
                    FeatureId::RESERVATION_NOTIFICATION_MASK => all.mask(controller, index),
                    _ => ReservationPersistence::new().with_persist_through_power_loss(persists).into_bits(),
                })
            }
        }
    }

    /// Carries out Set Features like [`get_reservations`](Self::get_reservations).
    pub(in super::super) fn set_reservations(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Option<Result<u32, Status>> {
        let feature = FeaturesDword10::from_bits(command.cdw10).fid();
        let of_namespace = of_namespace(feature)?;
        let done = scope(command, !of_namespace).and_then(|()| match of_namespace {
            true => self.set_of_namespace(feature, command),
            false => self.set_identifier(host, command),
        });
        Some(done.map(|()| 0))
    }

    fn set_identifier(&mut self, host: &mut impl HostMemory, command: &Command) -> Result<(), Status> {
        let (is_extended, mut id) = (command.cdw11 & 1 != 0, [0; 16]);
        let len = if is_extended { 16 } else { 8 };
        self.receive(host, command, &mut id[..len])?;
        let io = &mut self.io;
        io.reservations.name(io.controller, u128::from_le_bytes(id), is_extended)?;
        io.note_reservations();
        Ok(())
    }

    fn set_of_namespace(&mut self, feature: FeatureId, command: &Command) -> Result<(), Status> {
        let value = command.cdw11;
        let named = match command.nsid {
            ALL_NAMESPACES => (0..self.io.namespaces.len()).collect(),
            nsid => vec![self.index_of(nsid)?],
        };
        let persists = ReservationPersistence::from_bits(value).persist_through_power_loss();
        let io = &mut self.io;
        if feature == FeatureId::RESERVATION_NOTIFICATION_MASK {
            if value & !MASKS != 0 {
                return Err(INVALID_FIELD);
            }
            named.into_iter().for_each(|index| io.reservations.set_mask(io.controller, index, value));
            return Ok(());
        }
        if persists && !io.keeps_reservations {
            return Err(INVALID_FIELD);
        }
        for index in named {
            if let Some(space) = io.reservations.spaces.get_mut(index) {
                space.persists = persists;
            }
        }
        Ok(())
    }

    fn index_of(&self, nsid: u32) -> Result<usize, Status> {
        let index = nsid.wrapping_sub(1) as usize;
        match self.io.namespaces.get(index) {
            Some(namespace) if namespace.is_active() => Ok(index),
            other => Err(refusal(other)),
        }
    }
}

/// Returns `true` for a feature of reservations that each namespace has for itself; `None` for another feature.
fn of_namespace(feature: FeatureId) -> Option<bool> {
    match feature {
        FeatureId::HOST_IDENTIFIER => Some(false),
        FeatureId::RESERVATION_NOTIFICATION_MASK | FeatureId::RESERVATION_PERSISTENCE => Some(true),
        _ => None,
    }
}
