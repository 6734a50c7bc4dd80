//! Base, "Asynchronous Event Request command".

use bitfield_struct::bitfield;

use super::super::log::LogPageId;
use super::super::macros::named_values;

named_values! {
    /// The kind of an asynchronous event.
    AsyncEventType(u8) {
        ERROR = 0, "error status";
        SMART = 1, "SMART / health status";
        NOTICE = 2, "notice";
        IMMEDIATE = 3, "immediate";
        ONE_SHOT = 4, "one-shot";
        COMMAND_SET = 6, "I/O command specific status";
        VENDOR = 7, "vendor specific";
    }
}

/// Dword 0 of the completion of an Asynchronous Event Request.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct AsyncEvent {
    /// The kind of event.
    #[bits(3)]
    pub kind: AsyncEventType,
    #[bits(5)]
    __: u8,
    /// The event, by its kind. Notice: 0 namespace attributes changed, 1 firmware activation starting.
    pub information: u8,
    /// The log page to read; reading it lets the controller report such an event again.
    #[bits(8)]
    pub log_page: LogPageId,
    __: u8,
}
