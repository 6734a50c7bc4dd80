//! PCI functions: their addresses, and their properties in sysfs and configuration space.

mod bdf;
#[cfg(feature = "bind")]
mod bind;
mod binding;
mod config;
mod function;
mod lock;
mod lockdown;
mod machine_lock;
mod setup;
mod virtual_functions;
mod vmd;

pub use bdf::Bdf;
#[cfg(feature = "bind")]
pub use bind::Binder;
pub use binding::{Binding, is_vfio_driver};
pub use config::{
    Capability, CapabilityIter, ConfigFile, ConfigSpace, ExtendedCapabilityIter, cap, command, ext_cap,
    offset,
};
#[cfg(test)]
pub(crate) use function::Sysfs;
#[cfg(feature = "uio")]
pub(crate) use function::link_name;
pub use function::{BarInfo, BarKind, Function, GroupMember, IommuGroup, functions};
pub use lock::FunctionLock;
#[cfg(feature = "uio")]
pub(crate) use lockdown::{LOCKED_DOWN, is_locked_down};
pub(crate) use setup::{Messages, allow_pin, turn_off, turn_on};
