//! Features: settings of the controller. None can be saved.

use super::{io::Io, logs::TEMPERATURE, media::Media};
use crate::spec::{
    ALL_NAMESPACES, Arbitration, AsyncEventConfiguration, Command, ErrorRecovery, FeatureId, FeatureSelect,
    FeaturesDword10, InterruptVectorConfiguration, NumberOfQueues, PowerManagement, Status,
    TemperatureThreshold, VolatileWriteCache,
};

const INVALID_FIELD: Status = Status::INVALID_FIELD.with_do_not_retry();

/// The bits of the SMART log's critical warning for a temperature beyond a threshold.
pub(super) const TEMPERATURE_WARNING: u8 = 1 << 1;

/// Checks the fields of a Set Features that all features share: none can be saved; `of_controller`: there is one value.
pub(super) fn scope(command: &Command, of_controller: bool) -> Result<(), Status> {
    if FeaturesDword10::from_bits(command.cdw10).sv() {
        return Err(Status::FEATURE_NOT_SAVEABLE.with_do_not_retry());
    }
    if of_controller && !matches!(command.nsid, 0 | ALL_NAMESPACES) {
        return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC.with_do_not_retry());
    }
    Ok(())
}

/// The values of the features.
#[derive(Debug, Clone)]
pub(super) struct Features {
    arbitration: u32,
    power: u32,
    over: u16,
    under: u16,
    recovery: Vec<u32>,
    coalescing: u32,
    /// Feature 09h's CD bit by vector.
    uncoalesced: Vec<bool>,
    atomicity: u32,
    pub events: AsyncEventConfiguration,
    /// The largest number of I/O submission and completion queues.
    pub queues: (u16, u16),
    max_queues: u16,
}

impl Features {
    pub fn new(namespaces: u32, vectors: u16, max_queues: u16) -> Self {
        Self {
            arbitration: 6,
            power: 0,
            over: 343,
            under: 0,
            recovery: vec![0; namespaces as usize],
            coalescing: 0,
            uncoalesced: vec![false; vectors.into()],
            atomicity: 0,
            events: AsyncEventConfiguration::new(),
            queues: (max_queues, max_queues),
            max_queues,
        }
    }

    /// Returns the settings of weighted round robin.
    pub fn arbitration(&self) -> Arbitration {
        Arbitration::from_bits(self.arbitration)
    }

    /// Returns the critical warning that the thresholds require.
    pub fn warning(&self) -> u8 {
        if TEMPERATURE >= self.over || TEMPERATURE <= self.under { TEMPERATURE_WARNING } else { 0 }
    }

