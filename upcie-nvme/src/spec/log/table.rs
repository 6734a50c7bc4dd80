//! All log pages that the library knows, for programs that choose one by number or name.

use super::super::fields::Field;
use super::super::identify::IdentifyController;
use super::*;

/// A log page: its identifier, its length, and its fields.
#[derive(Debug, Clone, Copy)]
pub struct LogPageInfo {
    /// The identifier.
    pub id: LogPageId,
    /// The specification's name.
    pub title: &'static str,
    /// The length of the page by what was read so far; see [`LogPage::len`].
    pub len: fn(&[u8], &IdentifyController) -> u64,
    /// The fields of a page, `None` if it has too few bytes.
    pub fields: fn(&[u8]) -> Option<Vec<Field>>,
}

const fn row<L: LogPage>() -> LogPageInfo {
    LogPageInfo { id: L::ID, title: L::TITLE, len: L::len, fields: fields::<L> }
}

fn fields<L: LogPage>(page: &[u8]) -> Option<Vec<Field>> {
    L::from_page(page).map(|page| page.fields())
}

impl LogPageInfo {
    /// Every page that the library knows, by identifier.
    pub const ALL: &'static [Self] = &[
        row::<SupportedLogPages>(),
        row::<ErrorLog>(),
        row::<SmartLog>(),
        row::<FirmwareSlotLog>(),
        row::<ChangedNamespacesLog>(),
        row::<CommandsSupportedLog>(),
        row::<SelfTestLog>(),
        row::<TelemetryHostLog>(),
        row::<TelemetryControllerLog>(),
        row::<EnduranceGroupLog>(),
        row::<PredictableLatencyLog>(),
        row::<PredictableLatencyAggregateLog>(),
        row::<AccessLog>(),
        row::<PersistentEventLog>(),
        row::<LbaStatusLog>(),
        row::<EnduranceGroupAggregateLog>(),
        row::<MediaUnitStatusLog>(),
        row::<SupportedCapacityLog>(),
        row::<FeaturesSupportedLog>(),
        row::<ManagementCommandsSupportedLog>(),
        row::<LockdownLog>(),
        row::<BootPartitionLog>(),
        row::<RotationalMediaLog>(),
        row::<DispersedNamespaceLog>(),
        row::<ManagementAddressLog>(),
        row::<EyeOpeningLog>(),
        row::<ReachabilityGroupsLog>(),
        row::<ReachabilityAssociationsLog>(),
        row::<ChangedAllocatedNamespacesLog>(),
        row::<PlacementConfigurationsLog>(),
        row::<HandleUsageLog>(),
        row::<PlacementStatisticsLog>(),
        row::<PlacementEventsLog>(),
        row::<PowerMeasurementLog>(),
        row::<DiscoveryLog>(),
        row::<HostDiscoveryLog>(),
        row::<AveDiscoveryLog>(),
        row::<PullModelRequestLog>(),
        row::<ReservationNotificationLog>(),
        row::<SanitizeStatusLog>(),
        row::<ChangedZonesLog>(),
    ];

    /// Returns the page with an identifier, if the library knows it.
    #[must_use]
    pub fn of(id: LogPageId) -> Option<&'static Self> {
        Self::ALL.iter().find(|page| page.id == id)
    }
}
