//! I/O queue pairs: described, made on the controller, used and waited for, deleted there.

mod builder;
mod diagnosis;
mod pair;

pub use builder::QueuePairBuilder;
pub use pair::QueuePair;

#[cfg(test)]
mod tests;
