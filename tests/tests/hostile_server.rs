//! Servers that lie, fall silent or die: the driver returns an error within its deadline, and neither panics
//! nor hangs. Tests in upcie-core have servers that violate the vfio-user protocol itself.

use nix::sys::signal::Signal;
use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};
use upcie_core::device::Address;
use upcie_nvme::{Controller, ControllerBuilder, Error, Failure, Namespace, Wait};
use upcie_tests::{
    deadline,
    device::namespaces,
    io::create,
    left_out,
    process::{Directory, Server, within},
    seeded,
};

/// The time that opening may take: its timeout of 5 s, and a margin.
const OPEN: Duration = Duration::from_secs(20);

const VERSION: u16 = 1;
const REPLY: u32 = 1;
const ERROR: u32 = 1 << 5;

/// Opens what `serve` serves on each connection. Opening must fail within [`OPEN`]; returns the error's text.
fn opening(what: &str, serve: impl Fn(UnixStream) + Send + 'static) -> String {
    let directory = Directory::new();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    // The thread is left behind when the test ends.
    thread::spawn(move || listener.incoming().for_each(|stream| serve(stream.unwrap())));
    let start = Instant::now();
    let options = Controller::builder().timeout(Duration::from_secs(5));
    let result = within(2 * OPEN, move || options.open(Address::VfioUser(path)));
    let took = start.elapsed();
    let error = result.err().unwrap_or_else(|| panic!("{what}: it opens"));
    let text = format!("{error:?}");
    assert!(took < OPEN, "{what}: {took:?} until {text}");
    assert!(text.contains(&path_text(directory.path())), "{what}: the device is not named: {text}");
    text
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}

