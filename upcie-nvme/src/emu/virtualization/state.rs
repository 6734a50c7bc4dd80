//! The flexible resources, those who have them, and the secondary controllers that are online.

use super::super::{Options, layout::fitting_queues};
use crate::spec::{
    Command, PrimaryController, SecondaryController, SecondaryControllerList, Status, VirtualResource,
    VirtualizationAction,
};
use zerocopy::{FromZeros, IntoBytes};

/// The identifier of the primary controller. Those of the secondary ones follow, in the order of their virtual functions.
pub const PRIMARY: u16 = 1;
/// The kinds of resources as indices: pairs of queues (VQ), interrupt vectors (VI).
const VQ: usize = VirtualResource::QUEUES.0 as usize;
const VI: usize = VirtualResource::INTERRUPTS.0 as usize;
/// The least of each kind that a secondary controller needs: the admin queue's pair and another one; a vector.
const LEAST: [u16; 2] = [2, 1];

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();
const INVALID_CONTROLLER_ID: Status = Status::INVALID_CONTROLLER_ID.with_do_not_retry();
const INVALID_STATE: Status = Status::INVALID_SECONDARY_STATE.with_do_not_retry();
const INVALID_COUNT: Status = Status::INVALID_RESOURCE_COUNT.with_do_not_retry();
const INVALID_RESOURCE_ID: Status = Status::INVALID_RESOURCE_ID.with_do_not_retry();

/// The resources that a controller has for its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Granted {
    /// I/O queues of each kind.
    pub queues: u16,
    /// MSI-X vectors.
    pub vectors: u16,
    /// It is a secondary controller that is offline: no host can use it.
    pub is_offline: bool,
}

impl Granted {
    /// Returns the resources of a controller that has what its options say.
    pub fn of(options: &Options) -> Self {
        let queues = fitting_queues(options, options.queues);
        Self { queues, vectors: options.vectors, is_offline: false }
    }
}

/// A secondary controller.
#[derive(Debug, Clone, Copy, Default)]
struct Secondary {
    /// Its flexible resources, by kind.
    has: [u16; 2],
    is_online: bool,
    /// Counts the changes of its state.
    changes: u64,
}

impl Secondary {
    fn set_online(&mut self, is_online: bool) {
        self.changes += u64::from(self.is_online != is_online);
        self.is_online = is_online;
    }

    /// Turns it off, and takes its resources.
    fn stop(&mut self) {
        self.has = [0; 2];
        self.set_online(false);
    }
}

/// The flexible resources of an NVM subsystem, and its secondary controllers.
#[derive(Debug)]
pub struct Virtualization {
    /// Flexible resources of each kind, and the most that one secondary controller can have.
    total: u16,
    most: u16,
    /// The resources that are the primary controller's for ever, by kind.
    private: [u16; 2],
    /// Flexible resources of the primary controller, by kind, and those that it gets with its next reset.
    of_primary: [u16; 2],
    wanted: [u16; 2],
    secondaries: Vec<Secondary>,
}

impl Virtualization {
    /// Makes the state after power-on; `None` if the options are not those of a primary controller.
    pub fn new(options: &Options) -> Option<Box<Self>> {
        let functions = options.functions;
        (functions.count > 0).then(|| {
            Box::new(Self {
                total: functions.flexible(),
                most: functions.most_of_one(),
                private: [options.queues.saturating_add(1), options.vectors],
                of_primary: [0; 2],
                wanted: [0; 2],
                secondaries: vec![Secondary::default(); functions.count.into()],
            })
        })
    }

    /// Returns the index of a controller that is a secondary one.
    fn index(&self, controller: u16) -> Option<usize> {
        let index = usize::from(controller).checked_sub(usize::from(PRIMARY) + 1)?;
        (index < self.secondaries.len()).then_some(index)
    }

    fn secondary(&self, controller: u16) -> Option<&Secondary> {
        self.secondaries.get(self.index(controller)?)
    }

    /// Returns the resources that a controller with these options has now.
    pub fn granted(&self, controller: u16, options: &Options) -> Granted {
        let (has, is_offline) = match self.secondary(controller) {
            None => ([VQ, VI].map(|kind| self.private[kind].saturating_add(self.of_primary[kind])), false),
            Some(one) if one.is_online => (one.has, false),
            // Its function shows all vectors that it can have.
            Some(_) => ([0, options.vectors], true),
        };
        // One pair is the admin queue's.
        let queues = fitting_queues(options, has[VQ].saturating_sub(1));
        Granted { queues, vectors: has[VI], is_offline }
    }

