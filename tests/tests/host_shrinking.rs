//! Servers whose BAR is in a file that can't be sealed, and that shrink it while it is mapped: the tools end
//! with an error, not by a signal. Programs that don't ask for that keep their signal handlers.

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    stat::fstat,
};
use std::{
    fs::File,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::{fs::FileExt, process::ExitStatusExt},
    },
    path::PathBuf,
    process::Command,
    ptr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};
use upcie_core::memory::survive_shrinking;
use upcie_nvme::Controller;
use upcie_tests::{
    left_out,
    process::{Directory, Process, Server, programs},
    proxy::{Sender, proxy},
};

/// The files behind BAR 0: that of the client, which can't be sealed, and the server's. Doorbells are copied from one
/// to the other, and the client's is truncated after a number of them.
struct Doorbells {
    /// Doorbells until the truncation.
    left: AtomicU64,
    files: Mutex<Option<(File, File)>>,
}

impl Doorbells {
    /// Starts a proxy of `server`; returns the path of its socket.
    fn start(server: &Server, directory: &Directory, doorbells: u64) -> PathBuf {
        let all = Arc::new(Self { left: AtomicU64::new(doorbells), files: Mutex::new(None) });
        // The thread ends with the truncation or with the test's process.
        thread::spawn({
            let all = all.clone();
            move || all.copy()
        });
        let (path, _) = proxy(server, directory, move |sender, fd| match sender {
            Sender::Server => all.replace(fd),
            Sender::Client => fd,
        });
        path
    }

    fn replace(&self, theirs: OwnedFd) -> OwnedFd {
        let ours = memfd_create(c"upcie-shrinks", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&ours, fstat(&theirs).unwrap().st_size).unwrap();
        *self.files.lock().unwrap() = Some((ours.try_clone().unwrap().into(), theirs.into()));
        ours
    }

    fn copy(&self) {
        let mut before = Vec::new();
        loop {
            thread::yield_now();
            let files = self.files.lock().unwrap();
            let Some((ours, theirs)) = &*files else { continue };
            let len = theirs.metadata().unwrap().len() as usize;
            before.resize(len, 0);
            let mut now = vec![0; len];
            ours.read_exact_at(&mut now, 0).unwrap();
            for at in (0..len).step_by(4).filter(|&at| now[at..at + 4] != before[at..at + 4]) {
                theirs.write_all_at(&now[at..at + 4], at as u64).unwrap();
                if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    return ours.set_len(0).unwrap();
                }
            }
            before = now;
        }
    }
}

/// Regression: the next doorbell ended the client by SIGBUS.
#[test]
fn a_bar_that_shrinks_ends_the_tools_with_an_error() {
    if !Server::is_built() && !upcie_tests::is_ci() {
        return left_out("nvme-emu is not built");
    }
    // Truncated during bring-up, and under load.
    let perf = ["perf", "ADDRESS", "--time", "600", "--timeout", "2s"];
    let read = ["read", "ADDRESS", "/dev/null", "--timeout", "2s"];
    for (doorbells, words) in [(3, &perf[..]), (500, &perf), (30, &read)] {
        let (server, directory) = (Server::start("size=256M"), Directory::new());
        let path = Doorbells::start(&server, &directory, doorbells);
        let mut command = Command::new(programs().join("upcie"));
        command.args(words.iter().map(|&word| match word {
            "ADDRESS" => format!("vfio-user:{}", path.display()),
            word => word.into(),
        }));
        let (status, said) = Process::start(command).finish();
        assert_eq!((status.code(), status.signal()), (Some(1), None), "{doorbells} {words:?}: {said}");
        assert!(said.contains("upcie: ") && said.contains("vfio-user:"), "{doorbells} {words:?}: {said}");
        // If the truncation loses a doorbell that was not copied yet, the client does not touch the BAR and
        // times out.
        let is_named = said.contains("shrank the file") || said.contains("no completion within");
        assert!(is_named, "{doorbells} {words:?}: {said}");
    }
}

/// Returns the address of each signal's handler.
fn handlers() -> Vec<usize> {
    let handler = |signal| {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: nothing is changed, and there is room for the answer. A signal that can't be asked for leaves zeroes.
        unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) };
        // SAFETY: all zeroes is a valid value, and the call may have filled it in.
        unsafe { action.assume_init() }.sa_sigaction
    };
    (1..=libc::SIGRTMAX()).map(handler).collect()
}

/// Signal handlers belong to the program: a client and a server install none unless it asks for that.
#[test]
fn a_program_keeps_its_signal_handlers() {
    let before = handlers();
    // Both are in this process.
    let controller = Controller::open("emu:size=1M").unwrap();
    controller.namespace(1).unwrap().write_at(0, &[7; 512]).unwrap();
    drop(controller);
    assert_eq!(handlers(), before);
    survive_shrinking().unwrap();
    let after = handlers();
    let changed: Vec<i32> = (1..)
        .zip(after.iter().zip(&before))
        .filter(|(_, (now, then))| now != then)
        .map(|(signal, _)| signal)
        .collect();
    assert_eq!(changed, [libc::SIGBUS]);
}
