//! Log pages: what the controller supports, Error Information, SMART / Health Information.

use super::{Options, placement};
use crate::spec::{
    AdminOpcode, CommandEffects, CommandsSupportedLog, Csi, ErrorLogEntry, FeatureEffects, FeatureId,
    FeaturesSupportedLog, KeyValueOpcode, LogPageId, LogPageSupport, ManagementCommandsSupportedLog,
    NvmOpcode, SmartLog, Status, SupportedLogPages,
};
use std::{collections::VecDeque, time::Duration};
use zerocopy::{FromZeros, IntoBytes};

/// Entries of the Error Information log.
pub(super) const ERROR_ENTRIES: usize = 64;
/// The temperature that the controller pretends to have, in kelvins.
pub(super) const TEMPERATURE: u16 = 300;

/// The log pages that the controller has.
const LOG_PAGES: [LogPageId; 13] = [
    LogPageId::SUPPORTED_LOG_PAGES,
    LogPageId::ERROR_INFORMATION,
    LogPageId::SMART,
    LogPageId::FIRMWARE_SLOT,
    LogPageId::CHANGED_NAMESPACES,
    LogPageId::COMMANDS_SUPPORTED,
    LogPageId::DEVICE_SELF_TEST,
    LogPageId::TELEMETRY_HOST,
    LogPageId::TELEMETRY_CONTROLLER,
    LogPageId::FEATURES_SUPPORTED,
    LogPageId::NVME_MI_COMMANDS_SUPPORTED,
    LogPageId::RESERVATION_NOTIFICATION,
    LogPageId::SANITIZE_STATUS,
];

/// The admin commands that the controller has, vendor-specific ones included, and their effects.
const ADMIN_COMMANDS: [(AdminOpcode, CommandEffects); 20] = {
    let plain = CommandEffects::new().with_supported(true);
    let alone = plain.with_submission_and_execution(2);
    let inventory = alone.with_namespace_inventory_change(true);
    let erases = plain.with_logical_block_content_change(true);
    [
        (AdminOpcode::DELETE_SQ, plain),
        (AdminOpcode::CREATE_SQ, plain),
        (AdminOpcode::GET_LOG_PAGE, plain),
        (AdminOpcode::DELETE_CQ, plain),
        (AdminOpcode::CREATE_CQ, plain),
        (AdminOpcode::IDENTIFY, plain),
        (AdminOpcode::ABORT, plain),
        (AdminOpcode::SET_FEATURES, plain),
        (AdminOpcode::GET_FEATURES, plain),
        (AdminOpcode::ASYNC_EVENT_REQUEST, plain),
        (AdminOpcode::NAMESPACE_MANAGEMENT, inventory),
        // Another revision is in use, which Identify tells.
        (AdminOpcode::FIRMWARE_COMMIT, alone.with_controller_capability_change(true)),
        (AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD, plain),
        (AdminOpcode::DEVICE_SELF_TEST, plain),
        (AdminOpcode::NAMESPACE_ATTACHMENT, inventory),
        (AdminOpcode::KEEP_ALIVE, plain),
        (
            AdminOpcode::FORMAT_NVM,
            erases.with_namespace_capability_change(true).with_submission_and_execution(1),
        ),
        (AdminOpcode::SANITIZE, erases.with_submission_and_execution(2)),
        (AdminOpcode(0xc0), plain),
        (AdminOpcode(0xc1), plain),
    ]
};

/// Returns `true` for a command that changes namespaces in a way that hosts of other controllers would not expect.
pub(super) fn changes_namespaces(opcode: AdminOpcode) -> bool {
    matches!(
        opcode,
        AdminOpcode::NAMESPACE_MANAGEMENT
            | AdminOpcode::NAMESPACE_ATTACHMENT
            | AdminOpcode::FORMAT_NVM
            | AdminOpcode::SANITIZE
    )
}

/// The I/O commands that the controller has, and whether they change blocks.
const IO_COMMANDS: [(NvmOpcode, bool); 13] = [
    (NvmOpcode::FLUSH, false),
    (NvmOpcode::WRITE, true),
    (NvmOpcode::READ, false),
    (NvmOpcode::WRITE_ZEROES, true),
    (NvmOpcode::DATASET_MANAGEMENT, true),
    (NvmOpcode::WRITE_UNCORRECTABLE, true),
    (NvmOpcode::COMPARE, false),
    (NvmOpcode::VERIFY, false),
    (NvmOpcode::COPY, true),
    (NvmOpcode::RESERVATION_REGISTER, false),
    (NvmOpcode::RESERVATION_REPORT, false),
    (NvmOpcode::RESERVATION_ACQUIRE, false),
    (NvmOpcode::RESERVATION_RELEASE, false),
];

