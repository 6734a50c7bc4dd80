//! Parts that tests of several modules, of the driver, and the benches share. Not part of the library's interface: it is there
//! in unit tests, and with the feature `testing`.

#[cfg(test)]
mod fake_sysfs;
mod iommu;
mod random;

#[cfg(test)]
pub(crate) use fake_sysfs::FakeSysfs;
pub use iommu::FakeIommu;
pub use random::Random;
