//! Flexible data placement: the reclaim units that a namespace's writes go to.

use super::{
    Namespace,
    blocking::{Order, run},
    retries::Tries,
};
use crate::{
    Controller, Error, FeatureQuery, LogQuery, Result,
    controller::Limit,
    spec::{
        Command, FeatureId, FeatureSelect, FlexibleDataPlacement, HandleStatus, HandleStatusHeader,
        HandleUsageLog, LogPage, NvmOpcode, PlacementConfiguration, PlacementConfigurationsLog,
        PlacementEventSetting, PlacementEventType, PlacementEventsLog, PlacementStatisticsLog,
    },
};
use zerocopy::FromBytes;

const HEADER: usize = size_of::<HandleStatusHeader>();
const DESCRIPTOR: usize = size_of::<HandleStatus>();
/// Descriptors of the first command: header and descriptors fill a page of 4 KiB.
const FIRST: usize = 127;
/// The most types of events in one command (NOET).
const MOST_TYPES: usize = 255;
/// The log-specific parameter of FDP Events: those of hosts.
const OF_HOSTS: u8 = 1;

/// The placement handles of a namespace whose endurance group has flexible data placement (FDP; Base 2.1, "Flexible Data
/// Placement").
///
/// A placement handle refers to a reclaim unit handle, which refers to a reclaim unit of each reclaim group: media that is
/// erased as a whole. Writes name one by a placement identifier ([`Io::placement`](crate::Io::placement)), so data that is
/// discarded together can be kept together. Writes without one go by placement handle 0.
///
/// # Examples
/// ```
/// use upcie_nvme::{Controller, Io};
///
/// let controller = Controller::open("emu:size=1M,fdp=true,fdp-handles=4,fdp-unit=64K")?;
/// let namespace = controller.namespace(1)?;
/// let placement = namespace.placement()?;
/// let third = placement.identifier(0, 2);
/// let mut buffer = controller.alloc(4096)?;
/// namespace.run(Io::write(&namespace, 0).placement(third), &mut buffer)?;
/// let handles = placement.handles()?;
/// assert_eq!((handles.len(), handles[2].placement_identifier), (4, third));
/// assert_eq!(handles[2].available_media_writes, 128 - 8);
/// placement.update(&[third])?; // the next write begins an empty reclaim unit
/// assert_eq!(placement.handles()?[2].available_media_writes, 128);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Placement {
    namespace: Namespace,
    controller: Controller,
    configuration: PlacementConfiguration,
}

impl Namespace {
    /// Returns the namespace's placement handles, if its endurance group has flexible data placement, and it is on.
    ///
    /// # Errors
    /// The namespace is not [usable](Self::check_usable); [`Failure::Unsupported`](crate::Failure::Unsupported) with the reason:
    /// the controller does not have flexible data placement (CTRATT), the namespace belongs to no endurance group (ENDGID), or
    /// feature 1Dh is off in its group. Also the controller's status, or a timeout of both commands together.
    pub fn placement(&self) -> Result<Placement> {
        self.check_usable()?;
        let controller = Controller::of(&self.controller);
        let group = self.identify().endgid;
        let lacks = |reason: String| {
            let what = format!("namespace {} has no flexible data placement: {reason}", self.nsid());
            Err(Error::unsupported(controller.name(), what))
        };
        if !controller.identify().has_placement() {
            return lacks("the controller does not have it (CTRATT bit 19 is 0)".into());
        }
        if group == 0 {
            return lacks("it belongs to no endurance group (ENDGID is 0)".into());
        }
        let query = FeatureQuery { dword11: Some(group.into()), ..FeatureQuery::default() };
        let mut limit = self.controller.limit();
        let feature = controller.feature_limited::<FlexibleDataPlacement>(&query, &mut limit)?;
        if !feature.enabled() {
            return lacks(format!(
                "it is off in endurance group {group}: delete the group's namespaces, turn feature 1Dh on, and create them again"
            ));
        }
        let query = LogQuery { identifier: group, ..LogQuery::default() };
        let log = controller.log_limited::<PlacementConfigurationsLog>(&query, &mut limit)?;
        let configuration = log.configurations().nth(feature.configuration().into());
        let Some((configuration, _)) = configuration else {
            let reason = format!("it has no configuration {}, which is in use", feature.configuration());
            let page = format!("log page {}", PlacementConfigurationsLog::ID);
            return Err(Error::protocol(controller.name(), page, reason));
        };
        Ok(Placement { namespace: self.clone(), controller, configuration })
    }
}

