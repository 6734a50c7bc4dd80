//! DMA of one controller to and from another controller's memory: through the driver, and by `upcie p2p`.

mod vfio_device;

use serde_json::Value;
use std::{fs, process::Command};
use upcie_core::device::Address;
use upcie_nvme::{Controller, DmaBuf, Refusal};
use upcie_tests::{
    data::Pattern,
    device::namespaces,
    io::{create, only, read, write},
    process::programs,
    says, seeded,
};
use vfio_device::bdf;

const LEN: usize = 64 << 10;

fn vfio(index: usize) -> Address {
    Address::Vfio(bdf(index))
}

/// Opens A, which has a CMB, and B in A's address space.
fn both() -> (Controller, Controller) {
    let a = Controller::open(vfio(0)).unwrap();
    let b = Controller::builder().open_beside(&a, vfio(1)).unwrap();
    (a, b)
}

fn bytes(buffer: &DmaBuf) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.read_at(0, &mut bytes);
    bytes
}

#[test]
fn dma_arrives_in_the_other_controllers_memory() {
    let (a, b) = both();
    let memory = a.cmb().unwrap().expect("A has one");
    memory.check_peers().unwrap();
    assert!(b.cmb().unwrap().is_none());
    for (namespace, pattern) in namespaces(&b) {
        let blocks = LEN / namespace.block_size();
        let mut host = b.alloc(LEN).unwrap();
        pattern.fill(&mut host, 7, 1);
        write(&namespace, 7, &mut host);
        // B reads its blocks into A's memory.
        let mut queue = create::<()>(b.queue_pair());
        queue.turn().unwrap().read(&namespace, 7, memory.alloc(LEN).unwrap(), ()).unwrap();
        let (_, mut buffer) = only(&mut queue);
        pattern.verify(&bytes(&buffer), 7, 1);
        // A writes them from there to its own blocks.
        let (own, _) = namespaces(&a).remove(0);
        write(&own, 100, &mut buffer);
        let copied = read(&a, &own, 100, LEN / own.block_size());
        pattern.verify(&copied, 7, 1);
        // B writes data that the processor put into A's memory.
        buffer.write_at(0, &pattern.bytes(500, blocks, 2));
        queue.turn().unwrap().write(&namespace, 500, buffer, ()).unwrap();
        only(&mut queue);
        pattern.verify(&read(&b, &namespace, 500, blocks), 500, 2);
    }
}

#[test]
fn either_controller_can_close_first() {
    for first_to_close in [0, 1] {
        let (a, b) = both();
        let memory = a.cmb().unwrap().unwrap();
        let mut buffer = memory.alloc(LEN).unwrap();
        let mut both = [Some(a), Some(b)];
        both[first_to_close] = None;
        let left = both[1 - first_to_close].take().unwrap();
        let (namespace, pattern) = namespaces(&left).remove(0);
        let blocks = LEN / namespace.block_size();
        let mut host = left.alloc(LEN).unwrap();
        pattern.fill(&mut host, 0, 9);
        write(&namespace, 0, &mut host);
        // The buffer still has its own address, which may lead nowhere: the command ends, and no memory of
        // the host is hit.
        let _ = namespace.read(0, &mut buffer);
        pattern.verify(&read(&left, &namespace, 0, blocks), 0, 9);
    }
    both();
}

#[test]
fn memory_of_a_controller_in_another_space_is_refused() {
    let a = Controller::open(vfio(0)).unwrap();
    let b = Controller::open(vfio(1)).unwrap();
    let buffer = a.cmb().unwrap().unwrap().alloc(4096).unwrap();
    let (namespace, _) = namespaces(&b).remove(0);
    let mut queue = create::<()>(b.queue_pair());
    let refused = queue.turn().unwrap().read(&namespace, 0, buffer, ()).unwrap_err();
    assert_eq!(refused.reason, Refusal::ForeignBuffer);
    let mut buffer = refused.buffer;
    says(&namespace.read(0, &mut buffer).unwrap_err(), &["another device's address space"]);
    assert_eq!(buffer.len(), 4096);
}

