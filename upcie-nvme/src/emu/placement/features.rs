//! Features 1Dh, Flexible Data Placement, and 1Eh, FDP Events.

use super::{
    super::{HostMemory, features::scope, media::Media, namespace::Namespace, state::Core},
    GROUP,
    state::NOTED,
};
use crate::spec::{
    AdminOpcode, Command, FeatureId, FeatureSelect, FeaturesDword10, FlexibleDataPlacement,
    PlacementEventAttributes, PlacementEventSetting, Status,
};
use zerocopy::IntoBytes;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// Returns `true` for a feature of this file.
fn is_feature(id: FeatureId) -> bool {
    matches!(id, FeatureId::FLEXIBLE_DATA_PLACEMENT | FeatureId::FDP_EVENTS)
}

impl<M: Media> Core<M> {
    /// Carries out Get Features or Set Features of a feature of this file: returns dword 0 of the completion, and `None` for
    /// another feature, or without flexible data placement.
    pub(in super::super) fn placement_feature(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Option<Result<u32, Status>> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        if self.io.placement.is_none() || !is_feature(dword.fid()) {
            return None;
        }
        let of_namespace = dword.fid() == FeatureId::FDP_EVENTS;
        Some(match AdminOpcode(command.opcode) {
            AdminOpcode::SET_FEATURES => match of_namespace {
                true => self.set_placement_events(host, command),
                false => self.turn_placement(command),
            },
            // Changeable; each namespace has values of its own.
            _ if dword.sel() == FeatureSelect::SUPPORTED => Ok(1 << 2 | u32::from(of_namespace) << 1),
            _ if dword.sel().0 > 3 => Err(INVALID_FIELD),
            _ if of_namespace => self.placement_events(host, command, dword.sel() == FeatureSelect::CURRENT),
            _ if command.cdw11 as u16 != GROUP => Err(INVALID_FIELD),
            _ => {
                let on = self.io.placement.as_ref().is_some_and(|placement| placement.is_on());
                Ok(FlexibleDataPlacement::new().with_enabled(on).into_bits())
            }
        })
    }

    /// Turns flexible data placement on or off, while there is no namespace in the endurance group.
    fn turn_placement(&mut self, command: &Command) -> Result<u32, Status> {
        scope(command, true)?;
        let value = FlexibleDataPlacement::from_bits(command.cdw12);
        // There is one group, and one configuration.
        if command.cdw11 as u16 != GROUP || value.enabled() && value.configuration() != 0 {
            return Err(INVALID_FIELD);
        }
        if self.io.namespaces.iter().any(Namespace::is_allocated) {
            return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
        }
        if let Some(placement) = &mut self.io.placement {
            placement.turn(value.enabled());
        }
        Ok(0)
    }

    /// Returns the reclaim unit handle of the placement handle that dword 11 names, and the number of types that it counts.
    fn named_handle(&self, command: &Command) -> Result<(u16, usize), Status> {
        self.io.namespace(command.nsid)?;
        let placement = self.io.placement.as_ref().ok_or(INVALID_FIELD)?;
        placement.check_on()?;
        let unit_handle = placement.unit_handle(command.nsid as usize - 1, command.cdw11 as u16)?;
        match command.cdw11 >> 16 & 0xff {
            0 => Err(INVALID_FIELD),
            types => Ok((unit_handle, types as usize)),
        }
    }

    /// Sends the types of events, and whether they are noted.
    fn placement_events(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        current: bool,
    ) -> Result<u32, Status> {
        let (unit_handle, types) = self.named_handle(command)?;
        let noted = match &self.io.placement {
            Some(placement) if current => placement.noted(unit_handle),
            _ => 0,
        };
        let mut bytes = Vec::new();
        for (bit, kind) in NOTED.into_iter().enumerate().take(types) {
            let attributes = PlacementEventAttributes::new().with_enabled(noted >> bit & 1 == 1);
            bytes.extend(PlacementEventSetting { event_type: kind.0, attributes }.as_bytes());
        }
        let count = bytes.len() / size_of::<PlacementEventSetting>();
        bytes.resize(types * size_of::<PlacementEventSetting>(), 0);
        self.send(host, command, &bytes)?;
        Ok(count as u32)
    }

    fn set_placement_events(&mut self, host: &mut impl HostMemory, command: &Command) -> Result<u32, Status> {
        scope(command, false)?;
        let (unit_handle, types) = self.named_handle(command)?;
        let mut kinds = vec![0; types];
        self.receive(host, command, &mut kinds)?;
        let bits = kinds.iter().try_fold(0, |bits, kind| {
            let bit = NOTED.iter().position(|noted| noted.0 == *kind)?;
            Some(bits | 1_u8 << bit)
        });
        let bits = bits.ok_or(INVALID_FIELD)?;
        if let Some(placement) = &mut self.io.placement {
            placement.set_noted(unit_handle, bits, command.cdw12 & 1 == 1);
        }
        Ok(0)
    }
}
