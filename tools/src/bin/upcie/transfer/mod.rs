//! `upcie read` and `upcie write`: copy blocks to and from files or pipes, with several commands in flight.

mod blocks;
mod pipeline;
mod progress;
mod range;
mod read;
mod streams;
mod write;

pub use progress::progress;
pub use read::{EXAMPLES as READ_EXAMPLES, ReadArgs, run as read};
pub use write::{EXAMPLES as WRITE_EXAMPLES, WriteArgs, run as write};