/// The features that the controller has, but for the volatile write cache.
const FEATURES: [FeatureId; 16] = [
    FeatureId::ARBITRATION,
    FeatureId::POWER_MANAGEMENT,
    FeatureId::TEMPERATURE_THRESHOLD,
    FeatureId::ERROR_RECOVERY,
    FeatureId::NUMBER_OF_QUEUES,
    FeatureId::INTERRUPT_COALESCING,
    FeatureId::INTERRUPT_VECTOR_CONFIGURATION,
    FeatureId::WRITE_ATOMICITY_NORMAL,
    FeatureId::ASYNC_EVENT_CONFIGURATION,
    FeatureId::TIMESTAMP,
    FeatureId::KEEP_ALIVE_TIMER,
    FeatureId::HOST_BEHAVIOR_SUPPORT,
    FeatureId::HOST_IDENTIFIER,
    FeatureId::RESERVATION_NOTIFICATION_MASK,
    FeatureId::RESERVATION_PERSISTENCE,
    FeatureId::NAMESPACE_WRITE_PROTECTION,
];

/// Returns the Supported Log Pages log page.
pub(super) fn supported(options: &Options) -> Vec<u8> {
    let mut log = SupportedLogPages::new_zeroed();
    let placed = placement::PAGES.into_iter().filter(|_| options.placement.on);
    let boots = (options.boot_partitions != 0).then_some(LogPageId::BOOT_PARTITION);
    let zoned = options.zones.any().then_some(LogPageId::CHANGED_ZONES);
    let access = options.ana.map(|_| LogPageId::ASYMMETRIC_NAMESPACE_ACCESS);
    for id in LOG_PAGES.into_iter().chain(placed).chain(boots).chain(zoned).chain(access) {
        log.log_pages[usize::from(id.0)] = LogPageSupport::new().with_supported(true);
    }
    log.as_bytes().to_vec()
}

/// The commands of the zoned command set, and whether they change blocks.
const ZONED_COMMANDS: [(NvmOpcode, bool); 3] = [
    (NvmOpcode::ZONE_MANAGEMENT_SEND, true),
    (NvmOpcode::ZONE_MANAGEMENT_RECEIVE, false),
    (NvmOpcode::ZONE_APPEND, true),
];

/// The I/O commands of flexible data placement. Neither changes blocks.
const PLACEMENT_COMMANDS: [(NvmOpcode, bool); 2] =
    [(NvmOpcode::IO_MANAGEMENT_RECEIVE, false), (NvmOpcode::IO_MANAGEMENT_SEND, false)];

/// The commands of the key value command set, and whether they change keys or values.
const KEY_VALUE_COMMANDS: [(KeyValueOpcode, bool); 6] = [
    (KeyValueOpcode::FLUSH, false),
    (KeyValueOpcode::STORE, true),
    (KeyValueOpcode::RETRIEVE, false),
    (KeyValueOpcode::LIST, false),
    (KeyValueOpcode::DELETE, true),
    (KeyValueOpcode::EXIST, false),
];

/// Returns the Commands Supported and Effects log page of a command set. A controller that shares its namespaces can't change
/// them.
pub(super) fn commands(set: Csi, options: &Options, shared: bool) -> Vec<u8> {
    let mut log = CommandsSupportedLog::new_zeroed();
    let supported = CommandEffects::new().with_supported(true);
    let admin = ADMIN_COMMANDS.into_iter().filter(|(opcode, _)| !(shared && changes_namespaces(*opcode)));
    for (opcode, effects) in admin {
        log.admin_commands[usize::from(opcode.0)] = effects;
    }
    let placed = options.placement.on;
    let directives = [AdminOpcode::DIRECTIVE_SEND, AdminOpcode::DIRECTIVE_RECEIVE];
    let buffers = options.dbbuf.then_some(AdminOpcode::DOORBELL_BUFFER_CONFIG);
    let virtualization = (options.functions.count > 0).then_some(AdminOpcode::VIRTUALIZATION_MANAGEMENT);
    for opcode in directives.into_iter().filter(|_| placed).chain(buffers).chain(virtualization) {
        log.admin_commands[usize::from(opcode.0)] = supported;
    }
    let zoned = ZONED_COMMANDS.into_iter().filter(|_| set == Csi::ZONED);
    let placed = PLACEMENT_COMMANDS.into_iter().filter(|_| placed);
    let blocks =
        IO_COMMANDS.into_iter().chain(zoned).chain(placed).map(|(opcode, changes)| (opcode.0, changes));
    let keys = KEY_VALUE_COMMANDS.into_iter().map(|(opcode, changes)| (opcode.0, changes));
    let has_keys = set == Csi::KEY_VALUE;
    // All command sets have it.
    log.io_commands[usize::from(NvmOpcode::CANCEL.0)] = supported;
    for (opcode, changes) in blocks.filter(|_| !has_keys).chain(keys.filter(|_| has_keys)) {
        log.io_commands[usize::from(opcode)] = supported.with_logical_block_content_change(changes);
    }
    log.as_bytes().to_vec()
}

