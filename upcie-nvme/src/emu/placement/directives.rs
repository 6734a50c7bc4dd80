//! Directive Send and Receive: Identify tells that Data Placement is supported, and it is on where flexible data placement is.

use super::super::{HostMemory, media::Media, state::Core};
use crate::spec::{AdminOpcode, Command, DirectiveType, Status};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// Return Parameters of Identify.
const PARAMETERS: u32 = 1;
/// Bytes of the lists of directives that are supported, on, and kept over a reset.
const LIST: usize = 32;

impl<M: Media> Core<M> {
    /// Carries out a Directive Receive; a Directive Send is refused: Data Placement follows feature 1Dh. Returns dword 0 of
    /// the completion.
    pub(in super::super) fn direct(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
    ) -> Result<u32, Status> {
        self.io.namespace(command.nsid)?;
        let on = self.io.placement.as_ref().is_some_and(|placement| placement.is_on());
        let identify = u32::from(DirectiveType::IDENTIFY.0) << 8 | PARAMETERS;
        if AdminOpcode(command.opcode) != AdminOpcode::DIRECTIVE_RECEIVE || command.cdw11 & 0xffff != identify
        {
            return Err(INVALID_FIELD);
        }
        let len = (u64::from(command.cdw10) + 1) * 4;
        if len > self.io.mdts {
            return Err(INVALID_FIELD);
        }
        let (always, placed) = (1 << DirectiveType::IDENTIFY.0, 1 << DirectiveType::DATA_PLACEMENT.0);
        let mut lists = vec![0; 3 * LIST];
        lists[0] = always | placed;
        lists[LIST] = always | if on { placed } else { 0 };
        lists[2 * LIST] = if on { placed } else { 0 };
        self.send_padded(host, command, lists, len).map(|()| 0)
    }
}
