//! The verbs that manage a device: namespaces, formats, erasure, firmware, self-tests, and raw commands of all kinds.

mod blocks;
mod boot;
mod capacity;
mod common;
mod directive;
mod firmware;
mod format;
mod io;
mod key_value;
mod lba_status;
mod lockdown;
mod namespaces;
mod placement;
mod progress;
mod provide;
mod provide_served;
mod reservations;
mod reset;
mod sanitize;
mod security;
mod self_test;
mod virtualization;
mod zone_reports;
mod zones;

pub use blocks::{
    COMPARE_EXAMPLES, COPY_EXAMPLES, CompareArgs, CopyArgs, DSM_EXAMPLES, DsmArgs, FLUSH_EXAMPLES, FlushArgs,
    UNCOR_EXAMPLES, UncorArgs, VERIFY_EXAMPLES, VerifyArgs, ZEROES_EXAMPLES, ZeroesArgs, compare, copy, dsm,
    flush, verify, write_uncor, write_zeroes,
};
pub use boot::{BootArgs, EXAMPLES as BOOT_EXAMPLES, run as boot};
pub use capacity::{CapacityArgs, EXAMPLES as CAPACITY_EXAMPLES, run as capacity};
pub use directive::{DirectiveArgs, EXAMPLES as DIRECTIVE_EXAMPLES, run as directive};
pub use firmware::{EXAMPLES as FIRMWARE_EXAMPLES, FirmwareArgs, run as firmware};
pub use format::{EXAMPLES as FORMAT_EXAMPLES, FormatArgs, run as format};
pub use io::{EXAMPLES as IO_EXAMPLES, IoArgs, run as io};
pub use key_value::{EXAMPLES as KV_EXAMPLES, KvArgs, run as key_value};
pub use lba_status::{EXAMPLES as LBA_STATUS_EXAMPLES, LbaStatusArgs, run as lba_status};
pub use lockdown::{EXAMPLES as LOCKDOWN_EXAMPLES, LockdownArgs, run as lockdown};
pub use namespaces::{EXAMPLES as NS_EXAMPLES, NsArgs, run as namespaces};
pub use placement::{EXAMPLES as FDP_EXAMPLES, FdpArgs, run as placement};
pub use reservations::{EXAMPLES as RESV_EXAMPLES, ResvArgs, run as reservations};
pub use reset::{EXAMPLES as RESET_EXAMPLES, ResetArgs, run as reset};
pub use sanitize::{EXAMPLES as SANITIZE_EXAMPLES, SanitizeArgs, run as sanitize};
pub use security::{EXAMPLES as SECURITY_EXAMPLES, SecurityArgs, run as security};
pub use self_test::{EXAMPLES as SELF_TEST_EXAMPLES, SelfTestArgs, run as self_test};
pub use virtualization::{EXAMPLES as VIRT_EXAMPLES, VirtArgs, run as virtualization};
pub use zones::{EXAMPLES as ZNS_EXAMPLES, ZnsArgs, run as zones};