impl Placement {
    /// Returns the namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the namespace's endurance group (ENDGID).
    pub fn endurance_group(&self) -> u16 {
        self.namespace.identify().endgid
    }

    /// Returns the configuration in use: the number of reclaim groups and of reclaim unit handles, the size of a unit.
    pub fn configuration(&self) -> &PlacementConfiguration {
        &self.configuration
    }

    /// Returns the placement identifier of a placement handle in a reclaim group: for
    /// [`Io::placement`](crate::Io::placement) and [`update`](Self::update).
    pub fn identifier(&self, reclaim_group: u16, placement_handle: u16) -> u16 {
        self.configuration.identifier(reclaim_group, placement_handle)
    }

    /// Returns the state of each placement handle in each reclaim group: its reclaim unit handle, and the blocks that can still
    /// be written to the present reclaim unit (I/O Management Receive).
    ///
    /// # Errors
    /// Those of [`Namespace::read`]; [`Failure::Unsupported`](crate::Failure::Unsupported) if the controller describes more
    /// handles than one command transfers (the command takes no offset).
    pub fn handles(&self) -> Result<Vec<HandleStatus>> {
        let most = (self.namespace.max_transfer().saturating_sub(HEADER)) / DESCRIPTOR;
        let mut limit = self.namespace.controller.limit();
        let (count, handles) = self.receive(FIRST.min(most), &mut limit)?;
        if count <= handles.len() {
            return Ok(handles);
        }
        if count > most {
            let reason = format!("{count} placement handles are more than one command can describe ({most})");
            return Err(Error::unsupported(self.controller.name(), reason));
        }
        self.receive(count, &mut limit).map(|(_, handles)| handles)
    }

    /// Returns the number of descriptors that there are, and those of the first `most`.
    fn receive(&self, most: usize, limit: &mut Limit<'_>) -> Result<(usize, Vec<HandleStatus>)> {
        let (controller, extent) = (&self.namespace.controller, &self.namespace.extent);
        self.namespace.check_usable()?;
        let what = || format!("{} of namespace {}", NvmOpcode::IO_MANAGEMENT_RECEIVE, self.namespace.nsid());
        let len = HEADER + most * DESCRIPTOR;
        let mut buffer = controller.whole_pages(len, limit)?;
        let how = (Tries::of(controller), Order::Any);
        run(controller, &mut buffer, &what, limit, how, |turn, held, _| {
            // SAFETY: the part is inside of `held`. It outlives the command: `run` gives it back or frees it only when nothing is
            // in flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.handle_status_held(extent, held, 0..len, 0) }.map(|()| false)
        })?;
        let mut bytes = vec![0; len];
        buffer.read_at(0, &mut bytes);
        Ok(HandleStatus::list(&bytes))
    }

    /// Lets the reclaim unit handles that `identifiers` (1 to 65536) name refer to other reclaim units, which are empty (I/O
    /// Management Send, "Reclaim Unit Handle Update"): what is written next lies apart from what was written before. Space
    /// that is left in the present units stays unused.
    ///
    /// # Errors
    /// Those of [`Namespace::write`]; [`Refusal::Length`](crate::Refusal::Length) for no identifier, or more than one command
    /// takes; [`Status::INVALID_FIELD`](crate::spec::Status::INVALID_FIELD) for an identifier that the namespace does not have.
    pub fn update(&self, identifiers: &[u16]) -> Result<()> {
        let (controller, extent) = (&self.namespace.controller, &self.namespace.extent);
        self.namespace.check_usable()?;
        let what = || {
            let (opcode, nsid) = (NvmOpcode::IO_MANAGEMENT_SEND, self.namespace.nsid());
            format!("{opcode} of {} placement identifiers of namespace {nsid}", identifiers.len())
        };
        let bytes: Vec<u8> = identifiers.iter().flat_map(|identifier| identifier.to_le_bytes()).collect();
        let mut limit = controller.limit();
        let mut buffer = controller.pages_with(&bytes, &mut limit)?;
        run(controller, &mut buffer, &what, &mut limit, (Tries::NONE, Order::Any), |turn, held, _| {
            // SAFETY: the part is inside of `held`. It outlives the command: `run` gives it back or frees it only when nothing is
            // in flight, or once the queue has been deleted, and leaks it otherwise.
            unsafe { turn.update_handles_held(extent, held, 0..bytes.len(), 0) }.map(|()| false)
        })
        .map(drop)
    }

