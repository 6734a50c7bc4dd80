//! All structures that Identify returns and that the library knows, for programs that choose one by number or name.

use super::super::fields::Field;
use super::*;

/// A structure that Identify returns: its code and its fields.
#[derive(Debug, Clone, Copy)]
pub struct IdentifyInfo {
    /// The code.
    pub cns: Cns,
    /// The command set that defines it, where the code alone doesn't tell.
    pub csi: Csi,
    /// The specification's name.
    pub title: &'static str,
    /// Identify takes a namespace.
    pub of_namespace: bool,
    /// The fields of the bytes that Identify returned.
    pub fields: fn(&[u8; 4096]) -> Vec<Field>,
}

const fn row<S: IdentifyData>() -> IdentifyInfo {
    IdentifyInfo {
        cns: S::CNS,
        csi: S::CSI,
        title: S::TITLE,
        of_namespace: S::OF_NAMESPACE,
        fields: fields::<S>,
    }
}

/// Makes the row of a structure that another code returns too.
const fn again<S: IdentifyData>(cns: Cns, title: &'static str) -> IdentifyInfo {
    IdentifyInfo { cns, title, ..row::<S>() }
}

/// Makes the row of a structure that another code returns by the index of a block format, of no namespace.
const fn by_format<S: IdentifyData>(cns: Cns, title: &'static str) -> IdentifyInfo {
    IdentifyInfo { of_namespace: false, ..again::<S>(cns, title) }
}

fn fields<S: IdentifyData>(page: &[u8; 4096]) -> Vec<Field> {
    S::from_page(page).fields()
}

impl IdentifyInfo {
    /// Every structure that the library knows, by code.
    pub const ALL: &'static [Self] = &[
        row::<IdentifyNamespace>(),
        row::<IdentifyController>(),
        row::<ActiveNamespaces>(),
        row::<NamespaceDescriptorList>(),
        row::<NvmSetList>(),
        row::<NvmNamespace>(),
        row::<KeyValueNamespace>(),
        row::<ZonedNamespace>(),
        row::<IdentifyNvmController>(),
        row::<ZonedController>(),
        row::<CommandSetActiveNamespaces>(),
        row::<IndependentNamespace>(),
        by_format::<IdentifyNamespace>(Cns::FORMAT_NAMESPACE, "Identify Namespace by format index"),
        by_format::<NvmNamespace>(
            Cns::COMMAND_SET_FORMAT_NAMESPACE,
            "I/O Command Set specific Identify Namespace by format index (NVM)",
        ),
        by_format::<KeyValueNamespace>(
            Cns::COMMAND_SET_FORMAT_NAMESPACE,
            "I/O Command Set specific Identify Namespace by format index (Key Value)",
        ),
        by_format::<ZonedNamespace>(
            Cns::COMMAND_SET_FORMAT_NAMESPACE,
            "I/O Command Set specific Identify Namespace by format index (Zoned)",
        ),
        row::<AllocatedNamespaces>(),
        again::<IdentifyNamespace>(Cns::ALLOCATED_NAMESPACE, "Identify Namespace of an allocated namespace"),
        row::<NamespaceControllers>(),
        row::<ControllerList>(),
        row::<PrimaryController>(),
        row::<SecondaryControllerList>(),
        row::<NamespaceGranularityList>(),
        row::<UuidList>(),
        row::<DomainList>(),
        row::<EnduranceGroupList>(),
        row::<CommandSetAllocatedNamespaces>(),
        again::<NvmNamespace>(
            Cns::COMMAND_SET_ALLOCATED_NAMESPACE,
            "I/O Command Set specific Identify Namespace of an allocated namespace (NVM)",
        ),
        again::<KeyValueNamespace>(
            Cns::COMMAND_SET_ALLOCATED_NAMESPACE,
            "I/O Command Set specific Identify Namespace of an allocated namespace (Key Value)",
        ),
        again::<ZonedNamespace>(
            Cns::COMMAND_SET_ALLOCATED_NAMESPACE,
            "I/O Command Set specific Identify Namespace of an allocated namespace (Zoned)",
        ),
        row::<CommandSetCombinations>(),
        row::<UnderlyingNamespaceList>(),
        row::<PortsList>(),
        again::<IndependentNamespace>(
            Cns::INDEPENDENT_ALLOCATED_NAMESPACE,
            "I/O Command Set Independent Identify Namespace of an allocated namespace",
        ),
        row::<ControllerStateFormats>(),
    ];

    /// Returns the structure with a code, of a command set if the code has several, if the library knows it.
    #[must_use]
    pub fn of(cns: Cns, csi: Csi) -> Option<&'static Self> {
        let mut all = Self::ALL.iter().filter(|structure| structure.cns == cns);
        let first = all.clone().next()?;
        all.find(|structure| structure.csi == csi).or(all_same(cns).then_some(first))
    }
}

/// Returns `true` for a code whose structure is the same for all command sets.
fn all_same(cns: Cns) -> bool {
    !matches!(
        cns,
        Cns::COMMAND_SET_NAMESPACE
            | Cns::COMMAND_SET_CONTROLLER
            | Cns::COMMAND_SET_FORMAT_NAMESPACE
            | Cns::COMMAND_SET_ALLOCATED_NAMESPACE
    )
}
