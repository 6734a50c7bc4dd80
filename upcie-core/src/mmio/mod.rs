//! Mapped device memory, by words, and base address registers made of it.
//!
//! A [`Mapping`] owns an mmap of a file descriptor. A [`Register`] is one naturally aligned word in it: its bounds are
//! checked when it is made, and after that an access is one volatile load or store. No Rust reference into device
//! memory is ever formed: the device changes it, and reading may have side effects.
//!
//! Reading is safe. Writing is not: a device does what its registers say, to whatever memory they name.

mod bar;
mod guard;
mod mapping;
mod own;
mod register;

pub use bar::{Area, Bar, Caching, RegionIo};
pub use guard::survive_shrinking;
pub(crate) use guard::{Guarded, is_installed, losses};
pub use mapping::Mapping;
pub(crate) use mapping::{copy_from, copy_to};
pub(crate) use own::{OwnFile, refuse_own};
pub use register::{Register, Word};
