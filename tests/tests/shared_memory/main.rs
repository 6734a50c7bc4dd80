//! One process has the controller and its queues, another the data: they share memory, and nothing is copied.
//! Memory of other processes serves in the same way.

mod imported;

use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::MetadataExt,
            net::{UnixListener, UnixStream},
        },
    },
    process::Command,
};
use upcie_core::{Failure, share::SharedRegion, testing::Random};
use upcie_nvme::{Controller, DmaBuf, Namespace};
use upcie_tests::{
    Device, deadline,
    device::namespaces,
    io::read,
    on_each_device,
    process::{Directory, Process, again, role},
    raw, says, scaled, seeded,
};

const SOCKET: &str = "UPCIE_TEST_SOCKET";
const ADDRESS: &str = "UPCIE_TEST_ADDRESS";
/// The size of each of the two buffers, in bytes.
const BUFFER: usize = 256 << 10;

/// The words of a request: a code of these, the buffer's number, the first block, and the count.
const WRITE: u64 = 1;
const READ: u64 = 2;
/// Writes the first buffer again and again, until the process ends.
const LOAD: u64 = 3;

type Words = [u64; 4];

fn say(mut socket: &UnixStream, words: Words) -> io::Result<()> {
    socket.write_all(&words.map(u64::to_ne_bytes).concat())
}

/// Receives the next message; `None` if the other side has closed the socket.
fn hear(mut socket: &UnixStream) -> io::Result<Option<Words>> {
    let mut bytes = [[0; 8]; 4];
    match socket.read_exact(bytes.as_flattened_mut()) {
        Ok(()) => Ok(Some(bytes.map(u64::from_ne_bytes))),
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The owner's side: a namespace, and two buffers in shared memory.
struct Owner {
    _controller: Controller,
    namespace: Namespace,
    buffers: [DmaBuf; 2],
}

impl Owner {
    fn new(controller: Controller) -> Self {
        let namespace = namespaces(&controller).remove(0).0;
        let region = controller.heap().space().allocate_shared(2 * BUFFER, None).unwrap();
        let heap = controller.heap_over(region).unwrap();
        let buffers = [heap.alloc(BUFFER).unwrap(), heap.alloc(BUFFER).unwrap()];
        Self { _controller: controller, namespace, buffers }
    }

    /// Sends the memory and describes it.
    fn introduce(&self, socket: &UnixStream) {
        socket.set_read_timeout(Some(deadline())).unwrap();
        self.buffers[0].region().unwrap().export(socket, deadline()).unwrap();
        let [first, second] = self.buffers.each_ref().map(|buffer| buffer.offset_in_region() as u64);
        say(socket, [first, second, self.namespace.block_size() as u64, self.namespace.blocks()]).unwrap();
    }

    /// Serves requests without reading the data, until the other side is gone; returns their number.
    fn serve(&mut self, socket: &UnixStream) -> usize {
        for count in 0.. {
            let Some([what, buffer, block, blocks]) = hear(socket).unwrap() else { return count };
            let whole = std::mem::take(&mut self.buffers[buffer as usize]);
            let mut part = whole.slice(0..blocks as usize * self.namespace.block_size());
            match what {
                WRITE => self.namespace.write(block, &mut part).unwrap(),
                READ => self.namespace.read(block, &mut part).unwrap(),
                _ => {
                    say(socket, [what, buffer, block, blocks]).unwrap();
                    loop {
                        self.namespace.write(block, &mut part).unwrap();
                    }
                }
            }
            self.buffers[buffer as usize] = part.try_reunite().unwrap();
            // A user that was killed can't receive.
            let _ = say(socket, [what, buffer, block, blocks]);
        }
        unreachable!("counted to the end")
    }
}

/// The user's side: the data without the device.
struct User {
    region: SharedRegion,
    socket: UnixStream,
    offsets: [usize; 2],
    block_size: usize,
    blocks: u64,
}

impl User {
    fn new(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(deadline())).unwrap();
        let region = SharedRegion::import(&socket, deadline()).unwrap();
        let [first, second, block_size, blocks] = hear(&socket).unwrap().expect("an owner");
        let offsets = [first as usize, second as usize];
        Self { region, socket, offsets, block_size: block_size as usize, blocks }
    }

    fn ask(&self, words: Words) {
        say(&self.socket, words).unwrap();
        assert_eq!(hear(&self.socket).unwrap(), Some(words));
    }

    fn fill(&mut self, buffer: usize, data: &[u8]) {
        self.region.write_at(self.offsets[buffer], data).unwrap();
    }

    fn look(&self, buffer: usize, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.region.read_at(self.offsets[buffer], &mut data).unwrap();
        data
    }

    /// Moves random data through the first buffer to the device and back into the second.
    fn round_trip(&mut self, random: &mut Random) -> (u64, Vec<u8>) {
        let most = (BUFFER / self.block_size) as u64;
        let blocks = match random.below(3) {
            0 => 1,
            1 => most,
            _ => random.within(1..most + 1),
        };
        let block = random.within(0..self.blocks - blocks);
        let data: Vec<u8> = (0..blocks as usize * self.block_size).map(|_| random.next() as u8).collect();
        self.fill(0, &data);
        self.fill(1, &vec![0xee; data.len()]);
        self.ask([WRITE, 0, block, blocks]);
        self.ask([READ, 1, block, blocks]);
        assert!(self.look(1, data.len()) == data, "{blocks} blocks at {block} came back as others");
        (block, data)
    }
}

/// Counts this process's descriptors of a file.
fn descriptors_of((dev, ino): (u64, u64)) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    open.filter(|entry| fs::metadata(entry.path()).is_ok_and(|m| (m.dev(), m.ino()) == (dev, ino))).count()
}

