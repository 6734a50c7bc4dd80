//! The items that the copies import: loom's where threads meet, and the standard library's.

pub mod std {
    pub use ::std::*;

    pub mod sync {
        pub use ::std::sync::{LockResult, PoisonError};
        pub use loom::sync::{Mutex, MutexGuard};

        pub mod atomic {
            pub use loom::sync::atomic::*;
        }
    }
}

pub mod crossbeam_queue {
    use loom::sync::{Mutex, atomic::AtomicUsize};
    use std::{collections::VecDeque, sync::atomic::Ordering};

    /// A bounded queue with the orders that crossbeam's has: a push happens before the pop of its value, and `is_empty` is one
    /// load beside the lock.
    #[derive(Debug)]
    pub struct ArrayQueue<T> {
        values: Mutex<VecDeque<T>>,
        len: AtomicUsize,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub fn new(capacity: usize) -> Self {
            Self { values: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0), capacity }
        }

        pub fn push(&self, value: T) -> Result<(), T> {
            let mut values = self.values.lock().expect("no panic");
            if values.len() == self.capacity {
                return Err(value);
            }
            values.push_back(value);
            self.len.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }

        pub fn pop(&self) -> Option<T> {
            let mut values = self.values.lock().expect("no panic");
            let value = values.pop_front();
            if value.is_some() {
                self.len.fetch_sub(1, Ordering::SeqCst);
            }
            value
        }

        pub fn is_empty(&self) -> bool {
            self.len.load(Ordering::SeqCst) == 0
        }
    }
}

pub mod upcie_core {
    pub mod dma {
        #[derive(Debug)]
        pub struct DmaBuf;
    }
}
