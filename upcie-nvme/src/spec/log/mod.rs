//! Log pages: Base, "Log Specific Information"; NVM; ZNS. Each is a structure with the names of the specification,
//! spelled out.

mod access;
mod discovery;
mod effects;
mod endurance;
mod health;
mod id;
mod media;
mod namespaces;
mod page;
mod persistent;
mod placement;
mod reachability;
mod sanitize;
mod self_test;
mod table;
mod telemetry;

pub use access::{AccessGroup, AccessHeader, AccessLog, AccessState};
pub use discovery::{DiscoveryEntry, DiscoveryHeader, DiscoveryLog};
pub use effects::{
    CommandEffects, CommandsSupportedLog, FeatureEffects, FeaturesSupportedLog, LockdownLog, LockdownScope,
    LogPageSupport, ManagementCommandsSupportedLog, SupportedLogPages,
};
pub use endurance::{
    EnduranceGroupAggregateHeader, EnduranceGroupAggregateLog, EnduranceGroupLog, EnduranceGroupWarning,
    PredictableLatencyAggregateHeader, PredictableLatencyAggregateLog, PredictableLatencyLog,
};
pub use health::{CriticalWarning, ErrorLog, ErrorLogEntry, FirmwareSlotLog, SmartLog};
pub use id::LogPageId;
pub use media::{
    BootPartitionHeader, BootPartitionInformation, BootPartitionLog, LbaStatusElement, LbaStatusHeader,
    LbaStatusLog, LbaStatusRange, RotationalMediaLog,
};
pub use namespaces::{ChangedAllocatedNamespacesLog, ChangedNamespacesLog, ChangedZonesLog};
pub use page::{LogHeader, LogPage, VariableLog};
pub use persistent::{PersistentEvent, PersistentEventHeader, PersistentEventLog, PersistentEventType};
pub use placement::{
    HandleUsage, HandleUsageHeader, HandleUsageLog, PlacementAttributes, PlacementConfiguration,
    PlacementConfigurationsHeader, PlacementConfigurationsLog, PlacementEvent, PlacementEventFlags,
    PlacementEventType, PlacementEventsLog, PlacementStatisticsLog, ReclaimUnitHandle,
};
pub use reachability::{
    DispersedNamespaceHeader, DispersedNamespaceLog, ManagementAddress, ManagementAddressLog,
    ReachabilityAssociation, ReachabilityAssociationsHeader, ReachabilityAssociationsLog, ReachabilityGroup,
    ReachabilityGroupsHeader, ReachabilityGroupsLog,
};
pub use sanitize::{ReservationNotificationLog, SanitizeState, SanitizeStateInformation, SanitizeStatusLog};
pub use self_test::{SelfTestLog, SelfTestResult, SelfTestStatus, SelfTestValid};
pub use table::LogPageInfo;
pub use telemetry::{
    TelemetryControllerHeader, TelemetryControllerLog, TelemetryHostHeader, TelemetryHostLog,
};
