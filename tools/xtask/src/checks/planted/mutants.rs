//! The bugs to plant.

/// A bug: a text of a source file, and the text in its place.
#[derive(Debug)]
pub struct Mutant {
    /// Says what is wrong.
    pub name: &'static str,
    pub file: &'static str,
    /// A text that the file contains once: an expression, or statements that end with a semicolon.
    pub before: &'static str,
    /// The text in its place while the bug is on. If it contains `$on`, which stands for that condition, it
    /// replaces the text as it is, and `before` may be any text.
    pub after: &'static str,
}

const TURN: &str = "upcie-nvme/src/engine/turn.rs";
const TURN_END: &str = "upcie-nvme/src/engine/turn_end.rs";
const RING: &str = "upcie-nvme/src/engine/ring.rs";
const FILL: &str = "upcie-nvme/src/engine/fill.rs";
const RETURNED: &str = "upcie-nvme/src/engine/returned.rs";
const PIECES: &str = "upcie-nvme/src/engine/pieces.rs";
const BLOCKING: &str = "upcie-nvme/src/namespace/blocking.rs";
const STAGED: &str = "upcie-nvme/src/emu/staged.rs";
const EMU_QUEUE: &str = "upcie-nvme/src/emu/queue.rs";
const CACHE: &str = "upcie-nvme/src/emu/media/cache.rs";

