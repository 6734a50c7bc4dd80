//! The driver beside an `nvme-emu` process.

use crate::{
    Random,
    bare::{ENTRIES, Work},
    cores,
};
use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};
use upcie_core::device::Address;
use upcie_nvme::{Controller, Namespace, QueuePair};

/// Returns the path of one of the workspace's programs.
///
/// # Panics
/// Panics without `UPCIE_BIN`, which xtask sets.
pub fn program(name: &str) -> PathBuf {
    PathBuf::from(env::var_os("UPCIE_BIN").expect("UPCIE_BIN, which xtask sets")).join(name)
}

/// The driver's state over all measurements.
#[derive(Debug)]
pub struct Driver {
    /// The queue pair.
    pub queue: QueuePair<u64>,
    namespace: Namespace,
    work: Work,
    random: Random,
    /// The controller of the queue pair.
    pub controller: Controller,
}

impl Driver {
    /// Submits the first commands.
    ///
    /// # Panics
    /// Panics if the controller refuses one.
    pub fn start(controller: Controller, work: Work) -> Self {
        let namespace = controller.namespace(1).expect("a namespace");
        let mut queue = controller.queue_pair().depth(ENTRIES as u32).create().expect("a queue");
        let mut random = Random::new();
        let mut turn = queue.turn().expect("an open queue");
        for tag in 0..work.depth as u64 {
            let buffer = controller.alloc(work.blocks as usize * 512).expect("memory");
            let slba = random.next() & work.mask & !(work.blocks - 1);
            turn.read(&namespace, slba, buffer, tag).expect("room");
        }
        drop(turn);
        Self { queue, namespace, work, random, controller }
    }

    /// Completes and submits `count` commands; returns the nanoseconds of each.
    ///
    /// # Panics
    /// Panics if one fails.
    #[inline(never)]
    pub fn run(&mut self, count: u64) -> f64 {
        let Self { queue, namespace, work, random, .. } = self;
        let mut done = 0;
        let start = Instant::now();
        while done < count {
            if !queue.is_ready() {
                std::hint::spin_loop();
                continue;
            }
            let mut turn = queue.turn().expect("an open queue");
            while let Some(completion) = turn.next() {
                let (tag, result, buffer) = completion.into_parts();
                result.expect("a success");
                let slba = random.next() & work.mask & !(work.blocks - 1);
                turn.read(namespace, slba, buffer, tag).expect("room");
                done += 1;
            }
        }
        start.elapsed().as_nanos() as f64 / done as f64
    }
}

/// An `nvme-emu` process that sleeps except while it is measured.
#[derive(Debug)]
pub struct Emulator {
    /// The process.
    pub child: Child,
    socket: PathBuf,
}

impl Emulator {
    /// Starts the process and waits until it listens.
    ///
    /// # Panics
    /// Panics if it does not start.
    pub fn start(options: &str, name: &str) -> Self {
        let socket = env::temp_dir().join(format!("upcie-bench-{name}-{}.sock", std::process::id()));
        let mut command = Command::new(program("nvme-emu"));
        command.arg("--socket").arg(&socket).args(["--options", options]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("nvme-emu");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("a line");
        assert!(line.starts_with("listening"), "nvme-emu: {line}");
        Self { child, socket }
    }

    /// Returns its address.
    ///
    /// # Panics
    /// Panics if the path of the socket is no address.
    pub fn address(&self) -> Address {
        format!("vfio-user:{}", self.socket.display()).parse().expect("an address")
    }

    /// Keeps its threads, and those that they start, on `core`.
    ///
    /// # Panics
    /// Panics if the kernel refuses.
    pub fn pin(&self, core: usize) {
        for thread in
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("its threads").flatten()
        {
            cores::pin(
                thread.file_name().to_str().and_then(|tid| tid.parse().ok()).expect("a number"),
                &[core],
            );
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// Runs `work` while the process is awake.
    pub fn awake<R>(&self, what: impl FnOnce() -> R) -> R {
        self.signal(libc::SIGCONT);
        let result = what();
        self.signal(libc::SIGSTOP);
        result
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}
