//! Shared parts of the unit tests, of the driver's tests, and of the benches. They are not part of the library's
//! interface: only unit tests and the feature `testing` compile them.

mod asleep;
mod clock;
#[cfg(test)]
mod fake_sysfs;
mod forked;
mod fuzz;
mod iommu;
mod random;

pub use asleep::{thread_number, wait_until_asleep};
pub use clock::ManualClock;
#[cfg(test)]
pub(crate) use fake_sysfs::FakeSysfs;
pub use forked::in_child;
pub use fuzz::{fuzz, mutate};
pub use iommu::FakeIommu;
pub use random::{Random, mix};