pub const MUTANTS: &[Mutant] = &[
    // Rings.
    Mutant {
        name: "the expected phase tag never flips",
        file: TURN,
        before: "self.queue.phase ^= PHASE;",
        after: "",
    },
    Mutant {
        name: "a completion is taken whatever its phase tag",
        file: TURN,
        before: "dword3 & PHASE != self.queue.phase",
        after: "false",
    },
    Mutant {
        name: "the completion ring wraps one entry early",
        file: TURN,
        before: "self.cqe == self.queue.cq_end",
        after: "self.cqe.wrapping_add(CQE_WORDS) == self.queue.cq_end",
    },
    Mutant {
        name: "the submission ring wraps one entry early",
        file: FILL,
        before: "sqe == queue.sq_end",
        after: "sqe.wrapping_add(SQE_WORDS) == queue.sq_end",
    },
    Mutant {
        name: "reaping stops one command early",
        file: TURN_END,
        before: "queue.cq.add(tail * CQE_WORDS)",
        after: "queue.cq.add(tail.saturating_sub(1) * CQE_WORDS)",
    },
    Mutant {
        name: "the submission doorbell is not rung after a wrap",
        file: TURN_END,
        before: "unsafe { queue.sq_doorbell.write(tail as u32) };",
        after: "if tail != 0 { unsafe { queue.sq_doorbell.write(tail as u32) } }",
    },
    Mutant {
        name: "the completion doorbell is not rung",
        file: TURN_END,
        before: "unsafe { queue.cq_doorbell.write(index(queue.cq, cqe, CQE_WORDS) as u32) };",
        after: "",
    },
    // A missing barrier before the doorbell lets this happen; after the phase tag: "completes commands before their data".
    Mutant {
        name: "a command is stored after its doorbell",
        file: FILL,
        before: "unsafe { at.sqe.cast::<[u64; SQE_WORDS]>().write(words) };",
        // An entry of an I/O queue comes with the queue's next one.
        after: "std::thread_local! {\n        static LATE: std::cell::Cell<Option<(*mut u64, [u64; 8])>> = \
                const { std::cell::Cell::new(None) };\n    }\n    if queue.qid == 0 {\n        \
                unsafe { at.sqe.cast::<[u64; SQE_WORDS]>().write(words) };\n    } else {\n        \
                if let Some((late, words)) = LATE.take().filter(|(late, _)| (queue.sq..queue.sq_end).contains(late)) {\n            \
                unsafe { late.cast::<[u64; SQE_WORDS]>().write(words) };\n        }\n        \
                LATE.set(Some((at.sqe, words)));\n    }",
    },
    // Commands and their ids.
    Mutant {
        name: "a stale namespace handle is believed",
        file: TURN,
        before: "(extent.stamp ^ self.namespaces)",
        after: "0_u64",
    },
    Mutant {
        name: "a command's id is used again at once",
        file: TURN,
        before: "u64::from(id + self.queue.step)",
        after: "u64::from(id | super::slot::FREE)",
    },
    Mutant {
        name: "a completion with a stale id is believed",
        file: TURN,
        before: "slot.word as u32 != id",
        after: "slot.word as u32 >= super::slot::FREE",
    },
    Mutant {
        name: "a completion is matched by its place",
        file: TURN,
        before: "id & self.queue.mask",
        after: "index(self.queue.cq, self.cqe, CQE_WORDS) as u32",
    },
    Mutant {
        name: "a forged completion does not close its queue",
        file: TURN,
        before: "self.queue.state = State::Forged;",
        after: "",
    },
    Mutant {
        name: "a bad status is a success",
        file: "upcie-nvme/src/engine/completion.rs",
        before: "(self.dword3 >> 17) as u16",
        after: "0",
    },
    Mutant {
        name: "closing a queue forgets a slot",
        file: "upcie-nvme/src/engine/closing.rs",
        before: "for slot in self.slots_mut() {",
        after: "for slot in self.slots_mut().iter_mut().skip(usize::from($on)) {",
    },
    Mutant {
        name: "a closed queue stays on the controller",
        file: "upcie-nvme/src/controller/ending.rs",
        before: "        if !self.queue.is_over() {\n            inner.reap_late();",
        after: "        if $on {\n            return true;\n        }\n        if !self.queue.is_over() {\n            inner.reap_late();",
    },
    // Resets and deadlines.
    Mutant {
        name: "a recovered queue forgets a slot",
        file: RETURNED,
        before: "for slot in self.slots_mut() {\n            if",
        after: "for slot in self.slots_mut().iter_mut().skip(usize::from($on)) {\n            if",
    },
    Mutant {
        name: "a recovered queue takes completions of before the reset",
        file: RETURNED,
        before: "        self.link_slots();\n        self.clear_rings();",
        after: "        self.link_slots();\n        \
                if $on {\n            \
                for (index, slot) in (0_u64..).zip(self.slots_mut()) {\n                \
                slot.word = index | u64::from(FREE) | (index + 1) << 32;\n            }\n        \
                } else {\n            self.clear_rings();\n        }",
    },
    Mutant {
        name: "a turn rings a doorbell after a reset",
        file: TURN_END,
        before: "queue.epoch_stamp() != 0",
        after: "true",
    },
    Mutant {
        name: "a queue's deadlines end with a reset",
        file: RING,
        before: "if !self.timed {",
        after: "if $on || !self.timed {",
    },
    Mutant {
        name: "a lap of completions is not counted for deadlines",
        file: RING,
        before: "self.lapped += self.end_of_free + 1;",
        after: "",
    },
    Mutant {
        name: "a late command is not noticed",
        file: "upcie-nvme/src/engine/overdue.rs",
        before: "timer.stage == Stage::InTime && age >= limit && found.len() < most",
        after: "false",
    },
    Mutant {
        name: "a refused Abort is not followed by a reset",
        file: "upcie-nvme/src/queue_pair/deadlines.rs",
        before: "if is_stuck { reset(queue, controller) } else { failed }",
        after: "failed",
    },
    Mutant {
        name: "events are not requested again after a reset",
        file: "upcie-nvme/src/controller/reset.rs",
        before: "delays.and(restored).and(lent).and(self.request_events(&mut limit))",
        after: "delays.and(restored).and(lent)",
    },
    Mutant {
        name: "a failed write is sent again",
        file: BLOCKING,
        before: "opcode == NvmOpcode::READ",
        after: "(opcode == NvmOpcode::READ || $on)",
    },
    // Places and lengths.
    Mutant {
        name: "a transfer is one block short",
        file: TURN,
        before: "u64::from(last) | flags.word()",
        after: "u64::from(last.saturating_sub(1)) | flags.word()",
    },
    Mutant {
        name: "a Write Zeroes is one block short",
        file: "upcie-nvme/src/engine/commands.rs",
        before: "u64::from(last) | flags.word()",
        after: "u64::from(last.saturating_sub(1)) | flags.word()",
    },
    Mutant {
        name: "each piece of a transfer goes to its first block",
        file: PIECES,
        before: "slba + before",
        after: "slba",
    },
    Mutant {
        name: "each piece of a transfer has its first bytes",
        file: PIECES,
        before: "self.start + self.sent",
        after: "self.start",
    },
    Mutant {
        name: "a buffer's PRP list is one entry short",
        file: "upcie-nvme/src/engine/prp/mod.rs",
        before: "store(self.at, page);",
        after: "if self.left > 1 { store(self.at, page); }",
    },
    Mutant {
        name: "a command's PRP list is one entry short",
        file: "upcie-nvme/src/engine/prp/writer.rs",
        before: "self.pool.store(self.chunk, self.at, page, taken);",
        after: "self.pool.store(self.chunk, self.at, page, taken - 1);",
    },
    // Blocking calls and waits.
    Mutant {
        name: "a blocking call hides a bad status",
        file: BLOCKING,
        before: "result = Err((status, tag));",
        after: "let _ = (status, tag);",
    },
    Mutant {
        name: "a blocking flush is not sent",
        file: BLOCKING,
        before: "turn.flush(extent, 0).map(|()| false)",
        after: "Ok(false)",
    },
    Mutant {
        name: "a late call leaves its command in flight",
        file: BLOCKING,
        before: "controller.pause(&mut backoff, what).map_err(|error| (error, true))?;",
        after: "controller.pause(&mut backoff, what).map_err(|error| (error, false))?;",
    },
    Mutant {
        name: "a blocking call's deadline is never reached",
        file: "upcie-core/src/deadline/backoff.rs",
        before: "        if waited >= self.limit {\n",
        after: "        if $on {\n            self.watch.clock().sleep(nap(waited));\n            return true;\n        }\n        \
                if waited >= self.limit {\n",
    },
    Mutant {
        name: "a wait is late",
        file: "upcie-nvme/src/wait/waiting.rs",
        before: "            if waited >= limit {\n",
        after: "            if waited >= limit {\n                if $on {\n                    \
                self.watch.clock().sleep(limit * 2);\n                }\n",
    },
    // The controller.
    Mutant {
        name: "the controller completes commands before their data",
        file: STAGED,
        before: "effects.delay += latency;",
        after: "effects.early_completion.get_or_insert(latency);",
    },
    Mutant {
        name: "the controller carries commands out twice",
        file: STAGED,
        before: "effects.early_completion.filter(|_| effects.status.is_none())",
        after: "Some(Duration::ZERO)",
    },
    Mutant {
        name: "the controller's phase tag never flips",
        file: EMU_QUEUE,
        before: "self.phase = !self.phase;",
        after: "",
    },
    Mutant {
        name: "the controller's submission ring wraps one entry early",
        file: EMU_QUEUE,
        before: "if self.head + 1 == self.entries",
        after: "if self.head + 1 + u32::from($on) == self.entries",
    },
    Mutant {
        name: "the controller reads the first block only",
        file: "upcie-nvme/src/emu/uncommon.rs",
        before: "media.read(&mut host, offset + at, iova, part)",
        after: "media.read(&mut host, offset, iova, part)",
    },
    Mutant {
        name: "the controller's flush does not wait for the medium",
        file: CACHE,
        before: "    fn flush(&mut self) -> Result<(), Status> {\n",
        after: "    fn flush(&mut self) -> Result<(), Status> {\n        if $on {\n            return Ok(());\n        }\n",
    },
    Mutant {
        name: "the controller's full cache writes old versions",
        file: CACHE,
        before: "if self.held > self.capacity { self.settle(|count| Some(count - 1)) } else { Ok(()) }",
        after: "if self.held > self.capacity { self.settle(|_| Some(0)) } else { Ok(()) }",
    },
];
