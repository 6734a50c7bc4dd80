//! Which process a handle belongs to.
//!
//! A forked child inherits every handle: the same device, container and connection, shared with the parent. What its
//! drops would undo (mappings, queues, the controller itself) is the parent's, so a drop asks first.

/// The process that made a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(u32);

impl Owner {
    /// The calling process.
    pub fn current() -> Self {
        Self(std::process::id())
    }

    /// Whether the calling process made the handle: `false` in a child that was forked since.
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}
