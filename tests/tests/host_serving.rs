//! Promises of `nvme-emu` beside its controller: memory is allocated before it listens, it ends on time, and
//! it warns its client before that.

use nix::sys::signal::Signal;
use std::{fs, process::Command, thread, time::Duration};
use upcie_core::dma::DmaBuf;
use upcie_nvme::{Controller, Namespace, Wait};
use upcie_tests::{
    deadline,
    fuse::Fuse,
    io::create,
    left_out,
    process::{Process, Server, programs, within},
};

fn is_built() -> bool {
    let built = Server::is_built() || upcie_tests::is_ci();
    if !built {
        left_out("nvme-emu is not built");
    }
    built
}

/// Returns the kilobytes of anonymous memory that are present in a process.
fn anonymous(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A new server answered writes at a thousandth of its speed, until each page had been touched.
#[test]
fn memory_is_allocated_before_a_server_listens() {
    if !is_built() {
        return;
    }
    const KILOBYTES: u64 = 64 << 10;
    let mut server = Server::start("size=32M,namespaces=2");
    let full = anonymous(server.process().id());
    assert!(full >= KILOBYTES, "{full} kB");
    let mut server = Server::start("size=32M,namespaces=2,populate=false");
    let empty = anonymous(server.process().id());
    assert!(empty < KILOBYTES, "{empty} kB");
}

/// Too little memory made the kernel kill the server or another process.
#[test]
fn too_little_memory_is_a_clear_error() {
    if !is_built() {
        return;
    }
    let error = Server::try_start("size=8T").expect_err("8 TiB of memory");
    for words in ["8796093022208 bytes", "are available", "populate=false"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    Server::start("size=8T,populate=false");
}

/// Starts a server whose file is on a file system that hangs on request.
fn on_fuse() -> Option<(Fuse, Server)> {
    if !is_built() {
        return None;
    }
    let Some(fuse) = Fuse::mount() else {
        left_out("FUSE can't be mounted here");
        return None;
    };
    let server = Server::start(&format!("file={}", fuse.file().display()));
    Some((fuse, server))
}

/// A flush at the end had no deadline.
#[test]
fn a_hung_last_flush_delays_no_exit() {
    let Some((fuse, server)) = on_fuse() else { return };
    fuse.stop();
    let (status, said) = server.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the last flush") && said.contains("may not be on its disk"), "{said}");
    assert!(said.contains(&fuse.file().display().to_string()), "{said}");
}

#[test]
fn a_hung_write_delays_no_exit() {
    let Some((fuse, server)) = on_fuse() else { return };
    let options = Controller::builder().timeout(Duration::from_secs(1));
    let controller = options.open(server.address()).unwrap();
    let namespace = controller.namespace(1).unwrap();
    namespace.write(0, &mut controller.alloc(4096).unwrap()).unwrap();
    fuse.stop();
    let writer = thread::spawn(move || {
        let error = namespace.write(0, &mut controller.alloc(4096).unwrap()).unwrap_err();
        drop((namespace, controller));
        error
    });
    fuse.wait_until_asked();
    let (status, said) = server.end(Signal::SIGTERM);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the current command") && said.contains("may not be on its disk"), "{said}");
    within(deadline(), move || writer.join().unwrap());
}

/// Regression: the serving thread also accepted connections, so others got no answer while a disk hung.
#[test]
fn other_clients_are_told_while_a_disk_hangs() {
    let calls: [fn(&Namespace, &mut DmaBuf) -> upcie_nvme::Result<()>; 3] = [
        |namespace, buffer| namespace.read(0, buffer),
        |namespace, buffer| namespace.write(0, buffer),
        |namespace, _| namespace.flush(),
    ];
    for call in calls {
        let Some((fuse, server)) = on_fuse() else { return };
        let options = Controller::builder().timeout(Duration::from_secs(1));
        let controller = options.open(server.address()).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let mut buffer = controller.alloc(4096).unwrap();
        let told = || {
            let error = Controller::open(server.address()).expect_err("one client at a time").to_string();
            assert!(error.contains("has a client already"), "{error}");
        };
        fuse.stop();
        let caller = thread::spawn(move || call(&namespace, &mut buffer).expect_err("the disk hangs"));
        fuse.wait_until_asked();
        told();
        within(deadline(), move || caller.join().unwrap());
        // The server is not done with a client that has left, either.
        drop(controller);
        told();
        let (status, said) = server.end(Signal::SIGTERM);
        assert_eq!(status.code(), Some(1), "{said}");
    }
}

/// A client that accepts removal requests leaves in order, and says why.
#[test]
fn a_stopped_server_asks_its_client_to_leave() {
    if !is_built() {
        return;
    }
    let server = Server::start("size=16M");
    let mut command = Command::new(programs().join("upcie"));
    command.args(["perf", &server.address().to_string(), "--time", "600", "--interval", "1"]);
    let mut perf = Process::start(command);
    perf.wait_for("IOPS").unwrap();
    let (status, said) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{status}: {said}");
    let (status, said) = perf.finish();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("its server wants vfio-user:") && said.contains("back"), "{said}");
}

/// A client that ignores the request has a second to leave, and then loses the device.
#[test]
fn a_client_that_stays_loses_its_device() {
    if !is_built() {
        return;
    }
    let server = Server::start("size=16M");
    let controller = Controller::open(server.address()).unwrap();
    let mut queue = create::<u64>(controller.queue_pair().depth(4));
    assert!(!controller.is_wanted_back());
    let (status, said) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{status}: {said}");
    assert!(controller.is_wanted_back());
    within(deadline(), move || {
        queue.wait(Wait::Poll, deadline()).expect_err("no device");
        drop((queue, controller));
    });
}