fn header(id: u16, command: u16, size: usize, flags: u32, error: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend((size as u32).to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(error.to_ne_bytes());
    bytes
}

/// Receives a request; returns its id, command and payload, or `None` at the end.
fn request(stream: &mut UnixStream) -> Option<(u16, u16, Vec<u8>)> {
    let mut header = [0; 16];
    stream.read_exact(&mut header).ok()?;
    let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let size = u32::from_ne_bytes(header[4..8].try_into().unwrap()) as usize;
    let mut payload = vec![0; size.checked_sub(16)?];
    stream.read_exact(&mut payload).ok()?;
    Some((word(0), word(2), payload))
}

fn reply(stream: &mut UnixStream, id: u16, command: u16, payload: &[u8]) {
    let mut bytes = header(id, command, 16 + payload.len(), REPLY, 0);
    bytes.extend(payload);
    let _ = stream.write_all(&bytes);
}

/// Answers the version request as a server should.
fn greet(stream: &mut UnixStream) {
    let Some((id, command, payload)) = request(stream) else { return };
    assert_eq!(command, VERSION);
    reply(stream, id, command, &payload);
}

/// Keeps a connection open until the client closes it.
fn hold(mut stream: UnixStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn a_server_that_closes_the_connection_is_an_error() {
    opening("closed at once", drop);
    opening("closed after the greeting came", |mut stream| drop(request(&mut stream)));
    opening("closed in the middle of a header", |mut stream| {
        let (id, ..) = request(&mut stream).unwrap();
        stream.write_all(&header(id, VERSION, 100, REPLY, 0)[..7]).unwrap();
    });
    opening("closed in the middle of a payload", |mut stream| {
        let (id, ..) = request(&mut stream).unwrap();
        let mut bytes = header(id, VERSION, 100, REPLY, 0);
        bytes.extend([0; 10]);
        stream.write_all(&bytes).unwrap();
    });
    opening("closed after the greeting", |mut stream| greet(&mut stream));
    opening("closed in the middle of what it is", |mut stream| {
        greet(&mut stream);
        let (id, command, payload) = request(&mut stream).unwrap();
        let mut bytes = header(id, command, 16 + payload.len(), REPLY, 0);
        bytes.push(0);
        stream.write_all(&bytes).unwrap();
    });
}

#[test]
fn a_server_that_never_answers_fails_in_time() {
    opening("silent from the start", hold);
}

#[test]
fn a_server_that_falls_silent_fails_in_time() {
    opening("silent after the greeting", |mut stream| {
        greet(&mut stream);
        hold(stream);
    });
}

#[test]
fn a_reply_a_byte_at_a_time_fails_in_time() {
    opening("a drop at a time", |mut stream| {
        let (id, ..) = request(&mut stream).unwrap();
        let mut bytes = header(id, VERSION, 4096, REPLY, 0);
        bytes.extend([b' '; 4080]);
        for byte in bytes {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            // Slow on purpose: each byte is a sign of life, but the deadline is for the whole answer.
            thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn a_server_that_lies_about_its_device_is_an_error() {
    // Every request gets an answer: an error, zeroes, ones or random bytes, of the right length or not.
    for seed in 0..12_u64 {
        opening("lies", move |mut stream| {
            greet(&mut stream);
            let mut random = seeded(seed);
            while let Some((id, command, payload)) = request(&mut stream) {
                let len = match seed % 3 {
                    0 => payload.len(),
                    1 => payload.len() + random.below(64),
                    _ => random.below(128),
                };
                let mut answer = vec![0; len];
                match seed / 3 {
                    0 => {}
                    1 => answer.fill(0xff),
                    2 => answer.fill_with(|| random.next() as u8),
                    _ => {
                        let _ = stream.write_all(&header(id, command, 16, REPLY | ERROR, 5));
                        continue;
                    }
                }
                reply(&mut stream, id, command, &answer);
            }
        });
    }
}

/// Starts a server; returns it, a controller over it and the first namespace.
fn served(options: ControllerBuilder) -> Option<(Server, Controller, Namespace)> {
    if !Server::is_built() && !upcie_tests::is_ci() {
        left_out("nvme-emu is not built");
        return None;
    }
    let server = Server::start("size=64M");
    let controller = options.open(server.address()).unwrap();
    let namespace = namespaces(&controller).remove(0).0;
    Some((server, controller, namespace))
}

#[test]
fn a_server_killed_under_load_is_an_error() {
    for interrupt in [false, true] {
        let options = Controller::builder().timeout(Duration::from_secs(2));
        let Some((mut server, controller, namespace)) = served(options) else { return };
        let start = Instant::now();
        let mut builder = controller.queue_pair().depth(64);
        if interrupt {
            builder = builder.interrupt(1);
        }
        let mut queue = create::<u64>(builder);
        let mut turn = queue.turn().unwrap();
        while turn.room() > 0 {
            turn.read(&namespace, 0, controller.alloc(4096).unwrap(), 0).unwrap();
        }
        drop(turn);
        let how = if interrupt { Wait::Interrupt } else { Wait::Poll };
        let (mut rounds, error) =
            (0, loop_until_error(&mut server, &controller, &namespace, &mut queue, how));
        assert!(
            matches!(error.failure(), Failure::Core(_) | Failure::Gone { .. } | Failure::Timeout { .. }),
            "{error:?}"
        );
        upcie_tests::says(&error, &["vfio-user:"]);
        // Every other call fails as well, with a message.
        let mut buffer = controller.alloc(4096).unwrap();
        for result in
            [namespace.read(0, &mut buffer), controller.namespace_ids().map(drop), namespace.flush()]
        {
            rounds += usize::from(result.is_err());
        }
        assert_eq!(rounds, 3, "errors");
        let address = server.address();
        within(OPEN, move || drop((queue, namespace, controller)));
        assert!(start.elapsed() < deadline() + OPEN);
        // The socket still exists, but nobody listens.
        assert!(Controller::open(&address).is_err());
    }
}

fn loop_until_error(
    server: &mut Server,
    controller: &Controller,
    namespace: &Namespace,
    queue: &mut upcie_nvme::QueuePair<u64>,
    how: Wait,
) -> Error {
    let end = Instant::now() + deadline();
    let mut done = 0;
    loop {
        assert!(Instant::now() < end, "no error within the deadline");
        match queue.wait(how, Duration::from_millis(200)) {
            Ok(_) => {}
            Err(error) => return error,
        }
        let mut turn = queue.turn().unwrap();
        while let Some(completion) = turn.next() {
            let (tag, _, buffer) = completion.into_parts();
            turn.read(namespace, 0, buffer, tag).unwrap();
            done += 1;
        }
        drop(turn);
        if done > 500 {
            done = 0;
            server.process().kill();
            let _ = controller;
        }
    }
}

#[test]
fn a_server_that_stops_under_load_fails_in_time() {
    let options = Controller::builder().timeout(Duration::from_secs(1));
    let Some((mut server, controller, namespace)) = served(options) else { return };
    let mut buffer = controller.alloc(4096).unwrap();
    namespace.write(0, &mut buffer).unwrap();
    server.process().signal(Signal::SIGSTOP);
    let start = Instant::now();
    let error = namespace.read(0, &mut buffer).unwrap_err();
    assert!(start.elapsed() < deadline(), "{:?}", start.elapsed());
    // Either the buffer is back, or the error says that it is lost.
    match error.failure() {
        Failure::Timeout { kept: true, .. } => assert!(buffer.is_empty()),
        failure => assert!(!buffer.is_empty() || matches!(failure, Failure::Core(_)), "{error}"),
    }
    upcie_tests::says(&error, &["vfio-user:"]);
    server.process().signal(Signal::SIGCONT);
    within(2 * OPEN, move || drop((namespace, controller)));
    // A new user finds the server in order.
    Controller::open(server.address()).unwrap();
}
