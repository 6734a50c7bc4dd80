//! Get Log Page: the log pages by their identifiers, the part that a host asks for, and the events that it clears.

use super::{HostMemory, logs, media::Media, placement, state::Core};
use crate::spec::{
    ALL_NAMESPACES, AsyncEventType, Command, CommandSetEvent, Csi, LogPageDword10, LogPageDword11, LogPageId,
    Status,
};
use std::time::Duration;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// A log page.
enum Log {
    Whole(Vec<u8>),
    /// That of a boot partition, which is long: a part of it is made when it is known.
    Boot(usize),
}

impl<M: Media> Core<M> {
    /// Carries out Get Log Page; returns dword 0 of the completion.
    pub(super) fn log_page(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: &impl Fn() -> Duration,
    ) -> Result<u32, Status> {
        let dword = LogPageDword10::from_bits(command.cdw10);
        let (len, offset) = (command.log_page_bytes(), command.log_page_offset());
        let of_group = self.io.placement.is_some() && placement::is_page(dword.lid());
        let log = self.log(host, command, now)?;
        // All others belong to the controller, none to a namespace.
        let is_there = match dword.lid() {
            LogPageId::CHANGED_ZONES => self.io.has_zones(command.nsid),
            _ => matches!(command.nsid, 0 | ALL_NAMESPACES),
        };
        let group = if of_group { placement::GROUP } else { 0 };
        let is_good =
            len <= self.io.mdts && offset % 4 == 0 && LogPageDword11::from_bits(command.cdw11).lsi() == group;
        if !is_there || !is_good {
            return Err(INVALID_FIELD);
        }
        let offset = usize::try_from(offset).map_err(|_| INVALID_FIELD)?;
        let part = match log {
            Log::Whole(mut log) => {
                if offset > log.len() {
                    return Err(INVALID_FIELD);
                }
                log.split_off(offset)
            }
            Log::Boot(id) => {
                let part = self.firmware.boot.as_ref().and_then(|boot| boot.page(id, offset, len as usize));
                part.ok_or(INVALID_FIELD)?
            }
        };
        // The bytes beyond the log have no meaning, but the host asked for them.
        self.send_padded(host, command, part, len)?;
        if !dword.rae() {
            self.admin.read_log(dword.lid(), command.nsid);
            if dword.lid() == LogPageId::TELEMETRY_CONTROLLER {
                self.telemetry.read();
            }
            if dword.lid() == LogPageId::RESERVATION_NOTIFICATION {
                self.io.reservations.end_page(self.io.controller);
                self.tell_reservations();
            }
        }
        Ok(0)
    }

    /// Returns the log page that a Get Log Page names.
    fn log(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: &impl Fn() -> Duration,
    ) -> Result<Log, Status> {
        let dword = LogPageDword10::from_bits(command.cdw10);
        let of_group = self.io.placement.is_some() && placement::is_page(dword.lid());
        Ok(Log::Whole(match dword.lid() {
            id if of_group => self.io.placement_page(id, dword.lsp())?,
            LogPageId::ERROR_INFORMATION => self.io.errors.page(),
            LogPageId::SMART => {
                self.host_data.buffer.touch(host)?;
                let warning = self.features.warning();
                logs::smart(&self.io.counters, &self.io.errors, warning, now())
            }
            LogPageId::FIRMWARE_SLOT => self.firmware.page(),
            LogPageId::DEVICE_SELF_TEST => self.tests.page(now()),
            id @ (LogPageId::TELEMETRY_HOST | LogPageId::TELEMETRY_CONTROLLER) => {
                let part = (dword.lsp(), command.log_page_bytes(), command.log_page_offset());
                self.telemetry_page(id, part, now())?
            }
            LogPageId::SANITIZE_STATUS => {
                self.sanitizer.page(now(), self.io.counters.writes, self.io.sanitized_share())
            }
            LogPageId::CHANGED_NAMESPACES => self.admin.changed_page(),
            LogPageId::ASYMMETRIC_NAMESPACE_ACCESS if self.options.ana.is_some() => {
                let page = self.io.path.page(&self.io.namespaces, dword.lsp() & 1 != 0);
                page.ok_or(Status::INTERNAL_ERROR)?
            }
            LogPageId::RESERVATION_NOTIFICATION => self.io.reservations.page(self.io.controller),
            LogPageId::CHANGED_ZONES if self.options.zones.any() => {
                self.admin.changed_zones_page(command.nsid)
            }
            LogPageId::BOOT_PARTITION if self.firmware.boot.is_some() => {
                return Ok(Log::Boot(usize::from(dword.lsp() & 1)));
            }
            LogPageId::SUPPORTED_LOG_PAGES => logs::supported(&self.options),
            LogPageId::COMMANDS_SUPPORTED => {
                let shared = self.controllers > 1;
                match Csi((command.cdw14 >> 24) as u8) {
                    Csi::ZONED if self.options.zones.any() => {
                        logs::commands(Csi::ZONED, &self.options, shared)
                    }
                    Csi::KEY_VALUE if self.options.keys.any() => {
                        logs::commands(Csi::KEY_VALUE, &self.options, shared)
                    }
                    _ => logs::commands(Csi::NVM, &self.options, shared),
                }
            }
            LogPageId::FEATURES_SUPPORTED => logs::features(self.io.media.is_volatile(), &self.options),
            LogPageId::NVME_MI_COMMANDS_SUPPORTED => logs::management_commands(),
            _ => return Err(Status::INVALID_LOG_PAGE.with_do_not_retry()),
        }))
    }

    /// Reports that there are pages of the Reservation Notification log, if some have come.
    pub(super) fn tell_reservations(&mut self) {
        if self.io.reservations.take_log_notice(self.io.controller) {
            let event = CommandSetEvent::RESERVATION_LOG.0;
            self.admin.raise(AsyncEventType::COMMAND_SET, event, LogPageId::RESERVATION_NOTIFICATION);
        }
    }
}
