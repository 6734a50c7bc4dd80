//! A second user is refused: of a PCI function by the kernel or a lock, of a file by its lock, of a device
//! behind a socket by its server.

use nix::sys::signal::Signal;
use upcie_nvme::Controller;
use upcie_tests::{
    device::namespaces,
    io::{read, write},
    left_out, on_each_device,
    process::{Directory, Process, Server, again, role},
    says,
};

fn is_built() -> bool {
    let built = Server::is_built() || upcie_tests::is_ci();
    if !built {
        left_out("nvme-emu is not built");
    }
    built
}

#[test]
fn a_function_has_one_user() {
    const NAME: &str = "a_function_has_one_user";
    if let Some(role) = role() {
        let (holder, address) = role.split_once(' ').unwrap();
        let error = Controller::open(address).unwrap_err();
        let function = address.split_once(':').map_or(address, |(_, function)| function);
        return says(&error, &[function, "in use", &format!("by process {holder}")]);
    }
    on_each_device(|device| {
        // Each `emu` is a new controller; the tests below cover sockets.
        if device.address().bdf().is_none() {
            return;
        }
        let controller = device.open();
        says(&Controller::open(device.address()).unwrap_err(), &["in use by this process"]);
        let role = format!("{} {}", std::process::id(), device.address());
        let (status, said) = Process::start(again(NAME, &role)).finish();
        assert!(status.success(), "{status}: {said}");
        // The first user does not notice, and after it has left another one may come.
        controller.namespace_ids().unwrap();
        drop(controller);
        device.open();
    });
}

#[test]
fn a_file_has_one_server() {
    if !is_built() {
        return;
    }
    let directory = Directory::new();
    let options = format!("size=8M,file={}/disk", directory.path().display());
    let server = Server::start(&options);
    let error = Server::try_start(&options).expect_err("a second server");
    assert!(error.contains("disk") && error.contains("use"), "{error}");
    // An embedded controller in this process is refused as well.
    let error = Controller::open(format!("emu:{options}")).unwrap_err();
    says(&error, &["disk", "use"]);
    // The first server still works, and the next one finds its data.
    {
        let controller = Controller::open(server.address()).unwrap();
        let (namespace, pattern) = namespaces(&controller).remove(0);
        let mut buffer = controller.alloc(8192).unwrap();
        pattern.fill(&mut buffer, 3, 1);
        write(&namespace, 3, &mut buffer);
        namespace.flush().unwrap();
    }
    drop(server);
    let server = Server::start(&options);
    let controller = Controller::open(server.address()).unwrap();
    let (namespace, pattern) = namespaces(&controller).remove(0);
    pattern.verify(&read(&controller, &namespace, 3, 16), 3, 1);
}

#[test]
fn a_file_has_one_embedded_controller() {
    let directory = Directory::new();
    let address = format!("emu:size=8M,file={}/disk", directory.path().display());
    let first = Controller::open(&address).unwrap();
    says(&Controller::open(&address).unwrap_err(), &["disk", "use"]);
    drop(first);
    Controller::open(&address).unwrap();
}

#[test]
fn a_socket_has_one_client() {
    if !is_built() {
        return;
    }
    let mut server = Server::start("size=8M");
    let first = Controller::open(server.address()).unwrap();
    for _ in 0..3 {
        let error = Controller::open(server.address()).unwrap_err();
        says(&error, &["vfio-user:", "client"]);
        // The first client does not notice.
        first.namespace_ids().unwrap();
    }
    drop(first);
    Controller::open(server.address()).unwrap();
    server.process().signal(Signal::SIGTERM);
}

/// A second driver is refused: two drivers of one device would ring each other's doorbells.
#[test]
fn a_device_has_one_driver() {
    let options = Controller::builder;
    on_each_device(|device| {
        let opened = device.transport();
        let name = opened.name().to_owned();
        let first = options().from_device(opened.clone()).unwrap();
        for _ in 0..2 {
            let error = options().from_device(opened.clone()).unwrap_err();
            says(&error, &[&name, "a driver in this process has it already"]);
            first.namespace_ids().unwrap();
        }
        // Each handle that a driver has made keeps the device.
        let queue = first.queue_pair().create::<u64>().unwrap();
        drop(first);
        options().from_device(opened.clone()).unwrap_err();
        drop(queue);
        let second = options().from_device(opened).unwrap();
        second.namespace_ids().unwrap();
    });
}

/// A process opens a device once, by whatever address.
#[test]
fn a_function_is_opened_once_by_any_address() {
    on_each_device(|device| {
        let Some(function) = device.address().bdf() else { return };
        let controller = device.open();
        for form in ["", "vfio:", "iommufd:", "noiommu:", "uio:", "sysfs:"] {
            let address = format!("{form}{function}");
            let error = Controller::open(&address).unwrap_err();
            says(&error, &[&function.to_string()]);
            let error = Controller::builder().open_beside(&controller, &address).unwrap_err();
            says(&error, &[&function.to_string()]);
        }
        controller.namespace_ids().unwrap();
    });
}
