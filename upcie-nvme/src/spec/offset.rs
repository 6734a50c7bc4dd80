//! Byte offsets of the registers in BAR 0: Base, "Controller Properties".
//!
//! Registers of 8 bytes may be read and written as two of 4, the lower one first.

/// Controller Capabilities, 8 bytes, read-only.
pub const CAP: usize = 0x00;
/// Version, 4 bytes, read-only.
pub const VS: usize = 0x08;
/// Interrupt Mask Set, 4 bytes. Not for MSI-X.
pub const INTMS: usize = 0x0c;
/// Interrupt Mask Clear, 4 bytes. Not for MSI-X.
pub const INTMC: usize = 0x10;
/// Controller Configuration, 4 bytes.
pub const CC: usize = 0x14;
/// Controller Status, 4 bytes.
pub const CSTS: usize = 0x1c;
/// NVM Subsystem Reset, 4 bytes: writing 4E564D65h ("NVMe") resets the whole subsystem.
pub const NSSR: usize = 0x20;
/// Admin Queue Attributes, 4 bytes.
pub const AQA: usize = 0x24;
/// Admin Submission Queue Base Address, 8 bytes.
pub const ASQ: usize = 0x28;
/// Admin Completion Queue Base Address, 8 bytes.
pub const ACQ: usize = 0x30;
/// Controller Memory Buffer Location, 4 bytes, read-only.
pub const CMBLOC: usize = 0x38;
/// Controller Memory Buffer Size, 4 bytes, read-only.
pub const CMBSZ: usize = 0x3c;
/// Boot Partition Information, 4 bytes, read-only.
pub const BPINFO: usize = 0x40;
/// Boot Partition Read Select, 4 bytes.
pub const BPRSEL: usize = 0x44;
/// Boot Partition Memory Buffer Location, 8 bytes.
pub const BPMBL: usize = 0x48;
/// Controller Memory Buffer Memory Space Control, 8 bytes.
pub const CMBMSC: usize = 0x50;
/// Controller Memory Buffer Status, 4 bytes, read-only.
pub const CMBSTS: usize = 0x58;
/// Controller Memory Buffer Elasticity Buffer Size, 4 bytes, read-only.
pub const CMBEBS: usize = 0x5c;
/// Controller Memory Buffer Sustained Write Throughput, 4 bytes, read-only.
pub const CMBSWTP: usize = 0x60;
/// NVM Subsystem Shutdown, 4 bytes.
pub const NSSD: usize = 0x64;
/// Controller Ready Timeouts, 4 bytes, read-only.
pub const CRTO: usize = 0x68;
/// Persistent Memory Region Capabilities, 4 bytes, read-only.
pub const PMRCAP: usize = 0xe00;
/// Persistent Memory Region Control, 4 bytes.
pub const PMRCTL: usize = 0xe04;
/// Persistent Memory Region Status, 4 bytes, read-only.
pub const PMRSTS: usize = 0xe08;
/// Persistent Memory Region Elasticity Buffer Size, 4 bytes, read-only.
pub const PMREBS: usize = 0xe0c;
/// Persistent Memory Region Sustained Write Throughput, 4 bytes, read-only.
pub const PMRSWTP: usize = 0xe10;
/// Persistent Memory Region Controller Memory Space Control, lower 4 bytes.
pub const PMRMSCL: usize = 0xe14;
/// Persistent Memory Region Controller Memory Space Control, upper 4 bytes.
pub const PMRMSCU: usize = 0xe18;
/// Submission Queue 0 Tail Doorbell, the first of the doorbells; see
/// [`doorbell_offset`](super::doorbell_offset).
pub const DOORBELLS: usize = 0x1000;
