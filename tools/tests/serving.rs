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

/// The first socket is the primary controller's, and the others are those of its virtual functions.
#[test]
fn virtual_functions_have_sockets_of_their_own() {
    let dir = Dir::made("serving-functions");
    let [primary, first, second] = ["primary", "first", "second"].map(|name| dir.path(name));
    let others = format!("--size 1M --vfs 2 --socket {first} --socket {second} --no-populate");
    let (_server, line) = serve(&primary, others.split_whitespace());
    for socket in [&primary, &first, &second] {
        assert!(line.contains(&format!("vfio-user:{socket}")), "{line}");
    }
    let address = format!("vfio-user:{primary}");
    let list = succeeds(run_upcie(&format!("id {address} list-secondary --json")));
    let list = String::from_utf8(list).unwrap();
    assert_eq!(list.matches("\"secondary_controller_id\"").count(), 2, "{list}");
    succeeds(run_upcie(&format!("id {address} primary-ctrl-caps")));
    for socket in [&first, &second] {
        let error = fails(1, run_upcie(&format!("info vfio-user:{socket}")));
        assert!(error.contains("online"), "{error}");
    }
    let error = complains(2, run(PROGRAM, &format!("--socket {primary} --size 1M --vfs 2")));
    assert!(error.contains("vfs=2") && error.contains("3 in all, and there are 1"), "{error}");
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