fn file_of(fd: impl AsFd) -> (u64, u64) {
    let metadata = File::from(fd.as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
    (metadata.dev(), metadata.ino())
}

/// Starts this test in another role; returns the process and the connection to it.
fn other(test: &str, role: &str, device: &Device) -> (Process, UnixStream) {
    let directory = Directory::new();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command: Command = again(test, role);
    command.env(SOCKET, &path).env(ADDRESS, device.address().to_string());
    let mut process = Process::start(command);
    process.wait_for("connected").unwrap_or_else(|said| panic!("{role}: {said}"));
    let (socket, _) = listener.accept().unwrap();
    (process, socket)
}

/// Returns the connection of a process that plays a role.
fn connect() -> UnixStream {
    let socket = UnixStream::connect(env::var(SOCKET).unwrap()).unwrap();
    // On a line of its own, after any output of the harness.
    println!("\nconnected");
    socket
}

#[test]
fn a_process_without_the_device_fills_and_checks_its_data() {
    if role().is_some() {
        let mut user = User::new(connect());
        let mut random = seeded(1);
        for _ in 0..scaled(100) {
            user.round_trip(&mut random);
        }
        user.region.check().unwrap();
        return;
    }
    on_each_device(|device| {
        let (process, socket) =
            other("a_process_without_the_device_fills_and_checks_its_data", "user", device);
        let mut owner = Owner::new(device.open());
        owner.introduce(&socket);
        assert_eq!(owner.serve(&socket), 2 * scaled(100));
        let (status, said) = process.finish();
        assert!(status.success(), "{said}");
    });
}

#[test]
fn a_killed_owner_is_an_error_and_no_fault() {
    const NAME: &str = "a_killed_owner_is_an_error_and_no_fault";
    if role().is_some() {
        let socket = connect();
        let address = env::var(ADDRESS).unwrap();
        let mut owner = Owner::new(Controller::open(&address).unwrap());
        owner.introduce(&socket);
        owner.serve(&socket);
        return;
    }
    on_each_device(|device| {
        let (mut process, socket) = other(NAME, "owner", device);
        let id = file_of(&socket);
        let mut user = User::new(socket);
        let mut random = seeded(2);
        let (block, data) = user.round_trip(&mut random);
        user.region.check().unwrap();
        let blocks = (data.len() / user.block_size) as u64;
        user.ask([LOAD, 0, block, blocks]);
        process.kill();

        let error = user.region.check().unwrap_err();
        assert!(matches!(error.failure(), Failure::Gone { .. }), "{error}");
        says(&error, &["process", "gone"]);
        // The owner does not answer, either.
        let answer = say(&user.socket, [WRITE, 0, block, blocks]).and_then(|()| hear(&user.socket));
        assert!(!matches!(answer, Ok(Some(_))), "{answer:?}");
        // The memory has its data, and can be read and written.
        assert!(user.look(1, data.len()) == data);
        user.fill(0, &[0x5a; BUFFER]);
        assert!(user.look(0, BUFFER).iter().all(|&byte| byte == 0x5a));
        drop(user);
        assert_eq!(descriptors_of(id), 0);

        // The device is free again.
        let controller = device.open();
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut buffer = controller.alloc(16 * namespace.block_size()).unwrap();
        pattern.fill(&mut buffer, 8, 1);
        namespace.write(8, &mut buffer).unwrap();
        pattern.verify(&read(&controller, &namespace, 8, 16), 8, 1);
    });
}

#[test]
fn a_killed_user_leaves_the_owner_alone() {
    const NAME: &str = "a_killed_user_leaves_the_owner_alone";
    if role().is_some() {
        let mut user = User::new(connect());
        let mut random = seeded(3);
        println!("at work");
        loop {
            user.round_trip(&mut random);
        }
    }
    on_each_device(|device| {
        let (mut process, socket) = other(NAME, "user", device);
        let id = file_of(&socket);
        let mut owner = Owner::new(device.open());
        let memory = file_of(raw::file(owner.buffers[0].region().unwrap().memory().unwrap()));
        owner.introduce(&socket);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                process.wait_for("at work").unwrap();
                process.kill();
            });
            // Serves until the other side is gone.
            owner.serve(&socket);
        });
        drop(socket);
        assert_eq!(descriptors_of(id), 0);

        // The owner continues in the same memory with another user.
        let (mine, theirs) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut user, mut random) = (User::new(theirs), seeded(4));
                for _ in 0..3 {
                    user.round_trip(&mut random);
                }
            });
            owner.introduce(&mine);
            assert_eq!(owner.serve(&mine), 6);
        });
        drop(owner);
        assert_eq!(descriptors_of(memory), 0, "the memory went with its owner");
    });
}
