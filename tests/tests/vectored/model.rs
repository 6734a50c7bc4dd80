//! Transfers of any segments in each way, against a model of the blocks.

use proptest::{prelude::*, test_runner::TestCaseError};
use upcie_nvme::{
    Controller, Direction, DmaBuf, Failure, Io, Namespace, QueuePair, Refusal,
    queue::{SegmentFault, SglUse},
};
use upcie_tests::io::{create, only, read};

/// The first block of all transfers.
pub const SLBA: u64 = 40;
/// The bytes of the allocation that a segment is cut from.
const ROOM: usize = 16 << 10;

/// A segment of `len` bytes from `offset` on, in an allocation of its own or behind the segment before.
#[derive(Debug, Clone)]
pub struct Shape {
    pub offset: usize,
    pub len: usize,
    pub follows: bool,
}

/// The way in which a transfer is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    /// A gathered buffer, owned by the command.
    Gathered,
    /// A chain without a table of its addresses.
    Chained,
    /// Ranges of memory that stays here.
    Held,
    /// A blocking call.
    Blocking,
}

pub fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let offset = prop_oneof![
        3 => (0..3_usize).prop_map(|page| page * 4096),
        2 => (0..1024_usize).prop_map(|dword| dword * 4),
        1 => 0..8192_usize,
    ];
    let len = prop_oneof![
        3 => Just(4096_usize),
        2 => (1..=16_usize).prop_map(|block| block * 512),
        1 => (1..=1024_usize).prop_map(|dword| dword * 4),
        2 => 1..6000_usize,
    ];
    let shape = (offset, len, prop::bool::weighted(0.2)).prop_map(|(offset, len, follows)| Shape {
        offset,
        len,
        follows,
    });
    proptest::collection::vec(shape, 1..14)
}

/// Makes buffers of these shapes, and a last one that fills a block up.
fn make(controller: &Controller, shapes: &[Shape], block: usize) -> Vec<DmaBuf> {
    let mut buffers: Vec<DmaBuf> = Vec::new();
    let mut total = 0;
    let alloc = |offset: usize, len: usize| {
        let whole = controller.heap().alloc_aligned(ROOM, 4096).unwrap();
        whole.slice(offset..offset + len)
    };
    for Shape { offset, len, follows } in shapes {
        total += len;
        match buffers.pop() {
            // Both are cut from one allocation: side by side.
            Some(last) if *follows && last.len() + len <= ROOM => {
                let (first, second) = alloc(0, last.len() + len).split_at(last.len());
                buffers.extend([first, second]);
            }
            last => {
                buffers.extend(last);
                buffers.push(alloc(*offset, *len));
            }
        }
    }
    let rest = total.next_multiple_of(block) - total;
    if rest > 0 {
        buffers.push(alloc(0, rest));
    }
    buffers.iter_mut().for_each(|buffer| buffer.fill(0xee));
    buffers
}

/// Computes the driver's answer from the addresses alone: the number of the segment that does not fit.
fn misfit(buffers: &[DmaBuf], usage: SglUse, page: u64, sgls: u32) -> Option<u32> {
    let spans: Vec<_> = buffers.iter().map(|b| (b.iova(0), b.iova(b.len() - 1) + 1)).collect();
    let joins = |pair: &[(u64, u64)]| pair[0].1 == pair[1].0 || (pair[0].1 | pair[1].0).is_multiple_of(page);
    let odd = match spans.windows(2).position(|pair| !joins(pair)) {
        _ if spans[0].0 % 4 != 0 => Some(0),
        odd => odd.map(|before| before as u32 + 1),
    };
    assert!(matches!(sgls & 3, 0 | 1), "a controller with dwords alone has a test of its own");
    match usage {
        SglUse::Never => odd,
        _ if sgls & 3 == 0 => odd,
        _ => None,
    }
}

pub fn bytes(buffers: &[DmaBuf]) -> Vec<u8> {
    buffers.iter().flat_map(DmaBuf::to_vec).collect()
}

pub fn set(buffers: &mut [DmaBuf], mut data: &[u8]) {
    for buffer in buffers {
        let (mine, rest) = data.split_at(buffer.len());
        buffer.write_at(0, mine);
        data = rest;
    }
}

/// A controller, a queue for each use of SGLs, and the model of the first bytes of a namespace.
pub struct Setup {
    controller: Controller,
    pub namespace: Namespace,
    queues: Vec<(SglUse, QueuePair<u64>)>,
    model: Vec<u8>,
    writes: u8,
}

impl Setup {
    pub fn new(controller: &Controller, namespace: Namespace) -> Self {
        let mut uses = vec![SglUse::Never, SglUse::WhereNeeded];
        if controller.identify().supports_sgls() {
            uses.extend([SglUse::Always, SglUse::Beyond(3)]);
        }
        let queue = |usage| (usage, create(controller.queue_pair().depth(8).sgl(usage)));
        let block = namespace.block_size();
        let model = read(controller, &namespace, 0, (SLBA as usize * block + 256 * 1024) / block);
        Self {
            controller: controller.clone(),
            namespace,
            queues: uses.into_iter().map(queue).collect(),
            model,
            writes: 0,
        }
    }

