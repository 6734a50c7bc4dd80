//! Key value namespaces under test: where they are opened, keys, values, and the outcome of a command.

use crate::process::Server;
use upcie_nvme::{
    Controller, DmaBuf, Error, Failure, KeyValue, Refusal,
    spec::{Csi, Key, Status},
};

/// A namespace with blocks, then one with keys; and one with keys alone, without scatter gather lists.
pub const OPTIONS: [&str; 2] = [
    "size=1M,namespaces=2,kv=false+true,kv-key=8,kv-value=12K,kv-keys=40,mdts=16K",
    "size=64K,kv=true,mdts=16K,sgl=false",
];

/// Makes a key of these bytes.
///
/// # Panics
/// Panics if a key can't have as many.
pub fn key(bytes: impl AsRef<[u8]>) -> Key {
    Key::new(bytes.as_ref()).unwrap()
}

/// Returns the keys of the first key value namespace.
///
/// # Panics
/// Panics if there is none.
pub fn keys(controller: &Controller) -> KeyValue {
    let all = controller.namespaces().unwrap();
    let namespace = all.into_iter().find(|namespace| namespace.command_set() == Csi::KEY_VALUE);
    namespace.expect("a key value namespace").keys().unwrap()
}

/// Opens an embedded controller with these options, and the keys of its first key value namespace.
///
/// # Panics
/// Panics if that fails.
pub fn open(options: &str) -> (Controller, KeyValue) {
    let controller = Controller::open(format!("emu:{options}")).unwrap();
    let keys = keys(&controller);
    (controller, keys)
}

/// Runs a check on the embedded controller and on a server of its own.
///
/// # Panics
/// Panics if one of them does not start.
pub fn on_each(check: impl Fn(&Controller, &KeyValue)) {
    for options in OPTIONS {
        println!("emu:{options}");
        let (controller, keys) = open(options);
        check(&controller, &keys);
    }
    let server = Server::start(OPTIONS[0]);
    println!("nvme-emu {}", OPTIONS[0]);
    let controller = Controller::open(server.address().to_string()).unwrap();
    check(&controller, &keys(&controller));
}

/// Returns the bytes of a value: each of its length and version.
pub fn value(len: usize, version: u64) -> Vec<u8> {
    (0..len as u64).map(|at| (at ^ at >> 8 ^ version.wrapping_mul(0x35)) as u8).collect()
}

/// Allocates a buffer that holds these bytes; for none, the empty buffer.
///
/// # Panics
/// Panics if memory is short.
pub fn buffer(controller: &Controller, bytes: &[u8]) -> DmaBuf {
    if bytes.is_empty() {
        return DmaBuf::empty();
    }
    let mut buffer = controller.alloc(bytes.len()).unwrap();
    buffer.write_at(0, bytes);
    buffer
}

/// Returns the status that the controller has answered with.
///
/// # Panics
/// Panics if the command was not sent.
#[track_caller]
pub fn status<T>(result: Result<T, Error>) -> Status {
    match result {
        Ok(_) => Status::SUCCESS,
        Err(error) => error.status().unwrap_or_else(|| panic!("{error}")),
    }
}

/// Returns the reason why a command was refused.
///
/// # Panics
/// Panics if it was sent.
#[track_caller]
pub fn refusal<T>(result: Result<T, Error>) -> Refusal {
    let Err(error) = result else { panic!("it was sent") };
    match error.failure() {
        Failure::Refused { reason, .. } => *reason,
        other => panic!("{other:?}"),
    }
}

/// Returns key `index` of a pool, some of which differ by zeros at their end alone.
///
/// # Panics
/// Panics if `index` is 256 or more.
pub fn pool(index: usize) -> Key {
    match index % 4 {
        0 => key([index as u8]),
        1 => key([index as u8 - 1, 0]),
        2 => key(format!("key{index}")),
        _ => key([[0xff; 7].as_slice(), &[index as u8]].concat()),
    }
}
