//! Log pages: Base, "Log Specific Information"; NVM; ZNS. Each is a structure with the names of the specification,
//! spelled out.

mod access;
mod capacity;
mod discovery;
mod effects;
mod endurance;
mod eye;
mod health;
mod hosts;
mod id;
mod media;
mod namespaces;
mod page;
mod persistent;
mod placement;
mod power;
mod reachability;
mod sanitize;
mod self_test;
mod table;
mod telemetry;

pub use access::{AccessGroup, AccessHeader, AccessLog, AccessState};
pub use capacity::{
    CapacityConfiguration, CapacityConfigurationDescriptor, ChannelConfiguration,
    EnduranceGroupConfiguration, EnduranceGroupDescriptor, MediaUnit, MediaUnitConfiguration,
    MediaUnitStatusHeader, MediaUnitStatusLog, SupportedCapacityHeader, SupportedCapacityLog,
};
pub use discovery::{DiscoveryEntry, DiscoveryHeader, DiscoveryLog};
pub use effects::{
    CommandEffects, CommandsSupportedLog, FeatureEffects, FeaturesSupportedLog, LockdownLog, LockdownScope,
    LogPageSupport, ManagementCommandsSupportedLog, SupportedLogPages,
};
pub use endurance::{
    EnduranceGroupAggregateHeader, EnduranceGroupAggregateLog, EnduranceGroupLog, EnduranceGroupWarning,
    PredictableLatencyAggregateHeader, PredictableLatencyAggregateLog, PredictableLatencyLog,
};
pub use eye::{EyeLane, EyeMeasurement, EyeOpeningHeader, EyeOpeningLog, EyeOptionalData, EyeStatus};
pub use health::{CriticalWarning, ErrorLog, ErrorLogEntry, FirmwareSlotLog, SmartLog};
pub use hosts::{
    AveDiscoveryEntry, AveDiscoveryHeader, AveDiscoveryLog, AveTransportRecord, HostAttribute,
    HostAttributeType, HostDiscoveryEntry, HostDiscoveryHeader, HostDiscoveryLog, PullModelOperation,
    PullModelRequestHeader, PullModelRequestLog,
};
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
pub use power::{
    MeasuredPower, PowerBin, PowerMeasurementAttributes, PowerMeasurementHeader, PowerMeasurementLog,
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
