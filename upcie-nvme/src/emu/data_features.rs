//! Features whose value is data in the host's memory, and the keep alive timer.

use super::{
    HostMemory,
    features::scope,
    host_buffer,
    host_data::{HostData, KEEP_ALIVE_UNITS},
    media::Media,
    optional::COPY_FORMATS,
    state::Core,
};
use crate::spec::{Command, FeatureId, FeatureSelect, FeaturesDword10, HostBehaviorData, Status};
use std::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

impl<M: Media> Core<M> {
    /// Carries out Get Features of a feature with data, or of the keep alive timer; returns `None` for another one.
    pub fn get_host_data(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: Duration,
    ) -> Option<Result<u32, Status>> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        let fresh = HostData::default();
        let data = if dword.sel() == FeatureSelect::CURRENT { &self.host_data } else { &fresh };
        let bytes = match dword.fid() {
            FeatureId::TIMESTAMP => data.time(now).as_bytes().to_vec(),
            FeatureId::HOST_BEHAVIOR_SUPPORT => data.behavior.as_bytes().to_vec(),
            FeatureId::KEEP_ALIVE_TIMER => Vec::new(),
            FeatureId::HOST_MEMORY_BUFFER if self.options.hmb > 0 => {
                let mut bytes = vec![0; 4096];
                bytes[..16].copy_from_slice(data.buffer.attributes().as_bytes());
                bytes
            }
            _ => return None,
        };
        let dword0 = match dword.fid() {
            FeatureId::KEEP_ALIVE_TIMER => data.keep_alive,
            FeatureId::HOST_MEMORY_BUFFER => data.buffer.dword0(),
            _ => 0,
        };
        Some(match dword.sel().0 {
            0..=2 if bytes.is_empty() => Ok(dword0),
            0..=2 => self.send(host, command, &bytes).map(|()| dword0),
            // Changeable.
            3 => Ok(1 << 2),
            _ => Err(INVALID_FIELD),
        })
    }

    /// Carries out Set Features like [`get_host_data`](Self::get_host_data). ACRE of Host Behavior Support has an effect:
    /// statuses of a fault plan name delays.
    pub fn set_host_data(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        now: Duration,
    ) -> Option<Result<u32, Status>> {
        let feature = FeaturesDword10::from_bits(command.cdw10).fid();
        let has_data = match feature {
            FeatureId::TIMESTAMP | FeatureId::HOST_BEHAVIOR_SUPPORT | FeatureId::KEEP_ALIVE_TIMER => true,
            FeatureId::HOST_MEMORY_BUFFER => self.options.hmb > 0,
            _ => false,
        };
        has_data.then(|| {
            scope(command, true)?;
            self.take_host_data(host, command, feature, now).map(|()| 0)
        })
    }

    fn take_host_data(
        &mut self,
        host: &mut impl HostMemory,
        command: &Command,
        feature: FeatureId,
        now: Duration,
    ) -> Result<(), Status> {
        match feature {
            FeatureId::TIMESTAMP => {
                let mut data = [0; 8];
                self.receive(host, command, &mut data)?;
                self.host_data.timestamp = Some((u64::from_le_bytes(data) & ((1 << 48) - 1), now));
            }
            FeatureId::HOST_MEMORY_BUFFER => {
                let least = host_buffer::least(self.options.hmb);
                self.host_data.buffer.set(host, command, (self.io.page, least))?;
            }
            FeatureId::KEEP_ALIVE_TIMER => {
                let unit = u32::from(KEEP_ALIVE_UNITS) * 100;
                self.host_data.keep_alive = command.cdw11.div_ceil(unit).saturating_mul(unit);
                self.host_data.keep_alive(now);
            }
            _ => {
                let mut data = HostBehaviorData::new_zeroed();
                self.receive(host, command, data.as_mut_bytes())?;
                let flags = [
                    data.advanced_command_retry,
                    data.extended_telemetry_data_area_4,
                    data.extended_lba_formats,
                ];
                if flags.iter().any(|&flag| flag > 1) || data.copy_descriptor_formats & !COPY_FORMATS != 0 {
                    return Err(INVALID_FIELD);
                }
                self.io.copy_formats = data.copy_descriptor_formats;
                if let Some(staging) = &mut self.staging {
                    staging.delays = data.advanced_command_retry == 1;
                }
                self.host_data.behavior = data;
            }
        }
        Ok(())
    }
}
