//! Admin commands as structures: each turns into a command with its data, and knows what a controller must have for it.
//! Base, "Admin Command Set"; NVM, "Admin Command Set".

mod capacity;
mod controller_state;
mod data_queue;
mod directive;
mod firmware;
mod format;
mod lba_status;
mod lockdown;
mod management;
mod migration;
mod namespace;
mod request;
mod sanitize;
mod security;
mod self_test;
mod tracking;
mod virtualization;

pub use capacity::{CapacityManagement, CapacityOperation};
pub use controller_state::{
    CompletionQueueAttributes, CompletionQueueState, ControllerState, ControllerStateAttributes,
    ControllerStateHeader, NvmeStateHeader, SubmissionQueueAttributes, SubmissionQueueState,
};
pub use data_queue::{CreateDataQueue, DataQueueType, DeleteDataQueue, UpdateDataQueue};
pub use directive::{DirectiveReceive, DirectiveSend, DirectiveType, EnableDirective};
pub use firmware::{CommitAction, FirmwareCommit, FirmwareDownload};
pub use format::{FormatNvm, SecureErase};
pub use lba_status::{GetLbaStatus, LbaStatusAction, LbaStatusDescriptor, LbaStatusList};
pub use lockdown::{Lockdown, LockdownInterface, LockdownSubject};
pub use management::{ManagementReceive, ManagementSend};
pub use migration::{
    ControllerStatePart, GetControllerState, ResumeController, SetControllerState, StateSequence,
    SuspendController, SuspendType,
};
pub use namespace::{AttachNamespace, CreateNamespace, DeleteNamespace, DetachNamespace};
pub use request::{AdminCommand, OptionalAdmin};
pub use sanitize::{Sanitize, SanitizeAction};
pub use security::{SecurityReceive, SecuritySend};
pub use self_test::{SelfTest, SelfTestCode};
pub use tracking::{
    GetMemoryChanges, LogUserDataChanges, MemoryChange, MemoryChanges, MemoryChangesAttributes,
    MemoryChangesHeader, TrackMemoryChanges, TrackedRange,
};
pub use virtualization::{VirtualResource, VirtualizationAction, VirtualizationManagement};
