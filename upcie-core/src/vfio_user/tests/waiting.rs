//! Threads that wait for each other on one connection.

use super::*;
use crate::{Failure, deadline::Budget, vfio_user::client::connection::Connection};
use std::sync::mpsc;

/// A thread that waits behind another's slow request keeps its own deadline, and its timeout does not harm the
/// connection.
#[test]
fn a_thread_behind_a_slow_request_keeps_its_deadline() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ((began, begins), (go_on, goes_on)) = (mpsc::channel(), mpsc::channel());
    let server = std::thread::spawn(move || {
        let mut raw = Raw::new(theirs);
        raw.greet("{}\0");
        let slow = raw.next();
        began.send(()).unwrap();
        goes_on.recv_timeout(SOON).unwrap();
        raw.reply(&slow, &[]);
        let next = raw.next();
        raw.reply(&next, &[]);
        [slow.header.command, next.header.command]
    });
    let connection = Connection::new(ours, "fake".into(), None, 10 * SOON).unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| connection.request(command::RESET, "resetting", &[], &[]));
        begins.recv_timeout(SOON).unwrap();
        let budget = Budget::new(Duration::from_millis(20));
        let error = connection.request(command::SET_IRQS, "setting interrupts", &[], &[]).unwrap_err();
        drop(budget);
        let text = error.to_string();
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{text}");
        for part in ["fake", "setting interrupts: waiting for earlier requests", "20ms"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        // None of these calls waits for the request either.
        connection.forget(0, 0);
        connection.keep(Memory::new(4096, PageSize::Small).unwrap());
        assert!(connection.is_open());
        go_on.send(()).unwrap();
        slow.join().unwrap().unwrap();
    });
    // The connection still works.
    connection.request(command::SET_IRQS, "setting interrupts", &[], &[]).unwrap();
    assert_eq!(server.join().unwrap(), [command::RESET, command::SET_IRQS]);
}

/// A time in which no answer comes.
const LITTLE: Duration = Duration::from_millis(20);

/// Runs a request that has `LITTLE` time, and returns its error.
fn hurried(connection: &Connection, command: u16) -> crate::Error {
    let _budget = Budget::new(LITTLE);
    connection.request(command, "a hurried request", &[], &[]).unwrap_err()
}

/// A read whose caller had no time left for the answer ended the connection for everybody, though the server was well.
#[test]
fn a_late_answer_to_a_query_is_awaited_by_the_next_request() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (go_on, goes_on) = mpsc::channel();
    let server = std::thread::spawn(move || {
        let mut raw = Raw::new(theirs);
        raw.greet("{}\0");
        let late = raw.next();
        goes_on.recv_timeout(SOON).unwrap();
        raw.reply(&late, b"late");
        let next = raw.next();
        raw.reply(&next, b"next");
        [late.header.command, next.header.command]
    });
    let connection = Connection::new(ours, "fake".into(), None, 10 * SOON).unwrap();
    // The second one finds no time to send its request.
    for (command, what) in
        [(command::REGION_READ, "request: its"), (command::SET_IRQS, "earlier requests: its")]
    {
        let error = hurried(&connection, command);
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
        assert!(error.to_string().contains(what) && connection.is_open(), "{error}");
    }
    go_on.send(()).unwrap();
    let reply = connection.request(command::SET_IRQS, "setting interrupts", &[], &[]).unwrap();
    assert_eq!(reply.payload, b"next");
    assert_eq!(server.join().unwrap(), [command::REGION_READ, command::SET_IRQS]);
}

#[test]
fn an_answer_that_never_comes_ends_the_connection() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let mut raw = Raw::new(theirs);
        raw.greet("{}\0");
        let late = raw.next();
        // Receives nothing until the client has given up.
        assert!(raw.0.recv(soon()).is_err());
        late.header.command
    });
    let connection = Connection::new(ours, "fake".into(), None, 15 * LITTLE).unwrap();
    for _ in 0..100 {
        let error = hurried(&connection, command::REGION_READ);
        assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
        if !connection.is_open() {
            break;
        }
    }
    let error = hurried(&connection, command::REGION_READ);
    assert!(matches!(error.failure(), Failure::Unusable { .. }), "{error}");
    assert_eq!(server.join().unwrap(), command::REGION_READ);
}

/// The answer might not come in time, and without it the connection ends.
#[test]
fn a_change_that_leaves_no_time_for_its_answer_is_not_sent() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let mut raw = Raw::new(theirs);
        raw.greet("{}\0");
        let request = raw.next();
        raw.reply(&request, &[]);
        request.header.command
    });
    let connection = Connection::new(ours, "fake".into(), None, 10 * SOON).unwrap();
    let budget = Budget::rest(Duration::from_millis(1), SOON);
    let error = connection.request(command::RESET, "resetting", &[], &[]).unwrap_err();
    drop(budget);
    assert!(matches!(error.failure(), Failure::Timeout { .. }) && connection.is_open(), "{error}");
    connection.request(command::SET_IRQS, "setting interrupts", &[], &[]).unwrap();
    assert_eq!(server.join().unwrap(), command::SET_IRQS);
}
