//! A server against clients that send any bytes.

use super::{
    sockets::{Scratch, connect, serving},
    *,
};
use crate::testing::Random;
use std::{io::Write, net::Shutdown};

impl Random {
    /// Returns a number that is often a boundary value.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => 0x1000 * self.below(32) as u64,
            4 => 0,
            _ => self.below(64) as u64,
        }
    }

    /// Returns a payload of a few fields, rarely with the right length.
    fn payload(&mut self) -> Vec<u8> {
        let mut payload = Vec::new();
        for _ in 0..self.below(7) {
            if self.below(2) == 0 {
                payload.extend_from_slice(&self.number().to_le_bytes());
            } else {
                payload.extend_from_slice(&(self.number() as u32).to_le_bytes());
            }
        }
        payload
    }
}

impl Raw {
    /// Negotiates the version, and returns whether the server accepts.
    fn try_negotiate(&mut self) -> bool {
        let version = Header { command: command::VERSION, ..Header::default() };
        let sent = self.0.send(message(version, &[&[0; 4]]), &[]);
        sent.is_ok() && self.0.recv(soon()).is_ok_and(|reply| reply.header.flags & flags::ERROR == 0)
    }

    /// Receives answers, so that more requests fit, and answers most of the server's requests. Returns the number of
    /// answers received.
    fn drain(&mut self, random: &mut Random) -> usize {
        let mut answers = 0;
        while let Ok(Some(asked)) = self.0.try_recv() {
            if asked.header.is_reply() {
                answers += 1;
            } else if random.below(4) > 0 {
                let header = Header { flags: flags::REPLY, ..asked.header };
                let _ = self.0.send(message(header, &[&random.payload()]), &[]);
            }
        }
        answers
    }
}

#[test]
fn a_server_survives_any_bytes() {
    let scratch = Scratch::new("fuzz");
    let path = scratch.socket();
    let file = Memory::new(0x10000, PageSize::Small).unwrap().shared();
    let mut random = Random(0x5eed);
    serving(&path, || {
        let mut handled = 0;
        for _ in 0..150 {
            let mut stream = UnixStream::connect(&path).unwrap();
            let mut raw = Raw::new(stream.try_clone().unwrap());
            if random.below(8) > 0 {
                // The previous client may still be connected.
                while !raw.try_negotiate() {
                    stream = UnixStream::connect(&path).unwrap();
                    raw = Raw::new(stream.try_clone().unwrap());
                }
            }
            for _ in 0..random.below(60) {
                let payload = random.payload();
                let header = Header {
                    id: random.next() as u16,
                    command: random.below(20) as u16,
                    flags: if random.below(64) == 0 { random.next() as u32 } else { 0 },
                    ..Header::default()
                };
                let mut bytes = message(header, &[&payload]);
                if random.below(64) == 0 {
                    let at = random.below(bytes.len());
                    bytes[at] = random.next() as u8;
                }
                let count = if random.below(64) == 0 { 12 } else { [0, 0, 0, 1, 1, 8][random.below(6)] };
                let fds = vec![file.shared_file().unwrap(); count];
                if raw.0.send(bytes, &fds).is_err() {
                    break;
                }
                handled += raw.drain(&mut random);
            }
            let _ = stream.write_all(&[0xff; 11][..random.below(11)]);
            // All bytes arrive before the end.
            let _ = stream.shutdown(Shutdown::Write);
            while let Ok(message) = raw.0.recv(soon()) {
                handled += usize::from(message.header.is_reply());
            }
        }
        assert!(handled > 1000, "most of it got through: {handled}");
        // The server may not have noticed the last client's end yet.
        let end = soon();
        let client = loop {
            match connect(&path) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
        };
        reset(&*client).unwrap();
    });
}
