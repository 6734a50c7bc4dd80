//! Base, "Sanitize Status" and "Reservation Notification".

use super::super::identify::IdentifyController;
use super::super::macros::{bits, structure};
use super::id::LogPageId;
use super::page::fixed_pages;

bits! {
    /// Status of the last sanitize operation.
    SanitizeState(u16), "Sanitize Status" {
        /// State of the last operation (SOS).
        operation: u8[3] => names(&[
            (0, "never sanitized"),
            (1, "completed"),
            (2, "in progress"),
            (3, "failed"),
            (4, "completed, deallocated against the request"),
        ]);
        /// Completed passes of an overwrite (OPC).
        overwrite_passes: u8[5] => number;
        /// Nothing was written since the last successful operation (GDE).
        global_data_erased: bool[1] => flag;
        /// Media verification was canceled (MVCNCLD, 2.1).
        media_verification_canceled: bool[1] => flag;
        __: u8[6];
    }
}

bits! {
    /// The state machine of sanitize operations (2.1).
    SanitizeStateInformation(u8), "Sanitize State Information" {
        /// The state (SANS).
        state: u8[4] => names(&[
            (0, "idle"),
            (1, "restricted processing"),
            (2, "restricted failure"),
            (3, "unrestricted processing"),
            (4, "unrestricted failure"),
            (5, "media verification"),
            (6, "post-verification deallocation"),
        ]);
        /// The state in which it failed (FAILS).
        failure_state: u8[4] => number;
    }
}

structure! {
    /// Sanitize Status (81h). Estimated times are in seconds; FFFFFFFFh is not reported.
    SanitizeStatusLog[512], "Sanitize Status" {
        /// Progress in 1/65536, FFFFh if no operation is in progress (SPROG).
        0 progress: u16 => number;
        /// State of the last operation (SSTAT).
        2 status: SanitizeState => fields;
        /// Command dword 10 of the last Sanitize command (SCDW10).
        4 command_dword_10: u32 => hex;
        /// Estimated time of an overwrite, in seconds (ETO).
        8 time_for_overwrite: u32 => unit("s");
        /// Estimated time of a block erase, in seconds (ETBE).
        12 time_for_block_erase: u32 => unit("s");
        /// Estimated time of a crypto erase, in seconds (ETCE).
        16 time_for_crypto_erase: u32 => unit("s");
        /// The same for an overwrite without deallocation (ETOND).
        20 time_for_overwrite_without_deallocation: u32 => unit("s");
        /// The same for a block erase without deallocation (ETBEND).
        24 time_for_block_erase_without_deallocation: u32 => unit("s");
        /// The same for a crypto erase without deallocation (ETCEND).
        28 time_for_crypto_erase_without_deallocation: u32 => unit("s");
        /// Estimated time of the deallocation after media verification, in seconds (ETPVDS, 2.1).
        32 time_for_post_verification_deallocation: u32 => unit("s");
        /// The state machine (SSI, 2.1).
        36 state_information: SanitizeStateInformation => fields;
        37 reserved37: [u8; 475];
    }
}

structure! {
    /// Reservation Notification (80h).
    ReservationNotificationLog[64], "Reservation Notification" {
        /// The number of this page among all since power-on (LPC); 0 if there is none.
        0 log_page_count: u64 => number;
        /// Type of the notification (RNLPT).
        8 notification_type: u8 => names(&[
            (0, "empty"),
            (1, "registration preempted"),
            (2, "reservation released"),
            (3, "reservation preempted"),
        ]);
        /// More pages that wait, 255 or more as 255 (NALP).
        9 available_pages: u8 => number;
        10 reserved10: [u8; 2];
        /// The namespace.
        12 namespace_id: u32 => number;
        16 reserved16: [u8; 48];
    }
}

fixed_pages! {
    SanitizeStatusLog: SANITIZE_STATUS;
    ReservationNotificationLog: RESERVATION_NOTIFICATION;
}
