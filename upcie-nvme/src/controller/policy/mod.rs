//! The decision about each admin command and feature that a program may pass through, in two tables.
//!
//! A queue's arithmetic (bytes of a block, blocks of a namespace, pages of a transfer) is computed once, when
//! a namespace handle or a queue is made. If a command changed these values later, a correct controller would
//! write past the end of a buffer. So safe code may send such a command only while no queue could still use
//! the old values.

use crate::spec::{AdminOpcode, Command};

/// The decision about a command in safe code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Sent at any time: it changes nothing that queues and namespace handles rely on.
    Free,
    /// Sent only while no queue pair of the NVM subsystem exists in this process; makes namespace handles stale.
    Alone,
    /// Refused: it names memory, is the driver's own business, or its effects and length are not known here.
    Never,
}
use Verdict::{Alone, Free, Never};

/// A code, the decision, the bytes that the command transfers, and the reason for the decision.
type Row = (u8, Verdict, fn(&Command) -> u64, &'static str);

const UNKNOWN: &str = "its effects and the length of its data are not known here: use the unsafe `admin_raw`";
const FABRICS: &str = "it is for message-based controllers: use the unsafe `admin_raw`";
const LENGTH: &str = "the length of its data is not known here: use the unsafe `admin_raw`";

fn none(_: &Command) -> u64 {
    0
}

fn page(_: &Command) -> u64 {
    4096
}

fn dwords(count: u32) -> u64 {
    (u64::from(count) + 1) * 4
}

/// Returns the length of the data of FDP Events: a byte for each type of event that is set, two for each that is returned.
fn placement_events(command: &Command) -> u64 {
    let types = u64::from(command.cdw11 >> 16 & 0xff);
    if AdminOpcode(command.opcode) == AdminOpcode::SET_FEATURES { types } else { 2 * types }
}

/// Every admin command that the specification assigns (Base, "Opcodes for Admin Commands"; NVM; Computational
/// Programs). Other codes are vendor specific or reserved: never sent.
const COMMANDS: &[Row] = &[
    (0x00, Never, none, "queues are deleted by the driver: drop the queue pair"),
    (0x01, Never, none, "queues are created by the driver: use `queue_pair`"),
    (0x02, Free, |command| command.log_page_bytes(), "reads a log"),
    (0x04, Never, none, "queues are deleted by the driver: drop the queue pair"),
    (0x05, Never, none, "queues are created by the driver: use `queue_pair`"),
    (0x06, Free, page, "reads data about the controller or a namespace"),
    (0x08, Never, none, "command ids are the driver's own"),
    (0x09, Free, none, "by feature: see FEATURES"),
    (0x0a, Free, none, "reads a feature: see FEATURES for its length"),
    (0x0c, Never, none, "it completes only when an event happens: use `Controller::events`"),
    // Create brings a page, Delete none.
    (
        0x0d,
        Alone,
        |command| if command.cdw10 & 15 == 0 { 4096 } else { 0 },
        "it creates or deletes a namespace",
    ),
    (0x10, Alone, none, "it may activate firmware with other limits"),
    (0x11, Free, |command| dwords(command.cdw10), "stores a part of an image, which nothing activates"),
    (0x14, Free, none, "a self-test leaves data and formats as they are"),
    (0x15, Alone, page, "it attaches or detaches a namespace"),
    (0x18, Free, none, "only restarts the keep alive timer"),
    (0x19, Never, none, LENGTH),
    (0x1a, Never, none, LENGTH),
    (0x1c, Alone, none, "it moves queues and interrupt vectors between controllers"),
    (0x1d, Never, none, "a management command can change or reset anything: use the unsafe `admin_raw`"),
    (0x1e, Never, none, LENGTH),
    (0x20, Alone, none, "it deletes the namespaces of an endurance group or an NVM set"),
    (0x21, Never, none, FABRICS),
    (0x22, Never, none, FABRICS),
    (0x24, Alone, none, "it can forbid the commands that delete queues"),
    (0x25, Never, none, FABRICS),
    (0x28, Never, none, FABRICS),
    (0x29, Never, none, FABRICS),
    (0x2a, Never, none, FABRICS),
    (0x2d, Never, none, FABRICS),
    (0x31, Never, none, FABRICS),
    (0x35, Never, none, FABRICS),
    (0x38, Never, none, "it resets another controller: use the unsafe `admin_raw`"),
    (0x39, Never, none, FABRICS),
    (
        0x3d,
        Never,
        none,
        "it lets the controller fill a controller data queue, which is memory: use the unsafe `admin_raw`",
    ),
    (0x3e, Free, |command| dwords(command.cdw12), "reads which memory another controller has changed"),
    (0x41, Never, none, "it changes the state of another controller: use the unsafe `admin_raw`"),
    (0x42, Free, |command| dwords(command.cdw15), "reads the state of another controller"),
    (
        0x45,
        Never,
        none,
        "it gives the controller memory to write to until the queue is deleted: use the unsafe `admin_raw`",
    ),
    (
        0x7c,
        Never,
        none,
        "it gives the controller memory to read doorbells from, which the driver does not write",
    ),
    (0x7f, Never, none, FABRICS),
    (0x80, Alone, none, "it may change the size of a namespace's blocks"),
    (
        0x81,
        Free,
        |command| command.cdw11.into(),
        "a security protocol locks or erases data, in blocks of the same size",
    ),
    (0x82, Free, |command| command.cdw11.into(), "reads the answer of a security protocol"),
    (0x84, Alone, none, "it erases all namespaces, and fails commands meanwhile"),
    (0x85, Never, none, UNKNOWN),
    (0x86, Free, |command| dwords(command.cdw12), "reads which blocks may be unreadable"),
    (0x88, Never, none, UNKNOWN),
    (0x89, Never, none, UNKNOWN),
    (0x8c, Alone, none, "it erases a namespace, and fails commands meanwhile"),
];

/// Every feature (Base, "Feature Identifiers"; NVM). The verdict is for Set Features; Get Features is free if
/// its length is known. Other codes are vendor specific or reserved: never sent.
const FEATURES: &[Row] = &[
    (0x01, Free, none, "weights decide the order in which commands are fetched, nothing else"),
    (0x02, Free, none, "power states change speed"),
    (0x03, Free, page, "types of ranges are a note for hosts"),
    (0x04, Free, none, "thresholds raise events"),
    (0x05, Free, none, "error recovery changes status codes"),
    (0x06, Free, none, "the write cache decides when data becomes durable"),
    (0x07, Never, none, "the number of queues is the driver's own: see `ControllerBuilder::queues`"),
    (0x08, Free, none, "coalescing delays interrupts"),
    (0x09, Free, none, "turns coalescing off for a vector"),
    (0x0a, Free, none, "atomicity changes no length"),
    (0x0b, Free, none, "chooses events"),
    (0x0c, Free, |_| 256, "power states change speed"),
    (0x0d, Never, page, "it gives the controller memory to write to: use the unsafe `admin_raw`"),
    (0x0e, Free, |_| 8, "the time of day is noted in logs"),
    (0x0f, Free, none, "a keep alive timer that runs out stops the controller, which the driver notices"),
    (0x10, Free, none, "temperatures change speed"),
    (0x11, Free, none, "power states change speed"),
    (0x12, Free, none, "the effort to read changes status codes"),
    (0x13, Free, |_| 512, "windows change latency"),
    (0x14, Free, none, "windows change latency"),
    (0x15, Free, none, "sets the interval of events"),
    (0x16, Alone, |_| 512, "it may enable further block formats"),
    (0x17, Free, none, "configures a later Sanitize"),
    (0x18, Free, none, "chooses events"),
    (0x19, Alone, none, "it changes which I/O command sets namespaces have"),
    (0x1a, Free, none, "delays the spin-up of a disk"),
    (0x1b, Free, none, "configures the reaction to a loss of power"),
    (0x1c, Never, page, "a vendor's performance attribute can change anything: use the unsafe `admin_raw`"),
    (0x1d, Alone, none, "it turns flexible data placement on or off, which changes how namespaces are made"),
    (0x1e, Free, placement_events, "chooses which events are noted in a log"),
    (0x1f, Free, |_| 256, "a label is a note for people"),
    (0x20, Free, none, "decides whether a Delete of a missing key fails"),
    (0x21, Never, |_| 512, "a controller data queue writes to memory: use the unsafe `admin_raw`"),
    (0x22, Never, none, "it changes the kind of the device: use the unsafe `admin_raw`"),
    (0x23, Never, none, LENGTH),
    (0x24, Never, none, LENGTH),
    (0x25, Never, none, LENGTH),
    (0x26, Never, none, LENGTH),
    (0x27, Never, none, LENGTH),
    (0x28, Never, none, LENGTH),
    (0x78, Free, |_| 512, "an address of a management agent is a note"),
    (0x79, Free, |_| 512, "an address of a management agent is a note"),
    (0x7d, Free, page, "metadata of hosts is a note"),
    (0x7e, Free, page, "metadata of hosts is a note"),
    (0x7f, Free, page, "metadata of hosts is a note"),
    (0x80, Free, none, "notes the progress of a system's start"),
    // An extended identifier (EXHID) has 16 bytes.
    (0x81, Free, |command| if command.cdw11 & 1 == 1 { 16 } else { 8 }, "decides whose reservations count"),
    (0x82, Free, none, "chooses events"),
    (0x83, Free, none, "keeps reservations over a loss of power"),
    (0x84, Free, none, "a protected namespace fails writes, and keeps its blocks"),
    (0x85, Free, none, "protects boot partitions"),
];

/// Returns the length of the data of a Directive Send or Receive, if its operation is known: none changes the size of a block or a
/// transfer.
fn directive(command: &Command) -> Option<fn(&Command) -> u64> {
    let sends = command.opcode == AdminOpcode::DIRECTIVE_SEND.0;
    // Directive type, operation: Base, "Directives".
    match (sends, command.cdw11 >> 8 & 0xff, command.cdw11 & 0xff) {
        // Identify: Enable Directive. Streams: Release Identifier, Release Resources.
        (true, 0, 1) | (true, 1, 1 | 2) => Some(none),
        // Return Parameters, of Identify and of Streams; Get Status of Streams.
        (false, 0, 1) | (false, 1, 1 | 2) => Some(|command| dwords(command.cdw10)),
        // Allocate Resources of Streams answers by dword 0.
        (false, 1, 3) => Some(none),
        _ => None,
    }
}

/// A command that safe code may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The bytes that the command transfers.
    pub(super) len: u64,
    /// The change that no queue pair of the subsystem may see, for the error message.
    pub(super) alone: Option<&'static str>,
}

