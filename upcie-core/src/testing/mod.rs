//! What unit tests of several modules share.

mod fake_sysfs;

pub(crate) use fake_sysfs::FakeSysfs;
