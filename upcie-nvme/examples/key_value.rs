//! Stores values with several commands in flight, lists their keys, and retrieves one: a namespace of the key value command
//! set has no blocks.
//!
//! Run it with a device that has a key value namespace, or with `emu:size=4M,kv=true`. It stores under keys that begin with
//! `example:`, and deletes them.

use std::{error::Error, time::Duration};
use upcie_nvme::{Controller, KeyCommand, Wait, spec::Csi, spec::Key, spec::Status, spec::StoreOptions};

const RECORDS: u32 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("emu:size=4M,kv=true".into());
    let controller = Controller::open(&address)?;
    let all = controller.namespaces()?;
    let Some(namespace) = all.iter().find(|namespace| namespace.command_set() == Csi::KEY_VALUE) else {
        println!("{address}: no namespace has keys; try emu:size=4M,kv=true");
        return Ok(());
    };
    let keys = namespace.keys()?;
    println!("{namespace}: keys of {} bytes, values of {}", keys.max_key(), keys.max_value());

    let mut queue = controller.queue_pair().depth(RECORDS + 1).create()?;
    let mut turn = queue.turn()?;
    for record in 0..RECORDS {
        let key = Key::new(format!("example:{record}").as_bytes())?;
        let text = format!("record {record}, of a length of its own{}", "!".repeat(record as usize));
        let mut value = controller.alloc(text.len())?;
        value.write_at(0, text.as_bytes());
        turn.submit_key(KeyCommand::store(&keys, key), value, key)?;
    }
    drop(turn); // rings the doorbell once

    let mut stored = Vec::new();
    while stored.len() < RECORDS as usize {
        if !queue.wait(Wait::Poll, Duration::from_secs(30))? {
            return Err("no completion came".into());
        }
        for done in queue.turn()? {
            let (key, result, _) = done.into_parts();
            result?;
            stored.push(key);
        }
    }

    // An addition under a key that exists is refused by the controller, and changes nothing.
    let first = Key::new(b"example:0")?;
    let again = keys.store_bytes(first, b"other", StoreOptions::MUST_NOT_EXIST);
    assert_eq!(again.unwrap_err().status(), Some(Status::KEY_EXISTS));

    for key in keys.list(Some(first), RECORDS as usize)? {
        let value = keys.retrieve_bytes(key)?;
        println!("{key}: {}", String::from_utf8_lossy(&value));
    }
    // A value that is longer than its buffer: the beginning, and the length of the whole.
    let mut beginning = controller.alloc(8)?;
    let len = keys.retrieve(first, &mut beginning)?;
    assert_eq!(beginning.to_vec(), b"record 0");
    println!("{first} has {len} bytes");

    for key in stored {
        keys.delete(key)?;
    }
    assert!(!keys.exists(first)?);
    Ok(())
}
