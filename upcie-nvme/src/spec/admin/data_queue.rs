//! Base 2.1, "Controller Data Queue command", and the feature by which hosts move the head of such a queue. A controller data
//! queue is memory that the controller writes to by itself, until the queue is deleted or the controller is reset. So the
//! driver sends none of these in safe code: pass [`command`](AdminCommand::command) to
//! [`Controller::admin_raw`](crate::Controller::admin_raw).

use super::super::command::Command;
use super::super::features::FeatureId;
use super::super::identify::IdentifyController;
use super::super::macros::named_values;
use super::super::opcode::AdminOpcode;
use super::request::AdminCommand;
use super::tracking::lacks_user_data;

named_values! {
    /// The type of a controller data queue (QT); C0h to FFh are the vendor's.
    DataQueueType(u8) {
        USER_DATA_MIGRATION = 0, "user data migration queue";
    }
}

/// Controller Data Queue: creates a queue. The answer is its identifier (CDQID). PRP entry 1 of the command names the queue:
/// the caller sets it by [`Command::set_data_pointer`], and keeps the memory until the queue is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreateDataQueue {
    /// The type.
    pub kind: DataQueueType,
    /// The type's own field (CQS): the controller whose changes a user data migration queue logs.
    pub controller: u16,
    /// PRP entry 1 is the address of the queue, and not of a PRP list (PC).
    pub contiguous: bool,
    /// Size of the queue in dwords: whole entries of the type (CDQSIZE).
    pub dwords: u32,
}

impl AdminCommand for CreateDataQueue {
    const OPCODE: AdminOpcode = AdminOpcode::CONTROLLER_DATA_QUEUE;
    type Answer = u16;

    fn command(&self) -> Command {
        Command {
            cdw10: u32::from(self.kind.0) << 16,
            cdw11: u32::from(self.contiguous) | u32::from(self.controller) << 16,
            cdw12: self.dwords,
            ..Command::admin(Self::OPCODE, 0)
        }
    }

    fn refusal(&self, controller: &IdentifyController) -> Option<String> {
        match self.kind {
            DataQueueType::USER_DATA_MIGRATION => lacks_user_data(controller),
            _ => None,
        }
    }

    fn answer(&self, dword0: u32, _: Vec<u8>) -> Option<u16> {
        Some(dword0 as u16)
    }
}

/// Controller Data Queue: deletes a queue. Its memory is the host's again once the command has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeleteDataQueue {
    /// The queue (CDQID).
    pub queue: u16,
}

impl AdminCommand for DeleteDataQueue {
    const OPCODE: AdminOpcode = AdminOpcode::CONTROLLER_DATA_QUEUE;
    type Answer = ();

    fn command(&self) -> Command {
        Command { cdw10: 1, cdw11: self.queue.into(), ..Command::admin(Self::OPCODE, 0) }
    }

    fn refusal(&self, _: &IdentifyController) -> Option<String> {
        None
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}

/// Set Features of Controller Data Queue (21h): gives entries back to the controller, and asks for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UpdateDataQueue {
    /// The queue (CDQID).
    pub queue: u16,
    /// The slot of the new head (HP).
    pub head: u32,
    /// The slot whose entry raises an event, once (ETPT, TPT).
    pub tail_trigger: Option<u32>,
}

impl AdminCommand for UpdateDataQueue {
    const OPCODE: AdminOpcode = AdminOpcode::SET_FEATURES;
    type Answer = ();

    fn command(&self) -> Command {
        Command {
            cdw12: self.head,
            cdw13: self.tail_trigger.unwrap_or(0),
            ..Command::set_features(
                FeatureId::CONTROLLER_DATA_QUEUE,
                u32::from(self.queue) | u32::from(self.tail_trigger.is_some()) << 31,
            )
        }
    }

    fn refusal(&self, _: &IdentifyController) -> Option<String> {
        None
    }

    fn answer(&self, _: u32, _: Vec<u8>) -> Option<()> {
        Some(())
    }
}