    /// Makes a transfer; returns the buffers, and the reason if it was refused.
    fn transfer(
        &mut self,
        at: usize,
        by: By,
        direction: Direction,
        mut buffers: Vec<DmaBuf>,
    ) -> (Vec<DmaBuf>, Result<(), Refusal>) {
        let Self { namespace, queues, .. } = self;
        let queue = &mut queues[at].1;
        let io = Io::new(direction, &*namespace, SLBA);
        match by {
            By::Gathered | By::Chained => {
                let buffer = match by {
                    By::Gathered => DmaBuf::gather(buffers),
                    _ => buffers.into_iter().rev().fold(DmaBuf::empty(), |chain, mut buffer| {
                        if !chain.is_empty() {
                            buffer.chain(chain);
                        }
                        buffer
                    }),
                };
                match queue.turn().unwrap().submit(io, buffer, 7) {
                    Ok(()) => {}
                    Err(refused) => return (refused.buffer.into_segments(), Err(refused.reason)),
                }
                let (tag, buffer) = only(queue);
                assert_eq!(tag, 7);
                (buffer.into_segments(), Ok(()))
            }
            By::Held => {
                let segments: Vec<_> = buffers.iter().map(|buffer| (buffer, 0..buffer.len())).collect();
                // SAFETY: the command is waited for before the buffers are looked at.
                let sent = unsafe { queue.turn().unwrap().submit_vectored_held(io, &segments, 8) };
                let sent = sent.map_err(|refused| refused.reason);
                if sent.is_ok() {
                    only(queue);
                }
                (buffers, sent)
            }
            By::Blocking => {
                let done = match direction {
                    Direction::Read => namespace.read_vectored(SLBA, &mut buffers),
                    Direction::Write => namespace.write_vectored(SLBA, &mut buffers),
                };
                let done = done.map_err(|error| match error.failure() {
                    Failure::Refused { reason, .. } => *reason,
                    _ => panic!("{error}"),
                });
                (buffers, done)
            }
        }
    }

    pub fn check(&mut self, shapes: &[Shape], choice: usize, by: By) -> Result<(), TestCaseError> {
        let (block, page) = (self.namespace.block_size(), self.controller.page_size() as u64);
        let at = choice % self.queues.len();
        // The blocking calls use SGLs where they are needed.
        let usage = if by == By::Blocking { SglUse::WhereNeeded } else { self.queues[at].0 };
        let mut buffers = make(&self.controller, shapes, block);
        let places: Vec<_> = buffers.iter().map(DmaBuf::as_ptr).collect();
        let total: usize = buffers.iter().map(DmaBuf::len).sum();
        let range = SLBA as usize * block..SLBA as usize * block + total;
        let sgls = self.controller.identify().sgls;
        let wanted = match misfit(&buffers, usage, page, sgls) {
            _ if total > self.namespace.max_transfer() && by != By::Blocking => Err(Refusal::TooLong),
            None => Ok(()),
            Some(_) if buffers.len() == 1 && by != By::Held => Err(Refusal::Unaligned),
            Some(number) => Err(Refusal::Segment { number, fault: SegmentFault::Unaligned }),
        };
        self.writes = self.writes.wrapping_add(1);
        let data: Vec<u8> = (0..total).map(|at| (at as u32 >> 8 ^ at as u32) as u8 ^ self.writes).collect();
        for direction in [Direction::Write, Direction::Read] {
            set(&mut buffers, &data);
            if direction == Direction::Read {
                buffers.iter_mut().for_each(|buffer| buffer.fill(0xee));
            }
            let before = bytes(&buffers);
            let (back, sent) = self.transfer(at, by, direction, buffers);
            buffers = back;
            prop_assert_eq!(sent, wanted, "{:?} {:?} {:?}", by, usage, direction);
            prop_assert_eq!(buffers.iter().map(DmaBuf::as_ptr).collect::<Vec<_>>(), places.clone());
            match (direction, sent) {
                (_, Err(_)) => prop_assert!(bytes(&buffers) == before, "a refused buffer is unchanged"),
                (Direction::Write, Ok(())) => self.model[range.clone()].copy_from_slice(&data),
                (Direction::Read, Ok(())) => {
                    prop_assert!(bytes(&buffers) == self.model[range.clone()], "other bytes than the blocks");
                }
            }
            let all = read(&self.controller, &self.namespace, 0, self.model.len() / block);
            prop_assert!(all == self.model, "the blocks are not as they should be");
        }
        // The bytes around each segment in its allocation.
        for buffer in buffers {
            if let Ok(whole) = buffer.try_reunite() {
                prop_assert!(
                    whole.to_vec().iter().filter(|&&byte| byte != 0).count() <= total,
                    "bytes around"
                );
            }
        }
        Ok(())
    }
}