#[test]
fn iommufd_refuses_device_memory_with_advice() {
    let address = Address::Iommufd(bdf(0));
    let a = Controller::open(&address).unwrap();
    let memory = a.cmb().unwrap().expect("its own commands can use it");
    let (namespace, pattern): (_, Pattern) = namespaces(&a).remove(0);
    let mut buffer = memory.alloc(4096).unwrap();
    buffer.write_at(0, &pattern.bytes(3, 8, 4));
    write(&namespace, 3, &mut buffer);
    pattern.verify(&read(&a, &namespace, 3, 8), 3, 4);
    says(
        &memory.check_peers().unwrap_err(),
        &[a.name(), "other devices can't reach its memory buffer", "`vfio:`"],
    );
}

/// Runs `upcie`; returns its exit code, stdout and stderr.
fn upcie(arguments: &[&str]) -> (i32, String, String) {
    println!("upcie {}", arguments.join(" "));
    let output = Command::new(programs().join("upcie")).args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (code, stdout, stderr) = (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr));
    println!("exit code {code}\n{stdout}{stderr}");
    (code, stdout, stderr)
}

fn succeeds(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = upcie(arguments);
    assert_eq!(code, 0, "{stderr}");
    stdout
}

#[test]
fn p2p_copies_between_controllers() {
    let (a, b) = (bdf(0).to_string(), bdf(1).to_string());
    let directory = std::env::temp_dir();
    let path = |name: &str| directory.join(format!("upcie-p2p-{name}")).display().to_string();
    let (original, back) = (path("original"), path("back"));
    let mut random = seeded(1);
    let data: Vec<u8> = (0..3 << 17).flat_map(|_| random.next().to_le_bytes()).collect();
    fs::write(&original, &data).unwrap();
    for (from, to, whose, nsid, size) in [
        // A's memory, and sizes that are not multiples of a command's.
        (&a, &b, "from", "1", "3M"),
        (&a, &b, "from", "2", "2100K"),
        // A's memory again, and B stores into it.
        (&b, &a, "to", "1", "3M"),
    ] {
        succeeds(&["write", from, &original, "--destructive"]);
        let wanted = ["--namespace", "1", "--to-namespace", nsid, "--length", size, "--buffer", whose];
        let all =
            [&["p2p", from, to, "--destructive", "--verify", "--json", "--to-offset", "1M"], &wanted[..]];
        let report: Value = serde_json::from_str(&succeeds(&all.concat())).unwrap();
        assert_eq!(report["verified"], true);
        assert_eq!(report["buffer"]["of"], format!("vfio:{a}"));
        let bytes = report["size"].as_u64().unwrap() as usize;
        let copies = report["copies"].as_array().unwrap();
        assert_eq!(copies.len(), 2);
        assert!(copies.iter().all(|copy| copy["bytes"] == bytes && copy["seconds"].as_f64() > Some(0.0)));
        let length = bytes.to_string();
        succeeds(&["read", to, &back, "--offset", "1M", "--length", &length, "--namespace", nsid]);
        assert!(fs::read(&back).unwrap() == data[..bytes], "what arrived is something else");
    }
    let table = succeeds(&["p2p", &a, &b, "--destructive", "--length", "1M", "--depth", "2"]);
    assert!(table.contains("peer-to-peer") && table.contains("host memory"), "{table}");
    fs::remove_file(original).and_then(|()| fs::remove_file(back)).unwrap();
}

#[test]
fn p2p_says_what_is_missing() {
    let (a, b) = (bdf(0).to_string(), bdf(1).to_string());
    let (fd_a, fd_b) = (format!("iommufd:{a}"), format!("iommufd:{b}"));
    for (arguments, words) in [
        (&["p2p", &a, &b][..], &["overwrites", "--destructive"][..]),
        (&["p2p", &a, &a, "--destructive"], &["the same device"]),
        (&["p2p", &a, &b, "--destructive", "--buffer", "to"], &[&b, "no controller memory buffer"]),
        (
            &["p2p", &a, &b, "--destructive", "--to-nsid", "2", "--size", "512"],
            &["4096 bytes", "whole blocks on both sides"],
        ),
        (&["p2p", &a, &b, "--destructive", "--depth", "1024"], &["smaller --depth"]),
        (&["p2p", &fd_a, &fd_b, "--destructive"], &["other devices can't reach", "vfio:"]),
    ] {
        let (code, _, stderr) = upcie(arguments);
        assert_eq!(code, 1);
        for word in words {
            assert!(stderr.contains(word), "{word:?} is not in: {stderr}");
        }
    }
}
