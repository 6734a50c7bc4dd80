//! A FUSE file system with one file, which stops answering on request.

use crate::process::Directory;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// The size of the file in bytes.
const SIZE: u64 = 1 << 20;
/// `FOPEN_DIRECT_IO | FOPEN_NOFLUSH`: each access is a request, and closing the file is none. Otherwise a process that closes
/// it would wait for ever: each program that a test starts does so as it begins.
const PLAIN: u32 = 1 << 0 | 1 << 5;

/// Request codes of `linux/fuse.h`.
mod op {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const INIT: u32 = 26;
    pub const INTERRUPT: u32 = 36;
    pub const BATCH_FORGET: u32 = 42;
}

/// The file system, mounted until it is dropped; after that, waiting requests end with an error.
#[derive(Debug)]
pub struct Fuse {
    directory: Directory,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    is_over: AtomicBool,
    is_stopped: AtomicBool,
    /// The thread has seen a request that nobody takes since the stop.
    asked: (Mutex<bool>, Condvar),
}

impl Fuse {
    /// Mounts a file system. Returns `None` if that is not possible: only root may, and the kernel needs
    /// FUSE.
    pub fn mount() -> Option<Self> {
        let directory = Directory::new();
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("upcie-tests"), directory.path(), Some("fuse"), flags, Some(&*options)).ok()?;
        let state = Arc::new(State {
            is_over: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            asked: Default::default(),
        });
        let served = state.clone();
        let thread = Some(thread::spawn(move || served.serve(device)));
        Some(Self { directory, state, thread })
    }

    /// Opens the file, before [`stop`](Self::stop).
    ///
    /// # Panics
    /// Panics if that fails.
    pub fn open(&self) -> File {
        File::options().read(true).write(true).open(self.file()).expect("the file system answers")
    }

    /// Returns the path of the file.
    pub fn file(&self) -> PathBuf {
        self.path().join("disk")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes no further request.
    pub fn stop(&self) {
        self.state.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Returns `true` if a request waits for an answer.
    ///
    /// # Panics
    /// Panics if the thread that serves the file system did.
    pub fn is_asked(&self) -> bool {
        *self.state.asked.0.lock().expect("no panic")
    }

    /// Waits until a request waits for an answer.
    ///
    /// # Panics
    /// Panics if there is none within [`deadline`](crate::deadline).
    pub fn wait_until_asked(&self) {
        let (asked, changed) = &self.state.asked;
        let guard = asked.lock().expect("no panic");
        let (asked, _) =
            changed.wait_timeout_while(guard, crate::deadline(), |asked| !*asked).expect("no panic");
        assert!(*asked, "nobody asks");
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let _ = umount2(self.path(), MntFlags::MNT_DETACH);
        // The connection ends when the thread closes the device's descriptor.
        self.state.is_over.store(true, Ordering::SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl State {
    fn serve(&self, mut device: File) {
        let mut request = vec![0; 1 << 20];
        while !self.is_over.load(Ordering::SeqCst) {
            let mut fds = [PollFd::new(device.as_fd(), PollFlags::POLLIN)];
            // Wakes up now and then to see the end.
            match poll(&mut fds, PollTimeout::from(50_u8)) {
                Ok(1..) => {}
                _ => continue,
            }
            if self.is_stopped.load(Ordering::SeqCst) {
                *self.asked.0.lock().expect("no panic") = true;
                self.asked.1.notify_all();
                thread::yield_now();
                continue;
            }
            let Ok(len) = device.read(&mut request) else { return };
            let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("4 bytes"));
            let (operation, id, node) = (word(4), &request[8..16], word(16));
            debug_assert!(len >= 40);
            let answer = match operation {
                op::FORGET | op::INTERRUPT | op::BATCH_FORGET => continue,
                op::INIT => Some(init()),
                op::LOOKUP => Some([&words(&[2, 0, 1, 0])[..], &[0; 24], &attributes(2)].concat()),
                op::GETATTR => Some([&[0; 16][..], &attributes(node)].concat()),
                op::OPEN => Some(words(&[1, 0, PLAIN, 0])),
                op::READ => Some(vec![0; word(40 + 16) as usize]),
                op::WRITE => Some(words(&[word(40 + 16), 0])),
                op::RELEASE | op::FSYNC => Some(Vec::new()),
                _ => None,
            };
            let error = if answer.is_some() { 0 } else { -libc::ENOSYS };
            let body = answer.unwrap_or_default();
            let head = [(16 + body.len() as u32).to_ne_bytes(), error.to_ne_bytes()].concat();
            // The process that asked may be gone.
            let _ = device.write(&[&head[..], id, &body].concat());
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Makes a `struct fuse_init_out`: version 7.31, writes of at most 64 KiB.
fn init() -> Vec<u8> {
    let mut answer = words(&[7, 31, 64 << 10, 0, 12 | 10 << 16, 64 << 10, 1]);
    answer.resize(64, 0);
    answer
}

/// Makes the `struct fuse_attr` of the directory (node 1) or the file.
fn attributes(node: u32) -> Vec<u8> {
    let mode = if node == 1 { 0o40755 } else { 0o100_666 };
    let mut answer = [u64::from(node), SIZE, SIZE / 512, 0, 0, 0].map(u64::to_ne_bytes).concat();
    answer.extend(words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0]));
    answer
}
