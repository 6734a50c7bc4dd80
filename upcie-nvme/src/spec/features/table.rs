//! All features that the library knows, for programs that choose one by number or name.

use super::super::fields::{Field, FieldPlace};
use super::*;

/// A feature: its identifier, the data that it returns, and its fields.
#[derive(Debug, Clone, Copy)]
pub struct FeatureInfo {
    /// The identifier.
    pub id: FeatureId,
    /// The specification's name.
    pub title: &'static str,
    /// Bytes of data that Get Features returns beside dword 0.
    pub data: usize,
    /// Command dword 11 that Get Features takes.
    pub dword11: u32,
    /// Each namespace has a value of its own.
    pub of_namespace: bool,
    /// Set Features takes the value in dword 12, and dword 11 names an NVM set or an endurance group.
    pub in_dword12: bool,
    /// The bits of dword 11 that choose one of several values: a sensor, a vector.
    pub selects: u32,
    /// The places of the fields in the dword, and those in the data.
    pub places: fn() -> (Vec<FieldPlace>, Vec<FieldPlace>),
    /// The fields of a value, by dword 0 and the data; `None` if the data is too short.
    pub fields: fn(u32, &[u8]) -> Option<Vec<Field>>,
}

const fn row<F: Feature>() -> FeatureInfo {
    FeatureInfo {
        id: F::ID,
        title: F::TITLE,
        data: F::DATA,
        dword11: F::DWORD11,
        of_namespace: F::OF_NAMESPACE,
        in_dword12: F::IN_DWORD12,
        selects: F::SELECTS,
        places: F::places,
        fields: fields::<F>,
    }
}

fn fields<F: Feature>(dword0: u32, data: &[u8]) -> Option<Vec<Field>> {
    F::from_answer(dword0, data).map(|value| value.fields())
}

impl FeatureInfo {
    /// Every feature that the library knows, by identifier.
    pub const ALL: &'static [Self] = &[
        row::<Arbitration>(),
        row::<PowerManagement>(),
        row::<LbaRangeType>(),
        row::<TemperatureThreshold>(),
        row::<ErrorRecovery>(),
        row::<VolatileWriteCache>(),
        row::<NumberOfQueues>(),
        row::<InterruptCoalescing>(),
        row::<InterruptVectorConfiguration>(),
        row::<WriteAtomicity>(),
        row::<AsyncEventConfiguration>(),
        row::<AutonomousPowerStateTransition>(),
        row::<HostMemoryBuffer>(),
        row::<Timestamp>(),
        row::<KeepAliveTimer>(),
        row::<HostControlledThermalManagement>(),
        row::<NonOperationalPowerState>(),
        row::<ReadRecoveryLevel>(),
        row::<PredictableLatencyMode>(),
        row::<PredictableLatencyWindow>(),
        row::<LbaStatusInterval>(),
        row::<HostBehaviorSupport>(),
        row::<SanitizeConfig>(),
        row::<EnduranceGroupEvents>(),
        row::<CommandSetProfile>(),
        row::<SpinupControl>(),
        row::<PowerLossSignaling>(),
        row::<PerformanceCharacteristics>(),
        row::<PerformanceAttributeList>(),
        row::<PerformanceAttribute>(),
        row::<FlexibleDataPlacement>(),
        row::<NamespaceAdminLabel>(),
        row::<KeyValueConfiguration>(),
        row::<ControllerDataQueue>(),
        row::<EmbeddedManagementAddress>(),
        row::<HostManagementAddress>(),
        row::<EnhancedControllerMetadata>(),
        row::<ControllerMetadata>(),
        row::<NamespaceMetadata>(),
        row::<SoftwareProgressMarker>(),
        row::<HostIdentifier>(),
        row::<ExtendedHostIdentifier>(),
        row::<ReservationNotificationMask>(),
        row::<ReservationPersistence>(),
        row::<NamespaceWriteProtection>(),
        row::<BootPartitionWriteProtection>(),
    ];

    /// Returns the feature with an identifier, if the library knows it.
    #[must_use]
    pub fn of(id: FeatureId) -> Option<&'static Self> {
        Self::ALL.iter().find(|feature| feature.id == id)
    }
}