/// Decides how `command` is sent, or returns the reason why safe code must not send it.
pub(super) fn plan(command: &Command) -> Result<Plan, &'static str> {
    let find = |rows: &'static [Row], code: u8| rows.iter().find(|row| row.0 == code);
    let &(_, mut verdict, mut len, mut why) = find(COMMANDS, command.opcode).ok_or(UNKNOWN)?;
    match AdminOpcode(command.opcode) {
        // Commit Action: store an image, replace a boot partition, mark one active. None of them runs it.
        AdminOpcode::FIRMWARE_COMMIT if matches!(command.cdw10 >> 3 & 7, 0 | 6 | 7) => verdict = Free,
        AdminOpcode::SET_FEATURES => {
            (_, verdict, len, why) = *find(FEATURES, command.cdw10 as u8).ok_or(UNKNOWN)?;
        }
        AdminOpcode::GET_FEATURES => {
            let (_, set, known, reason) = *find(FEATURES, command.cdw10 as u8).ok_or(UNKNOWN)?;
            // Select: the supported capabilities come in dword 0 alone.
            len = if command.cdw10 >> 8 & 7 == 3 { none } else { known };
            // Number of Queues has no data; Host Memory Buffer and Performance Characteristics return a page, Controller Data
            // Queue 512 bytes. The length of the others is not known.
            if set == Never && !matches!(command.cdw10 as u8, 0x07 | 0x0d | 0x1c | 0x21) {
                (verdict, why) = (Never, reason);
            }
        }
        AdminOpcode::DIRECTIVE_SEND | AdminOpcode::DIRECTIVE_RECEIVE => {
            if let Some(known) = directive(command) {
                (verdict, len) = (Free, known);
            }
        }
        _ => {}
    }
    match verdict {
        Never => Err(why),
        Free => Ok(Plan { len: len(command), alone: None }),
        Alone => Ok(Plan { len: len(command), alone: Some(why) }),
    }
}

#[cfg(test)]
mod tests;
