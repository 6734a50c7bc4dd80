//! Blocking calls: what is there, one write, one read.
//!
//!     cargo run --example hello -- emu

use upcie_nvme::{Address, Controller};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: Address = std::env::args().nth(1).as_deref().unwrap_or("emu").parse()?;
    let controller = Controller::open(&address)?;
    let identify = controller.identify();
    println!("{}: {} (serial {})", controller.name(), identify.model(), identify.serial());

    for namespace in controller.namespaces()? {
        // Fails with the reason if the namespace can't be used for I/O: metadata, another command set.
        namespace.check_usable()?;
        println!("{namespace}: {} blocks of {} bytes", namespace.blocks(), namespace.block_size());

        // Memory that the controller can reach, zeroed.
        let mut buffer = controller.alloc(namespace.block_size())?;
        buffer.write_at(0, b"hello");
        namespace.write(0, &mut buffer)?;
        namespace.flush()?;

        buffer.fill(0);
        namespace.read(0, &mut buffer)?;
        assert_eq!(&buffer.to_vec()[..5], b"hello");
    }
    // The last handle that goes shuts the controller down.
    Ok(())
}
