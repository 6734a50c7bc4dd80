//! Features and asynchronous events: Base, "Feature Specific Information" and "Asynchronous Event Request
//! command". A feature's value is command dword 11 of Set Features, and dword 0 of the completion of Get
//! Features; some have data beside it.

mod data;
mod data_queue;
mod events;
mod host_data;
mod id;
mod performance;
mod settings;
mod table;
mod value;

pub use data::{
    AutonomousPowerStateTransition, ExtendedHostIdentifier, ExtendedHostIdentifierData, HostBehaviorData,
    HostBehaviorSupport, HostIdentifier, HostIdentifierData, HostMemoryBuffer, HostMemoryBufferAttributes,
    HostMemoryBufferEnable, HostMemoryDescriptor, LbaRange, LbaRangeCount, LbaRangeType, LbaRanges,
    PowerStateTransition, PowerStateTransitionEnable, PowerStateTransitions, PredictableLatencyConfig,
    PredictableLatencyEnable, PredictableLatencyMode, Timestamp, TimestampAttributes, TimestampData,
};
pub use data_queue::{ControllerDataQueue, ControllerDataQueueSlots, ControllerDataQueueTrigger};
pub use events::{AsyncEvent, AsyncEventType};
pub use host_data::{
    AdminLabel, ControllerMetadata, ControllerMetadataElements, ControllerMetadataType,
    EmbeddedManagementAddress, EnhancedControllerMetadata, HostManagementAddress, ManagementAgentAddress,
    MetadataAction, MetadataElement, NamespaceAdminLabel, NamespaceMetadata, NamespaceMetadataElements,
    NamespaceMetadataType,
};
pub use id::{FeatureId, FeatureSelect};
pub use performance::{
    PerformanceAttribute, PerformanceAttributeIds, PerformanceAttributeList, PerformanceCharacteristics,
    StandardPerformance, VendorPerformance,
};
pub use settings::{
    Arbitration, AsyncEventConfiguration, BootPartitionWriteProtection, CommandSetProfile,
    EnduranceGroupEvents, ErrorRecovery, FlexibleDataPlacement, HostControlledThermalManagement,
    InterruptCoalescing, InterruptVectorConfiguration, KeepAliveTimer, KeyValueConfiguration,
    LbaStatusInterval, NamespaceWriteProtection, NonOperationalPowerState, NumberOfQueues,
    PowerLossSignaling, PowerManagement, PredictableLatencyWindow, ReadRecoveryLevel,
    ReservationNotificationMask, ReservationPersistence, SanitizeConfig, SoftwareProgressMarker,
    SpinupControl, TemperatureThreshold, VolatileWriteCache, WriteAtomicity,
};
pub use table::FeatureInfo;
pub use value::{Feature, FeatureCapabilities};
