//! Runs the `nvme-emu` program: the line that it prints once it listens, and the permissions of its socket.

mod program;

use nix::unistd::{getgid, getuid};
use program::{Dir, complains, fails, run, run_upcie, serve, succeeds};
use std::{fs, os::unix::fs::MetadataExt};

const PROGRAM: &str = env!("CARGO_BIN_EXE_nvme-emu");

/// The permissions of the socket decide who reads and writes the blocks.
#[test]
fn a_socket_has_the_mode_and_the_owner_that_were_asked_for() {
    let dir = Dir::made("serving-mode");
    let socket = dir.path("socket");
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let owned = format!("--size 1M --mode 640 --owner {user}:{group}");
    for (arguments, mode) in [("--size 1M", 0o600), (owned.as_str(), 0o640)] {
        let (_server, line) = serve(&socket, arguments.split_whitespace());
        assert!(line.starts_with(&format!("listening on vfio-user:{socket} ")), "{line}");
        let data = fs::metadata(&socket).unwrap();
        assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (mode, user, group), "{arguments}");
        succeeds(run_upcie(&format!("info vfio-user:{socket}")));
    }
    let error = complains(2, run(PROGRAM, &format!("--socket {socket} --mode 999")));
    assert!(error.contains("octal"), "{error}");
    let error = fails(1, run(PROGRAM, &format!("--socket {socket} --owner no-such-user")));
    assert!(error.contains("no user") && error.contains("no-such-user"), "{error}");
}

/// A new server answered writes at a thousandth of its speed until their memory was there: it takes the memory first, and says
/// how much.
#[test]
fn the_line_says_how_much_memory_is_taken() {
    let dir = Dir::made("serving-line");
    let socket = dir.path("socket");
    for (arguments, end) in [
        ("--size 16M --namespaces 2", " (2 × 16 MiB, uses 32 MiB of memory)\n"),
        ("--size 16M --no-populate", " (1 × 16 MiB, allocates memory on first write)\n"),
        ("--size 16M --null", " (1 × 16 MiB)\n"),
    ] {
        let (_server, line) = serve(&socket, arguments.split_whitespace());
        assert!(line.ends_with(end), "{arguments}: {line}");
    }
}
