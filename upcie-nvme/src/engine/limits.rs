//! The controller's word on commands that take none of the short paths.

/// The limits of commands to all namespaces of a controller.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CommandLimits {
    /// The formats of a Copy's source ranges that the controller takes now, one bit each (CDFS, CDFE).
    pub(crate) copy_formats: u16,
}

impl CommandLimits {
    /// No limit is known, and source ranges are in the command's own namespace.
    pub(crate) const NONE: Self = Self { copy_formats: 0b11 };
}
