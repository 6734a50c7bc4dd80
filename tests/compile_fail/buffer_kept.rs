// A buffer that a command owns can't be looked at.
use upcie_nvme::{DmaBuf, Namespace, Turn};

fn read(turn: &mut Turn<'_, u64>, namespace: &Namespace, buffer: DmaBuf) -> u8 {
    turn.read(namespace, 0, buffer, 0).unwrap();
    buffer.to_vec()[0]
}

fn main() {
    let _ = read;
}
