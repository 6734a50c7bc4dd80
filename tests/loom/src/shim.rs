//! The items that the copies import: loom's where threads meet, and the standard library's.

pub mod std {
    pub use ::std::*;

    pub mod sync {
        pub use ::std::sync::{Arc, LockResult, OnceLock, PoisonError, Weak};
        pub use loom::sync::{Condvar, Mutex, MutexGuard};

        pub mod atomic {
            pub use loom::sync::atomic::*;
        }
    }

    pub mod thread {
        pub use loom::thread::*;
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

    pub mod gate {
        pub use crate::gate::Gate;
    }

    pub mod process {
        pub(crate) use crate::Owner;
        use crate::Result;
        use loom::sync::atomic::AtomicU64;
        use std::{
            ops::Deref,
            ptr::NonNull,
            sync::{LazyLock, Mutex, MutexGuard, PoisonError},
        };

        /// A word without a page of its own: nobody forks in a model.
        #[derive(Debug)]
        pub struct ProcessWord(Box<AtomicU64>);

        impl ProcessWord {
            pub(crate) fn new(value: u64) -> Result<Self> {
                Ok(Self(Box::new(AtomicU64::new(value))))
            }

            pub fn as_ptr(&self) -> NonNull<AtomicU64> {
                NonNull::from(&*self.0)
            }
        }

        impl Deref for ProcessWord {
            type Target = AtomicU64;

            fn deref(&self) -> &AtomicU64 {
                &self.0
            }
        }

        /// A list of the process's, which no model looks at.
        #[derive(Debug)]
        pub struct PerProcess<T: 'static>(LazyLock<Mutex<T>>);

        impl<T: Default> PerProcess<T> {
            pub const fn new() -> Self {
                Self(LazyLock::new(|| Mutex::new(T::default())))
            }

            pub fn lock(&self) -> MutexGuard<'_, T> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner)
            }
        }
    }
}
