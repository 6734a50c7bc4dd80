//! Two processes: one owns the controller and its queues, the other fills and checks the data, with no copy between them.
//!
//!     cargo run --example shared_memory -- emu
//!
//! The second is this program again. What the two say to each other is theirs: here, three numbers at a time.

use std::{
    env,
    error::Error,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Command,
    time::Duration,
};
use upcie_nvme::{Address, Controller, upcie_core::share::SharedRegion};

const PATIENCE: Duration = Duration::from_secs(30);
const USER: &str = "--user";

/// A request of the user: this code, the buffer's number, and the first block.
const WRITE: u64 = 1;
const READ: u64 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        // The user has the connection in place of its standard input.
        Some(USER) => user(std::io::stdin().as_fd().try_clone_to_owned()?.into()),
        address => owner(&address.unwrap_or("emu").parse()?),
    }
}

/// Owns the controller, and never looks at the data.
fn owner(address: &Address) -> Result<(), Box<dyn Error>> {
    let controller = Controller::open(address)?;
    let namespace = controller.namespace(1)?;
    let (mut connection, theirs) = UnixStream::pair()?;
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut user = Command::new(env::current_exe()?).arg(USER).stdin(OwnedFd::from(theirs)).spawn()?;

    // Memory for both, and buffers in it. Lists, which send the controller somewhere, stay in the owner's own memory.
    let region = controller.heap().space().allocate_shared(1 << 20, None)?;
    region.export(&connection, PATIENCE)?;
    let heap = controller.heap_over(region)?;
    let len = 16 * namespace.block_size();
    let mut buffers = [heap.alloc(len)?, heap.alloc(len)?];
    say(&mut connection, buffers.each_ref().map(|buffer| buffer.offset_in_region() as u64), len as u64)?;

    while let Some([what, buffer, block]) = hear(&mut connection)? {
        let buffer = buffers.get_mut(usize::try_from(buffer)?).ok_or("there are two buffers")?;
        match what {
            WRITE => namespace.write(block, buffer)?,
            READ => namespace.read(block, buffer)?,
            other => return Err(format!("asked for {other}").into()),
        }
        say(&mut connection, [what, block], 0)?;
    }
    match user.wait()?.success() {
        true => Ok(()),
        false => Err("the user has failed".into()),
    }
}

/// Has the data, and no access to any device.
fn user(mut connection: UnixStream) -> Result<(), Box<dyn Error>> {
    connection.set_read_timeout(Some(PATIENCE))?;
    let mut region = SharedRegion::import(&connection, PATIENCE)?;
    let [first, second, len] = hear(&mut connection)?.ok_or("the owner has gone")?;
    let (first, second) = (usize::try_from(first)?, usize::try_from(second)?);
    println!(
        "{} bytes of memory of {}: the controller finds the buffers at {:#x} and {:#x}",
        region.len(),
        region.device(),
        region.iova(first)?,
        region.iova(second)?
    );

    let written: Vec<u8> = (0..len).map(|at| (at * 7 % 251) as u8).collect();
    region.write_at(first, &written)?;
    for request in [[WRITE, 0], [READ, 1]] {
        say(&mut connection, request, 0)?;
        // An owner that dies is seen here, as the end of the connection.
        hear(&mut connection)?.ok_or("the owner has gone")?;
    }
    let mut read = vec![0; written.len()];
    region.read_at(second, &mut read)?;
    assert!(read == written, "other data than was written");
    // Memory outlives its owner; whether that still drives the device is asked for.
    region.check()?;
    println!("{len} bytes written and read back through the owner");
    Ok(())
}

fn say(connection: &mut UnixStream, [a, b]: [u64; 2], c: u64) -> std::io::Result<()> {
    connection.write_all(&[a, b, c].map(u64::to_ne_bytes).concat())
}

/// `None` at the end of the connection.
fn hear(connection: &mut UnixStream) -> std::io::Result<Option<[u64; 3]>> {
    let mut words = [[0; 8]; 3];
    match connection.read_exact(words.as_flattened_mut()) {
        Ok(()) => Ok(Some(words.map(u64::from_ne_bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
