//! `process/per_process.rs`: the first uses of a process's value by its threads.

use crate::{fails, per_process, per_process_lost, play};
use loom::thread;

/// Two threads are the first to use a value: it is one value.
macro_rules! threads_share_a_value {
    ($copy:ident) => {
        || {
            let list: &'static $copy::PerProcess<Vec<u32>> = Box::leak(Box::new($copy::PerProcess::new()));
            let other = thread::spawn(move || list.lock().push(1));
            list.lock().push(2);
            other.join().unwrap();
            let mut all = list.lock().clone();
            all.sort_unstable();
            assert_eq!(all, [1, 2], "an entry is lost");
        }
    };
}

#[test]
fn first_uses_share_a_value() {
    play(8, threads_share_a_value!(per_process));
}

#[test]
fn a_value_that_replaces_another_is_found() {
    fails(4, threads_share_a_value!(per_process_lost));
}