    /// Returns the types of events that the controller can note of the reclaim unit handle of a placement handle, and which of
    /// them it notes (feature 1Eh, FDP Events).
    ///
    /// # Errors
    /// The controller's status (Invalid Field for a placement handle that the namespace does not have), or a timeout.
    pub fn events(&self, placement_handle: u16) -> Result<Vec<PlacementEventSetting>> {
        let mut data = vec![0; MOST_TYPES * size_of::<PlacementEventSetting>()];
        let command = Command::get_features(FeatureId::FDP_EVENTS, FeatureSelect::CURRENT);
        let command = self.of_events(command, placement_handle, MOST_TYPES);
        // The number is the controller's word: no more than there are.
        let count = self.controller.admin(&command, &mut data)? as usize & 0xff;
        let settings = data.chunks_exact(size_of::<PlacementEventSetting>()).take(count);
        Ok(settings.filter_map(|setting| PlacementEventSetting::read_from_bytes(setting).ok()).collect())
    }

    /// Lets the controller note events of these types (1 to 255) of the reclaim unit handle of a placement handle, or note them
    /// no longer. The setting is that of the reclaim unit handle, which other namespaces may use as well.
    ///
    /// # Errors
    /// [`Failure::Argument`](crate::Failure::Argument) for no type or too many; the controller's status, or a timeout.
    pub fn set_events(&self, placement_handle: u16, types: &[PlacementEventType], noted: bool) -> Result<()> {
        if types.is_empty() || types.len() > MOST_TYPES {
            let reason = format!("{}: 1 to {MOST_TYPES} types of events are possible", FeatureId::FDP_EVENTS);
            return Err(Error::argument(self.controller.name(), reason));
        }
        let mut data: Vec<u8> = types.iter().map(|kind| kind.0).collect();
        let command = Command { cdw12: noted.into(), ..Command::set_features(FeatureId::FDP_EVENTS, 0) };
        self.controller.admin(&self.of_events(command, placement_handle, types.len()), &mut data).map(drop)
    }

    fn of_events(&self, command: Command, placement_handle: u16, types: usize) -> Command {
        let cdw11 = u32::from(placement_handle) | (types as u32) << 16;
        Command { nsid: self.namespace.nsid(), cdw11, ..command }
    }

    /// Returns the statistics of the endurance group: bytes written by hosts, written to the media, and erased.
    ///
    /// # Errors
    /// Those of [`Controller::log_bytes`].
    pub fn statistics(&self) -> Result<PlacementStatisticsLog> {
        self.log(0)
    }

    /// Returns which reclaim unit handles of the endurance group are in use, and who chose them.
    ///
    /// # Errors
    /// Those of [`Controller::log_bytes`].
    pub fn usage(&self) -> Result<HandleUsageLog> {
        self.log(0)
    }

    /// Returns the events of hosts that were noted in the endurance group: a unit that was left before it was full, a write
    /// with an invalid placement identifier.
    ///
    /// # Errors
    /// Those of [`Controller::log_bytes`].
    pub fn host_events(&self) -> Result<PlacementEventsLog> {
        self.log(OF_HOSTS)
    }

    /// Returns the events of the controller that were noted in the endurance group: media that was moved, a handle that the
    /// controller changed.
    ///
    /// # Errors
    /// Those of [`Controller::log_bytes`].
    pub fn controller_events(&self) -> Result<PlacementEventsLog> {
        self.log(0)
    }

    fn log<L: LogPage>(&self, parameter: u8) -> Result<L> {
        let identifier = self.endurance_group();
        self.controller.log_with(&LogQuery { parameter, identifier, ..LogQuery::default() })
    }
}
