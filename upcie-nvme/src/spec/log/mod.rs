//! Log pages: Base, "Log Specific Information"; NVM; ZNS. Each is a structure with the names of the specification,
//! spelled out.

mod access;
mod effects;
mod health;
mod id;
mod namespaces;
mod page;
mod sanitize;
mod self_test;
mod table;
mod telemetry;

pub use access::{AccessGroup, AccessHeader, AccessLog, AccessState};
pub use effects::{
    CommandEffects, CommandsSupportedLog, FeatureEffects, FeaturesSupportedLog, LockdownLog, LockdownScope,
    LogPageSupport, ManagementCommandsSupportedLog, SupportedLogPages,
};
pub use health::{CriticalWarning, ErrorLog, ErrorLogEntry, FirmwareSlotLog, SmartLog};
pub use id::LogPageId;
pub use namespaces::{ChangedAllocatedNamespacesLog, ChangedNamespacesLog, ChangedZonesLog};
pub use page::{LogHeader, LogPage, VariableLog};
pub use sanitize::{ReservationNotificationLog, SanitizeState, SanitizeStateInformation, SanitizeStatusLog};
pub use self_test::{SelfTestLog, SelfTestResult, SelfTestStatus, SelfTestValid};
pub use table::LogPageInfo;
pub use telemetry::{
    TelemetryControllerHeader, TelemetryControllerLog, TelemetryHostHeader, TelemetryHostLog,
};
