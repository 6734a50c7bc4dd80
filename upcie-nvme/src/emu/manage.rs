//! Admin commands that change namespaces, data or firmware, or that take a while.

use super::{
    HostMemory, firmware, logs::changes_namespaces, media::Media, reservations::Access, self_test::Ended,
    state::Core,
};
use crate::spec::{
    ALL_NAMESPACES, AdminOpcode, AsyncEventType, Command, CommandSetEvent, Csi, LogPageId, NoticeEvent,
    SelfTestCode, Status,
};
use std::time::Duration;

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

impl<M: Media> Core<M> {
    /// Returns `true` while something goes on that time ends.
    pub fn is_busy(&self) -> bool {
        self.sanitizer.is_running() || self.host_data.has_timeout()
    }

    /// Ends a Sanitize whose time is over, and reports it.
    pub fn settle(&mut self, now: Duration) {
        if self.sanitizer.settle(now, self.io.counters.writes) {
            self.io.sanitized(!self.sanitizer.has_failed());
            let page = LogPageId::SANITIZE_STATUS;
            self.admin.raise(AsyncEventType::COMMAND_SET, CommandSetEvent::SANITIZE_COMPLETED.0, page);
        }
    }

    /// Carries out a command of this module; returns `None` for another one. The result has dword 0 of the completion, or `None`
    /// if the command completes later.
    pub fn manage(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: Duration,
    ) -> Option<Result<Option<u32>, Status>> {
        let opcode = AdminOpcode(command.opcode);
        let done = match opcode {
            _ if self.controllers > 1 && changes_namespaces(opcode) => return None,
            AdminOpcode::KEEP_ALIVE => {
                self.host_data.keep_alive(now);
                Ok(Some(0))
            }
            AdminOpcode::NAMESPACE_MANAGEMENT
            | AdminOpcode::NAMESPACE_ATTACHMENT
            | AdminOpcode::FORMAT_NVM
            | AdminOpcode::SANITIZE
            | AdminOpcode::FIRMWARE_COMMIT
            | AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD
            | AdminOpcode::DEVICE_SELF_TEST => {
                if self.sanitizer.is_running() {
                    Err(Status::SANITIZE_IN_PROGRESS)
                } else if self.sanitizer.has_failed() && opcode != AdminOpcode::SANITIZE {
                    Err(Status::SANITIZE_FAILED.with_do_not_retry())
                } else {
                    let done = self.change(host, command, now);
                    self.forget_zones();
                    done
                }
            }
            AdminOpcode::DIRECTIVE_SEND | AdminOpcode::DIRECTIVE_RECEIVE if self.options.placement.on => {
                self.direct(host, command).map(Some)
            }
            _ => return None,
        };
        Some(done)
    }

    /// Forgets the changed zones of namespaces that are gone.
    pub(super) fn forget_zones(&mut self) {
        let io = &self.io;
        self.admin.forget_zones(|nsid| io.has_zones(nsid));
    }

    fn change(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: Duration,
    ) -> Result<Option<u32>, Status> {
        let select = command.cdw10 & 0xf;
        let changed = match AdminOpcode(command.opcode) {
            // A namespace that is created has no reservation.
            AdminOpcode::NAMESPACE_MANAGEMENT if select == 0 => None,
            AdminOpcode::NAMESPACE_MANAGEMENT
            | AdminOpcode::NAMESPACE_ATTACHMENT
            | AdminOpcode::FORMAT_NVM => Some(command.nsid),
            AdminOpcode::SANITIZE => Some(ALL_NAMESPACES),
            _ => None,
        };
        if let Some(nsid) = changed {
            self.io.check_access(nsid, Access::Write)?;
            if AdminOpcode(command.opcode) != AdminOpcode::NAMESPACE_ATTACHMENT {
                self.io.check_protection(nsid)?;
            }
        }
        let done = match AdminOpcode(command.opcode) {
            AdminOpcode::NAMESPACE_MANAGEMENT => match select {
                0 if command.cdw11 >> 24 == Csi::KEY_VALUE.0.into() && self.options.keys.any() => {
                    let mut page = [0; 4096];
                    self.receive(host, command, &mut page)?;
                    self.io.create_keys(&self.options, &page)?
                }
                // Any other command set than NVM.
                0 if command.cdw11 >> 24 != 0 => {
                    return Err(Status::COMMAND_SET_NOT_SUPPORTED.with_do_not_retry());
                }
                0 => {
                    let mut page = [0; 4096];
                    self.receive(host, command, &mut page)?;
                    self.io.create(&page)?
                }
                1 => return self.io.delete(command).map(|()| None),
                _ => return Err(INVALID_FIELD),
            },
            AdminOpcode::NAMESPACE_ATTACHMENT => {
                let mut list = [0; 4096];
                self.receive(host, command, &mut list)?;
                if select > 1 {
                    return Err(INVALID_FIELD);
                }
                self.io.attach(command.nsid, &list, select == 0)?;
                0
            }
            AdminOpcode::FORMAT_NVM => {
                self.io.format(command)?;
                self.tests.end(Ended::Formatted, now);
                return Ok(None);
            }
            AdminOpcode::SANITIZE => {
                self.io.changeable()?;
                if self.io.is_formatting() {
                    return Err(Status::FORMAT_IN_PROGRESS);
                }
                if self.own.is_region_enabled() {
                    return Err(Status::SANITIZE_PROHIBITED_PMR.with_do_not_retry());
                }
                if self.sanitizer.begin(command.cdw10, now)? {
                    self.own.sanitize();
                    self.tests.settle(now);
                    self.tests.end(Ended::Sanitized, now);
                    // It goes on beside other commands: the log page tells how far it is, and how it ends.
                    self.io.sanitize();
                } else {
                    self.io.sanitized(true);
                }
                0
            }
            AdminOpcode::FIRMWARE_IMAGE_DOWNLOAD => {
                let len = (u64::from(command.cdw10) + 1) * 4;
                if len > self.io.mdts.min(firmware::LARGEST as u64) {
                    return Err(INVALID_FIELD);
                }
                let mut data = vec![0; len as usize];
                self.receive(host, command, &mut data)?;
                self.firmware.part(u64::from(command.cdw11) * 4, len)?.copy_from_slice(&data);
                0
            }
            AdminOpcode::FIRMWARE_COMMIT => {
                if self.firmware.commit(command.cdw10)? {
                    let page = LogPageId::FIRMWARE_SLOT;
                    self.admin.notice(self.features.events, NoticeEvent::FIRMWARE_ACTIVATION, page);
                }
                0
            }
            _ => {
                if !matches!(command.nsid, 0 | u32::MAX) {
                    self.io.namespace(command.nsid)?;
                }
                self.tests.command(SelfTestCode(select as u8), command.nsid, now)?;
                0
            }
        };
        Ok(Some(done))
    }
}
