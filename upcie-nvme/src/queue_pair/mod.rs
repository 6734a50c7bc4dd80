//! I/O queue pairs: described, made on the controller, used and waited for, one or several at a time, deleted there.

mod builder;
mod deadlines;
mod diagnosis;
mod ending;
mod group;
mod one;
mod pair;
mod passthrough;

pub use builder::QueuePairBuilder;
pub use deadlines::OnTimeout;
pub use group::{GroupError, GroupMember, QueueGroup};
pub use pair::QueuePair;

#[cfg(test)]
mod group_tests;
#[cfg(test)]
mod tests;