/// Returns the Feature Identifiers Supported and Effects log page.
pub(super) fn features(has_cache: bool, options: &Options) -> Vec<u8> {
    let mut log = FeaturesSupportedLog::new_zeroed();
    let cache = has_cache.then_some(FeatureId::VOLATILE_WRITE_CACHE);
    let placement = [FeatureId::FLEXIBLE_DATA_PLACEMENT, FeatureId::FDP_EVENTS];
    let placement = placement.into_iter().filter(|_| options.placement.on);
    let keys = options.keys.any().then_some(FeatureId::KEY_VALUE_CONFIGURATION);
    let boots = (options.boot_partitions != 0).then_some(FeatureId::BOOT_PARTITION_WRITE_PROTECTION);
    for id in FEATURES.into_iter().chain(cache).chain(placement).chain(keys).chain(boots) {
        let of_namespace = matches!(
            id,
            FeatureId::ERROR_RECOVERY
                | FeatureId::FDP_EVENTS
                | FeatureId::KEY_VALUE_CONFIGURATION
                | FeatureId::RESERVATION_NOTIFICATION_MASK
                | FeatureId::RESERVATION_PERSISTENCE
                | FeatureId::NAMESPACE_WRITE_PROTECTION
        );
        let scope =
            FeatureEffects::new().with_namespace_scope(of_namespace).with_controller_scope(!of_namespace);
        log.features[usize::from(id.0)] = scope.with_supported(true);
    }
    log.as_bytes().to_vec()
}

/// Returns the NVMe-MI Commands Supported and Effects log page: the controller has none of them.
pub(super) fn management_commands() -> Vec<u8> {
    ManagementCommandsSupportedLog::new_zeroed().as_bytes().to_vec()
}

/// The last errors, newest first.
#[derive(Debug)]
pub(super) struct ErrorLog {
    entries: VecDeque<ErrorLogEntry>,
    /// The number of errors ever.
    pub count: u64,
}

impl Default for ErrorLog {
    fn default() -> Self {
        Self { entries: VecDeque::with_capacity(ERROR_ENTRIES), count: 0 }
    }
}

impl ErrorLog {
    /// Notes that a command failed. `sq` 0 is the admin queue.
    pub fn push(&mut self, sq: u16, cid: u16, nsid: u32, lba: u64, status: Status) {
        self.count += 1;
        self.entries.truncate(ERROR_ENTRIES - 1);
        self.entries.push_front(ErrorLogEntry {
            error_count: self.count,
            sqid: sq,
            cid,
            status_field: status.with_phase(false),
            parameter_location: 0xffff,
            lba,
            nsid,
            ..Default::default()
        });
    }

    /// Returns the log page.
    pub fn page(&self) -> Vec<u8> {
        let mut page: Vec<u8> = self.entries.iter().flat_map(|entry| entry.as_bytes()).copied().collect();
        page.resize(ERROR_ENTRIES * size_of::<ErrorLogEntry>(), 0);
        page
    }
}

/// The counters of the SMART log.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub reads: u64,
    pub writes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub media_errors: u64,
}

/// Returns the SMART log page. `on` is the time since power-on.
pub(super) fn smart(counters: &Counters, errors: &ErrorLog, warning: u8, on: Duration) -> Vec<u8> {
    // In units of 1000 × 512 bytes, rounded up.
    let units = |bytes: u64| u128::from(bytes.div_ceil(512_000)).to_le_bytes();
    let mut log = SmartLog::new_zeroed();
    log.critical_warning = warning;
    log.composite_temperature = TEMPERATURE.to_le_bytes();
    log.available_spare = 100;
    log.available_spare_threshold = 10;
    log.data_units_read = units(counters.bytes_read);
    log.data_units_written = units(counters.bytes_written);
    log.host_read_commands = u128::from(counters.reads).to_le_bytes();
    log.host_write_commands = u128::from(counters.writes).to_le_bytes();
    log.power_cycles = 1_u128.to_le_bytes();
    log.power_on_hours = u128::from(on.as_secs() / 3600).to_le_bytes();
    log.media_errors = u128::from(counters.media_errors).to_le_bytes();
    log.error_log_entries = u128::from(errors.count).to_le_bytes();
    log.as_bytes().to_vec()
}
