//! `upcie read` and `upcie write`: blocks to and from a file or a pipe, several commands at a time.

mod pipeline;
mod progress;
mod range;
mod read;
mod write;

pub use progress::progress;
pub use read::{EXAMPLES as READ_EXAMPLES, ReadArgs, run as read};
pub use write::{EXAMPLES as WRITE_EXAMPLES, WriteArgs, run as write};
