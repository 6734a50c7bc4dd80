//! Feature 85h, Boot Partition Write Protection Config.

use super::{boot::BootPartitions, features::scope, media::Media, state::Core};
use crate::spec::{
    AdminOpcode, BootPartitionWriteProtection, Command, FeatureId, FeatureSelect, FeaturesDword10, Status,
};

impl<M: Media> Core<M> {
    /// Carries out Get Features or Set Features of this feature: returns dword 0 of the completion, and `None` for another
    /// feature, or without boot partitions.
    pub fn boot_feature(&mut self, command: &Command) -> Option<Result<u32, Status>> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        let is_feature = dword.fid() == FeatureId::BOOT_PARTITION_WRITE_PROTECTION;
        let boot = self.firmware.boot.as_mut().filter(|_| is_feature)?;
        Some(match (AdminOpcode(command.opcode), dword.sel()) {
            (AdminOpcode::SET_FEATURES, _) => {
                let value = BootPartitionWriteProtection::from_bits(command.cdw11);
                scope(command, true).and_then(|()| boot.protect(value)).map(|()| 0)
            }
            (_, FeatureSelect::CURRENT) => Ok(boot.protection().into_bits()),
            (_, FeatureSelect::DEFAULT | FeatureSelect::SAVED) => {
                Ok(BootPartitions::default_protection().into_bits())
            }
            // Changeable.
            (_, FeatureSelect::SUPPORTED) => Ok(1 << 2),
            _ => Err(Status::INVALID_FIELD.with_do_not_retry()),
        })
    }
}
