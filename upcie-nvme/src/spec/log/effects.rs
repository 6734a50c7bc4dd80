//! The log pages that say what a controller supports: log pages, commands, features. Base, "Supported Log Pages",
//! "Commands Supported and Effects", "Feature Identifiers Supported and Effects", "NVMe-MI Commands Supported and
//! Effects", "Command and Feature Lockdown".

use super::super::features::FeatureId;
use super::super::fields::{Code, Field, Structure, Value};
use super::super::identify::{Csi, IdentifyController};
use super::super::key_value::KeyValueOpcode;
use super::super::macros::{bits, structure};
use super::super::opcode::{AdminOpcode, NvmOpcode};
use super::id::LogPageId;
use super::page::fixed_pages;

bits! {
    /// Support of a log page by a controller.
    LogPageSupport(u32), "LID Supported and Effects" {
        /// The page is supported (LSUPP).
        supported: bool[1] => flag;
        /// The offset of Get Log Page may be an index instead of bytes (IOS).
        index_offset: bool[1] => flag;
        __: u16[14];
        /// The log-specific parameter of this page (LIDSP).
        log_specific: u16[16] => hex;
    }
}

structure! {
    /// Supported Log Pages (00h).
    SupportedLogPages[1024], "Supported Log Pages" {
        /// One entry for each log page identifier.
        0 log_pages: [LogPageSupport; 256] = shown;
    }
}

impl SupportedLogPages {
    /// Returns the identifiers of the supported pages, ascending.
    pub fn supported(&self) -> impl Iterator<Item = LogPageId> + '_ {
        (0..=u8::MAX).map(LogPageId).filter(|id| self.log_pages[usize::from(id.0)].supported())
    }

    fn shown(&self) -> Value {
        table(&self.log_pages, |entry| entry.supported(), LogPageId)
    }
}

bits! {
    /// Support of a command by a controller, and the effects of the command.
    CommandEffects(u32), "Commands Supported and Effects" {
        /// The command is supported (CSUPP).
        supported: bool[1] => flag;
        /// The command may change blocks of a namespace (LBCC).
        logical_block_content_change: bool[1] => flag;
        /// The command may change capabilities of a namespace (NCC).
        namespace_capability_change: bool[1] => flag;
        /// The command may change the set of namespaces (NIC).
        namespace_inventory_change: bool[1] => flag;
        /// The command may change capabilities of the controller (CCC).
        controller_capability_change: bool[1] => flag;
        __: u16[9];
        /// Submission and execution relaxations (CSER).
        submission_relaxation: u8[2] => number;
        /// Submission and execution (CSE): 0 no restriction, 1 alone in its namespace, 2 alone in the controller.
        submission_and_execution: u8[3] => names(EXECUTION);
        /// The command takes a UUID index.
        uuid_selection: bool[1] => flag;
        /// Scope (CSP), one bit each as in [`FeatureEffects`]; 0 not reported.
        scope: u16[12] => hex;
    }
}

const EXECUTION: &[(u64, &str)] = &[
    (0, "no restriction"),
    (1, "no other command for the namespace"),
    (2, "no other command for any namespace"),
];

structure! {
    /// Commands Supported and Effects (05h).
    CommandsSupportedLog[4096], "Commands Supported and Effects" {
        /// One entry for each admin opcode (ACS).
        0 admin_commands: [CommandEffects; 256] = shown_admin;
        /// One entry for each I/O opcode (IOCS) of the command set that Get Log Page named.
        1024 io_commands: [CommandEffects; 256] = shown_io;
        2048 reserved2048: [u8; 2048];
    }
}

impl CommandsSupportedLog {
    fn shown_admin(&self) -> Value {
        table(&self.admin_commands, |entry| entry.supported(), AdminOpcode)
    }

    fn shown_io(&self) -> Value {
        table(&self.io_commands, |entry| entry.supported(), NvmOpcode)
    }

    /// Returns the fields of a page of a command set. [`Structure::fields`] names I/O commands as the NVM command set and the zoned
    /// one do; the numbers mean other commands in the key value command set.
    #[must_use]
    pub fn fields_of(&self, set: Csi) -> Vec<Field> {
        let mut all = self.fields();
        if set == Csi::KEY_VALUE {
            let keys = || table(&self.io_commands, |entry| entry.supported(), KeyValueOpcode);
            all.iter_mut().filter(|field| field.name == "io_commands").for_each(|field| field.value = keys());
        }
        all
    }
}