    /// Carries out Get Features: returns dword 0 of the completion.
    pub fn get(&self, command: &Command, io: &Io<impl Media>) -> Result<u32, Status> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        let feature = dword.fid();
        if feature == FeatureId::KEY_VALUE_CONFIGURATION {
            return io.key_configuration(command);
        }
        match dword.sel() {
            FeatureSelect::CURRENT => self.value(feature, command, io, io.write_cache),
            FeatureSelect::DEFAULT | FeatureSelect::SAVED => {
                let default =
                    Self::new(self.recovery.len() as u32, self.uncoalesced.len() as u16, self.max_queues);
                default.value(feature, command, io, true)
            }
            FeatureSelect::SUPPORTED => {
                self.value(feature, &Command { nsid: 0, cdw11: 0, ..*command }, io, true)?;
                Ok(1 << 2 | u32::from(feature == FeatureId::ERROR_RECOVERY) << 1)
            }
            _ => Err(INVALID_FIELD),
        }
    }

    fn value(
        &self,
        feature: FeatureId,
        command: &Command,
        io: &Io<impl Media>,
        write_cache: bool,
    ) -> Result<u32, Status> {
        Ok(match feature {
            FeatureId::ARBITRATION => self.arbitration,
            FeatureId::POWER_MANAGEMENT => self.power,
            FeatureId::TEMPERATURE_THRESHOLD => {
                let which = TemperatureThreshold::from_bits(command.cdw11);
                match (which.tmpsel(), which.thsel()) {
                    (0, 0) => self.over.into(),
                    (0, 1) => self.under.into(),
                    _ => return Err(INVALID_FIELD),
                }
            }
            FeatureId::ERROR_RECOVERY => match command.nsid {
                // The specification has an error for this. Linux's tools ask without a namespace, and get the first's value.
                0 | ALL_NAMESPACES => self.recovery.first().copied().unwrap_or(0),
                nsid => {
                    io.namespace(nsid)?;
                    self.recovery[nsid as usize - 1]
                }
            },
            FeatureId::VOLATILE_WRITE_CACHE if io.media.is_volatile() => {
                VolatileWriteCache::new().with_wce(write_cache).into_bits()
            }
            FeatureId::NUMBER_OF_QUEUES if self.max_queues == 0 => 0,
            FeatureId::NUMBER_OF_QUEUES => {
                NumberOfQueues::of(self.queues.0.into(), self.queues.1.into()).into_bits()
            }
            FeatureId::INTERRUPT_COALESCING => self.coalescing,
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => {
                let iv = InterruptVectorConfiguration::from_bits(command.cdw11).iv();
                let cd = *self.uncoalesced.get(usize::from(iv)).ok_or(INVALID_FIELD)?;
                InterruptVectorConfiguration::new().with_iv(iv).with_cd(cd).into_bits()
            }
            FeatureId::WRITE_ATOMICITY_NORMAL => self.atomicity,
            FeatureId::ASYNC_EVENT_CONFIGURATION => self.events.into_bits(),
            _ => return Err(INVALID_FIELD),
        })
    }

    /// Carries out Set Features: returns dword 0 of the completion. `has_queues`: there are I/O queues.
    pub fn set(
        &mut self,
        command: &Command,
        io: &mut Io<impl Media>,
        has_queues: bool,
    ) -> Result<u32, Status> {
        let dword = FeaturesDword10::from_bits(command.cdw10);
        let (feature, value) = (dword.fid(), command.cdw11);
        if feature == FeatureId::KEY_VALUE_CONFIGURATION {
            scope(command, false)?;
            return io.configure_keys(command);
        }
        // Refuse unknown features first: their other fields have no meaning.
        self.value(feature, &Command { nsid: 0, cdw11: 0, ..*command }, io, true)?;
        scope(command, feature != FeatureId::ERROR_RECOVERY)?;
        match feature {
            FeatureId::ARBITRATION => self.arbitration = value,
            FeatureId::POWER_MANAGEMENT if PowerManagement::from_bits(value).ps() != 0 => {
                return Err(INVALID_FIELD);
            }
            FeatureId::POWER_MANAGEMENT => self.power = value & 0xff,
            FeatureId::TEMPERATURE_THRESHOLD => {
                let threshold = TemperatureThreshold::from_bits(value);
                match (threshold.tmpsel(), threshold.thsel()) {
                    (0 | 0xf, 0) => self.over = threshold.tmpth(),
                    (0 | 0xf, 1) => self.under = threshold.tmpth(),
                    _ => return Err(INVALID_FIELD),
                }
            }
            // Unwritten blocks always read as zeros here, so this error can't be enabled.
            FeatureId::ERROR_RECOVERY if ErrorRecovery::from_bits(value).dulbe() => {
                return Err(INVALID_FIELD);
            }
            FeatureId::ERROR_RECOVERY if command.nsid == ALL_NAMESPACES => self.recovery.fill(value & 0xffff),
            FeatureId::ERROR_RECOVERY => {
                io.namespace(command.nsid)?;
                self.recovery[command.nsid as usize - 1] = value & 0xffff;
            }
            FeatureId::VOLATILE_WRITE_CACHE => {
                let on = VolatileWriteCache::from_bits(value).wce();
                if io.write_cache && !on {
                    io.media.flush()?;
                }
                io.write_cache = on;
            }
            FeatureId::NUMBER_OF_QUEUES => {
                let asked = NumberOfQueues::from_bits(value);
                if asked.nsq() == 0xffff || asked.ncq() == 0xffff {
                    return Err(INVALID_FIELD);
                }
                if has_queues {
                    return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
                }
                let max = self.max_queues;
                if max == 0 {
                    // A degraded controller.
                    return Err(Status::INTERNAL_ERROR);
                }
                self.queues = ((asked.nsq() + 1).min(max), (asked.ncq() + 1).min(max));
                return Ok(NumberOfQueues::of(self.queues.0.into(), self.queues.1.into()).into_bits());
            }
            // Accepted without effect: an interrupt is raised for each batch.
            FeatureId::INTERRUPT_COALESCING => self.coalescing = value & 0xffff,
            FeatureId::INTERRUPT_VECTOR_CONFIGURATION => {
                let vector = InterruptVectorConfiguration::from_bits(value);
                *self.uncoalesced.get_mut(usize::from(vector.iv())).ok_or(INVALID_FIELD)? = vector.cd();
            }
            FeatureId::WRITE_ATOMICITY_NORMAL => self.atomicity = value & 1,
            FeatureId::ASYNC_EVENT_CONFIGURATION => self.events = AsyncEventConfiguration::from_bits(value),
            _ => return Err(INVALID_FIELD),
        }
        Ok(0)
    }
}
