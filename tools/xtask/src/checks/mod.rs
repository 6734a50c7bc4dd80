//! Steps of `cargo xtask test` that start no device: each passes or fails as a whole.

pub mod assembly;
pub mod counted;
pub mod examples;
pub mod instructions;
pub mod layers;
pub mod licences;
pub mod package;
pub mod planted;
pub mod simulation;
pub mod soak;
pub mod words;
