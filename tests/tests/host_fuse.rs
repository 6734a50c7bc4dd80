//! Files of FUSE as a BAR and as memory: a program answers for them, which may never do so. Neither side asks it.

use nix::sys::signal::Signal;
use std::{os::fd::OwnedFd, process::Command};
use upcie_tests::{
    deadline,
    fuse::Fuse,
    left_out,
    process::{Directory, Process, Server, programs, within},
    proxy::{Sender, proxy},
};

/// Runs `upcie info`; returns its exit code and its standard error. A process that waits for FUSE can't be killed, so a
/// thread waits for it.
fn info(address: String) -> (Option<i32>, String) {
    let mut command = Command::new(programs().join("upcie"));
    command.args(["info", &address, "--timeout", "2s"]);
    let (status, said) = within(2 * deadline(), move || Process::start(command).finish());
    (status.code(), said)
}

/// Regression: `upcie info` waited for ever, and SIGKILL did not end it. An unprivileged user can mount FUSE.
#[test]
fn a_file_of_fuse_is_refused_without_a_question_to_it() {
    if !Server::is_built() && !upcie_tests::is_ci() {
        return left_out("nvme-emu is not built");
    }
    for by in [Sender::Server, Sender::Client] {
        let (server, directory) = (Server::start("size=16M"), Directory::new());
        // Dropped first: that ends every wait.
        let Some(fuse) = Fuse::mount() else { return left_out("FUSE can't be mounted here") };
        let file = fuse.open();
        // The last close is a request.
        let kept = file.try_clone().unwrap();
        fuse.stop();
        let replace = move |sender: Sender, fd: OwnedFd| {
            if sender == by { OwnedFd::from(file.try_clone().unwrap()) } else { fd }
        };
        let (path, closed) = proxy(&server, &directory, replace);
        let (code, said) = info(format!("vfio-user:{}", path.display()));
        // Doorbells can't be rung by messages; a server refuses the memory.
        assert_eq!(code, Some(1), "by the {by:?}: {said}");
        assert!(!fuse.is_asked(), "by the {by:?}: {said}");
        drop(kept);
        within(deadline(), move || closed.join().unwrap());
        let (code, said) = info(server.address().to_string());
        assert_eq!(code, Some(0), "the next client: {said}");
        let (status, said) = server.end(Signal::SIGTERM);
        assert!(status.success(), "{status}: {said}");
    }
}
