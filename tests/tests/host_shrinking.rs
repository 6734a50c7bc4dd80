//! Servers whose BAR is in a file that can't be sealed, and that shrink it while it is mapped: the tools end
//! with an error, not by a signal. Programs that don't ask for that keep their signal handlers.

use nix::sys::{
    memfd::{MFdFlags, memfd_create},
    socket::{ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, recvmsg, sendmsg},
    stat::fstat,
};
use std::{
    fs::File,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::{
            fs::FileExt,
            net::{UnixListener, UnixStream},
            process::ExitStatusExt,
        },
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
use upcie_core::{device::Address, memory::survive_shrinking};
use upcie_nvme::Controller;
use upcie_tests::{
    left_out,
    process::{Directory, Process, Server, programs},
};

/// A proxy in front of a server. It replaces the file behind BAR 0 by one that can't be sealed, copies
/// doorbells from there to the server's file, and truncates its file after a number of them.
struct Proxy {
    /// Doorbells until the truncation.
    left: AtomicU64,
    files: Mutex<Option<(File, File)>>,
}

impl Proxy {
    fn start(server: &Server, directory: &Directory, doorbells: u64) -> PathBuf {
        let Address::VfioUser(to) = server.address() else { panic!("no socket") };
        let path = directory.path().join("proxy");
        let listener = UnixListener::bind(&path).unwrap();
        let proxy = Arc::new(Self { left: AtomicU64::new(doorbells), files: Mutex::new(None) });
        // The threads end with the connection, which ends with the test's processes.
        thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = UnixStream::connect(to).unwrap();
            let (from, to, other) = (client.try_clone().unwrap(), server.try_clone().unwrap(), proxy.clone());
            thread::spawn(move || other.pass(&from, &to, false));
            thread::spawn({
                let proxy = proxy.clone();
                move || proxy.copy_doorbells()
            });
            proxy.pass(&server, &client, true);
        });
        path
    }

    fn pass(&self, from: &UnixStream, to: &UnixStream, replace: bool) {
        let mut bytes = vec![0; 64 << 10];
        loop {
            let mut control = nix::cmsg_space!([RawFd; 8]);
            let mut room = [IoSliceMut::new(&mut bytes)];
            let got: RecvMsg<'_, '_, ()> =
                recvmsg(from.as_raw_fd(), &mut room, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
            let mut fds = Vec::new();
            for message in got.cmsgs().unwrap() {
                if let ControlMessageOwned::ScmRights(some) = message {
                    // SAFETY: the descriptors were received just now, so nobody else owns them.
                    fds.extend(some.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            let len = got.bytes;
            if len == 0 {
                let _ = to.shutdown(std::net::Shutdown::Both);
                return;
            }
            if replace {
                fds = fds.into_iter().map(|theirs| self.replace(theirs)).collect();
            }
            let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
            let mut sent = 0;
            while sent < len {
                let rights = [ControlMessage::ScmRights(&raw)];
                let rights = if raw.is_empty() || sent > 0 { &[] } else { &rights[..] };
                let part = [IoSlice::new(&bytes[sent..len])];
                match sendmsg::<()>(to.as_raw_fd(), &part, rights, MsgFlags::MSG_NOSIGNAL, None) {
                    Ok(more) => sent += more,
                    Err(_) => return,
                }
            }
        }
    }

    fn replace(&self, theirs: OwnedFd) -> OwnedFd {
        let ours = memfd_create(c"upcie-shrinks", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&ours, fstat(&theirs).unwrap().st_size).unwrap();
        *self.files.lock().unwrap() = Some((ours.try_clone().unwrap().into(), theirs.into()));
        ours
    }

    fn copy_doorbells(&self) {
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

/// Soundness finding 7: the next doorbell ended the client by SIGBUS.
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
        let path = Proxy::start(&server, &directory, doorbells);
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
