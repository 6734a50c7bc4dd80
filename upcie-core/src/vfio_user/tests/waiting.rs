//! Threads that wait for each other on one connection.

use super::*;
use crate::{Failure, deadline::Budget, vfio_user::client::connection::Connection};
use std::sync::mpsc;

/// Soundness finding 5: a thread that waits behind another's slow request keeps its own deadline, and its timeout does
/// not harm the connection.
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
        for part in ["fake", "setting interrupts: waiting for requests of other threads", "20ms"] {
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
