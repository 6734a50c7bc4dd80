// A buffer's memory gives no file descriptor to write through.
use std::os::fd::{AsFd, OwnedFd};
use upcie_nvme::DmaBuf;

fn descriptor(buffer: &DmaBuf) -> OwnedFd {
    buffer.region().unwrap().memory().unwrap().as_fd().try_clone_to_owned().unwrap()
}

fn main() {
    let _ = descriptor;
}