    /// Returns a number that changes with the state of a secondary controller.
    pub fn changes(&self, controller: u16) -> u64 {
        self.secondary(controller).map_or(0, |one| one.changes)
    }

    /// Gives the primary controller the flexible resources that it is to have after its reset.
    pub fn allocate(&mut self) {
        self.of_primary = self.wanted;
    }

    /// Turns all secondary controllers off, and takes their resources.
    pub fn stop_all(&mut self) {
        self.secondaries.iter_mut().for_each(Secondary::stop);
    }

    /// Returns the resources of a kind that secondary controllers have.
    fn assigned(&self, kind: usize) -> u16 {
        self.secondaries.iter().map(|one| one.has[kind]).sum()
    }

    /// Carries out a Virtualization Management; returns the number of resources that were assigned (NRM).
    pub fn manage(&mut self, command: &Command) -> Result<u32, Status> {
        let action = VirtualizationAction((command.cdw10 & 0xf) as u8);
        let resource = VirtualResource((command.cdw10 >> 8 & 7) as u8);
        let (controller, number) = ((command.cdw10 >> 16) as u16, command.cdw11 as u16);
        let kind = || match resource {
            VirtualResource::QUEUES => Ok(VQ),
            VirtualResource::INTERRUPTS => Ok(VI),
            _ => Err(INVALID_RESOURCE_ID),
        };
        match action {
            VirtualizationAction::PRIMARY_FLEXIBLE => {
                if controller != PRIMARY {
                    return Err(INVALID_CONTROLLER_ID);
                }
                let kind = kind()?;
                // All are free then: its reset turns secondary controllers off.
                if number > self.total {
                    return Err(INVALID_COUNT);
                }
                self.wanted[kind] = number;
                return Ok(number.into());
            }
            VirtualizationAction::SECONDARY_OFFLINE
            | VirtualizationAction::SECONDARY_ASSIGN
            | VirtualizationAction::SECONDARY_ONLINE => {}
            _ => return Err(INVALID_FIELD),
        }
        let index = self.index(controller).ok_or(INVALID_CONTROLLER_ID)?;
        let one = self.secondaries[index];
        match action {
            VirtualizationAction::SECONDARY_OFFLINE => self.secondaries[index].stop(),
            VirtualizationAction::SECONDARY_ASSIGN => {
                let kind = kind()?;
                if one.is_online {
                    return Err(INVALID_STATE);
                }
                let taken = self.of_primary[kind] + self.assigned(kind) - one.has[kind];
                if number > self.most.min(self.total.saturating_sub(taken)) {
                    return Err(INVALID_COUNT);
                }
                self.secondaries[index].has[kind] = number;
                return Ok(number.into());
            }
            _ => {
                if one.has.iter().zip(LEAST).any(|(has, least)| *has < least) {
                    return Err(INVALID_STATE);
                }
                self.secondaries[index].set_online(true);
            }
        }
        Ok(0)
    }

    /// Returns the Primary Controller Capabilities.
    pub fn capabilities(&self) -> Vec<u8> {
        let mut page = PrimaryController::new_zeroed();
        page.controller_id = PRIMARY;
        page.resource_types = 1 << VQ | 1 << VI;
        page.vq_flexible_total = self.total.into();
        page.vq_flexible_assigned = self.assigned(VQ).into();
        page.vq_flexible_of_primary = self.of_primary[VQ];
        page.vq_private = self.private[VQ];
        page.vq_max_of_secondary = self.most;
        page.vq_granularity = 1;
        page.vi_flexible_total = self.total.into();
        page.vi_flexible_assigned = self.assigned(VI).into();
        page.vi_flexible_of_primary = self.of_primary[VI];
        page.vi_private = self.private[VI];
        page.vi_max_of_secondary = self.most;
        page.vi_granularity = 1;
        page.as_bytes().to_vec()
    }

    /// Returns the Secondary Controller list, from a controller on.
    pub fn list(&self, from: u16) -> Vec<u8> {
        let mut page = SecondaryControllerList::new_zeroed();
        let all = (1_u16..).zip(&self.secondaries).filter(|(number, _)| PRIMARY + number >= from);
        for (entry, (number, one)) in page.controllers.iter_mut().zip(all) {
            *entry = SecondaryController {
                secondary_controller_id: PRIMARY + number,
                primary_controller_id: PRIMARY,
                state: one.is_online.into(),
                virtual_function: number,
                vq_flexible: one.has[VQ],
                vi_flexible: one.has[VI],
                ..SecondaryController::new_zeroed()
            };
            page.count += 1;
        }
        page.as_bytes().to_vec()
    }
}
