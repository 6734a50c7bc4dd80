//! Words of mapped device memory, and base address registers.
//!
//! A [`Mapping`] owns an mmap of a file descriptor. A [`Register`] is one naturally aligned word in it: its bounds are
//! checked when it is made, so that each access is one volatile load or store. No Rust reference to device memory is ever
//! formed: the device changes it, and reads may have side effects.
//!
//! Reading is safe. Writing is unsafe: a register can make the device access any memory.

mod bar;
mod guard;
mod mapping;
mod own;
mod register;
mod slots;

pub use bar::{Area, Bar, Caching, RegionIo};
pub use guard::survive_shrinking;
pub(crate) use guard::{Guarded, is_installed, losses};
pub use mapping::Mapping;
pub(crate) use mapping::{copy_from, copy_to};
pub(crate) use own::{OwnFile, refuse_own};
pub use register::{Register, Word};