bits! {
    /// Support of a feature or a management command, and the effects of changing or executing it.
    FeatureEffects(u32), "FID Supported and Effects" {
        /// The feature or command is supported (FSUPP).
        supported: bool[1] => flag;
        /// User data may change (UDCC).
        user_data_content_change: bool[1] => flag;
        /// Capabilities of a namespace may change (NCC).
        namespace_capability_change: bool[1] => flag;
        /// The set of namespaces may change (NIC).
        namespace_inventory_change: bool[1] => flag;
        /// Capabilities of the controller may change (CCC).
        controller_capability_change: bool[1] => flag;
        __: u16[14];
        /// The feature or command takes a UUID index.
        uuid_selection: bool[1] => flag;
        /// Scope: a namespace.
        namespace_scope: bool[1] => flag;
        /// Scope: a controller.
        controller_scope: bool[1] => flag;
        /// Scope: an NVM set.
        nvm_set_scope: bool[1] => flag;
        /// Scope: an endurance group.
        endurance_group_scope: bool[1] => flag;
        /// Scope: a domain.
        domain_scope: bool[1] => flag;
        /// Scope: the NVM subsystem.
        nvm_subsystem_scope: bool[1] => flag;
        /// Scope: a controller data queue (2.1).
        controller_data_queue_scope: bool[1] => flag;
        __: u8[5];
    }
}

structure! {
    /// Feature Identifiers Supported and Effects (12h).
    FeaturesSupportedLog[1024], "Feature Identifiers Supported and Effects" {
        /// One entry for each feature identifier.
        0 features: [FeatureEffects; 256] = shown;
    }
}

impl FeaturesSupportedLog {
    fn shown(&self) -> Value {
        table(&self.features, |entry| entry.supported(), FeatureId)
    }
}

structure! {
    /// NVMe-MI Commands Supported and Effects (13h).
    ManagementCommandsSupportedLog[4096], "NVMe-MI Commands Supported and Effects" {
        /// One entry for each opcode of the NVM Express Management Interface.
        0 commands: [FeatureEffects; 256] = shown;
        1024 reserved1024: [u8; 3072];
    }
}

impl ManagementCommandsSupportedLog {
    fn shown(&self) -> Value {
        table(&self.commands, |entry| entry.supported(), u8::from)
    }
}

impl Code for u8 {
    fn code(self) -> (u64, Option<&'static str>) {
        (self.into(), None)
    }
}

/// Shows the entries of a table that are supported, each with the code that it belongs to.
fn table<T: Structure, C: Code>(entries: &[T], supported: fn(&T) -> bool, code: fn(u8) -> C) -> Value {
    let used = (0..=u8::MAX).zip(entries).filter(|(_, entry)| supported(entry));
    let shown = used.map(|(number, entry)| {
        let (number, name) = code(number).code();
        let set = entry.fields().into_iter().filter(|field| {
            let unset = match &field.value {
                Value::Flag(on) => !on,
                Value::Number(number) => *number == 0,
                Value::Text(text) => text == "0x0",
                _ => false,
            };
            field.name != "supported" && !unset
        });
        let mut fields = vec![Field::new("code", Value::Named(number, name))];
        fields.extend(set);
        Value::Fields(fields)
    });
    Value::List(shown.collect())
}

bits! {
    /// Scope of a Command and Feature Lockdown page.
    LockdownScope(u8), "Command and Feature Identifier List Attributes" {
        /// Scope: admin commands, features, management commands, or PCIe commands.
        scope: u8[4] => names(&[(0, "admin commands"), (2, "features"), (3, "NVMe-MI commands"), (4, "PCIe commands")]);
        /// Contents: supported, prohibited, or prohibited out of band.
        contents: u8[2] => names(&[(0, "that can be prohibited"), (1, "prohibited"), (2, "prohibited out of band")]);
        __: u8[2];
    }
}

structure! {
    /// Command and Feature Lockdown (14h); the log-specific parameter chooses scope (bits 3:0) and contents (bits 5:4).
    LockdownLog[512], "Command and Feature Lockdown" {
        /// The scope and the contents (CFILA).
        0 attributes: LockdownScope => fields;
        1 reserved1: [u8; 2];
        /// Identifiers in the list (LNGTH).
        3 length: u8 => number;
        /// The identifiers (CFIL): opcodes or feature identifiers.
        4 identifiers: [u8; 508] = shown_identifiers;
    }
}

impl LockdownLog {
    /// Returns the identifiers in the list.
    #[must_use]
    pub fn used(&self) -> &[u8] {
        &self.identifiers[..self.length.into()]
    }

    fn shown_identifiers(&self) -> Value {
        let named = |&id: &u8| match self.attributes.scope() {
            0 => AdminOpcode(id).code(),
            2 => FeatureId(id).code(),
            _ => id.code(),
        };
        let shown = self.used().iter().map(|id| {
            let (number, name) = named(id);
            Value::Named(number, name)
        });
        Value::List(shown.collect())
    }
}

fixed_pages! {
    SupportedLogPages: SUPPORTED_LOG_PAGES;
    CommandsSupportedLog: COMMANDS_SUPPORTED;
    FeaturesSupportedLog: FEATURES_SUPPORTED;
    ManagementCommandsSupportedLog: NVME_MI_COMMANDS_SUPPORTED;
    LockdownLog: LOCKDOWN;
}
