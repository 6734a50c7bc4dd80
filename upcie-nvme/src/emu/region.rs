//! The parts of a function that a host accesses.

/// A part of the function that a host accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Region {
    /// BAR 0: the controller's registers and the doorbells.
    Registers,
    /// BAR 2: the controller memory buffer (`cmb=`).
    ControllerMemory,
    /// BAR 4: the MSI-X table and its pending bits.
    MsixTable,
    /// BAR 5: the persistent memory region (`pmr=`).
    PersistentMemory,
    /// Configuration space.
    Config,
}
