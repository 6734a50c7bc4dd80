//! The same tasks on io_uring: reads of `/dev/null` by tokio-uring, the least that a file costs there, since the kernel does nothing.

use crate::thread_time;
use std::rc::Rc;
use tokio_uring::fs::File;

/// Does `count` reads in `depth` tasks; returns the nanoseconds of CPU time for each, the kernel's included.
///
/// # Panics
/// Panics if the kernel has no io_uring, or forbids it.
#[inline(never)]
pub fn read_null(depth: u64, count: u64) -> f64 {
    tokio_uring::start(async {
        let file = Rc::new(File::open("/dev/null").await.expect("/dev/null"));
        let tasks = (0..depth).map(|_| {
            let file = file.clone();
            tokio_uring::spawn(async move {
                let mut buffer = vec![0; 4096];
                for _ in 0..count / depth {
                    let (result, back) = file.read_at(buffer, 0).await;
                    result.expect("a read of nothing");
                    buffer = back;
                }
            })
        });
        let start = thread_time();
        let tasks: Vec<_> = tasks.collect();
        for task in tasks {
            task.await.expect("a task");
        }
        (thread_time() - start) as f64 / (count / depth * depth) as f64
    })
}
