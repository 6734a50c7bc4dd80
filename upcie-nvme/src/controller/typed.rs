//! Log pages, identify data and features as typed structures.

use super::{Controller, Limit};
use crate::{
    Error, Result,
    spec::{
        ALL_NAMESPACES, Cns, Command, Csi, Feature, FeatureCapabilities, FeatureId, FeatureSelect,
        FeaturesDword10, IdentifyController, IdentifyData, IdentifyDword10, IdentifyDword11, LogPage,
        LogPageDword10, LogPageDword11, LogPageId,
    },
};

/// The most bytes of a log page that are read: a controller may claim any length.
const LONGEST_LOG: u64 = 256 << 20;
/// The most bytes that one Get Log Page asks for.
const PIECE: u64 = 128 << 10;
/// The most bytes of a log page if the controller has no extended data (LPA bit 2): no offset, 12 bits of dwords.
const SHORT: u64 = 16 << 10;

/// The parameters of a Get Log Page; the default is the log page of the controller, its event retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// The namespace (NSID); [`ALL_NAMESPACES`] for log pages of the controller.
    pub nsid: u32,
    /// Log-specific parameter (LSP), 7 bits.
    pub parameter: u8,
    /// Log-specific identifier (LSI): an NVM set, an endurance group, a domain.
    pub identifier: u16,
    /// Command set identifier (CSI).
    pub csi: Csi,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
    /// Retains the asynchronous event that reading the page clears otherwise (RAE).
    pub retain_event: bool,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self {
            nsid: ALL_NAMESPACES,
            parameter: 0,
            identifier: 0,
            csi: Csi::NVM,
            uuid_index: 0,
            retain_event: true,
        }
    }
}

impl LogQuery {
    fn command(&self, id: LogPageId, bytes: u64, offset: u64) -> Command {
        let mut command = Command::get_log_page(id, self.nsid, bytes as u32, offset);
        let dword = LogPageDword10::from_bits(command.cdw10).with_lsp(self.parameter & 0x7f);
        command.cdw10 = dword.with_rae(self.retain_event).into_bits();
        command.cdw11 = LogPageDword11::from_bits(command.cdw11).with_lsi(self.identifier).into_bits();
        command.cdw14 = u32::from(self.csi.0) << 24 | u32::from(self.uuid_index & 0x7f);
        command
    }
}

/// The parameters of an Identify; the default is 0 for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IdentifyQuery {
    /// The namespace (NSID), or the one after which a list begins.
    pub nsid: u32,
    /// The controller (CNTID), or the one at which a list begins.
    pub controller_id: u16,
    /// The identifier that the structure takes (CNSSI): an NVM set, a domain, an endurance group, a format index.
    pub specific_id: u16,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
}

/// The parameters of a Get Features; the default is the current value of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureQuery {
    /// The value to return: the current one, the default or the saved one.
    pub select: FeatureSelect,
    /// The namespace (NSID), for features of a namespace.
    pub nsid: u32,
    /// Command dword 11: a sensor, a vector, an NVM set; the feature's own if `None`.
    pub dword11: Option<u32>,
}

impl Controller {
    /// Reads a log page, as long as it is, in as many commands as the controller's transfer limit takes. The
    /// asynchronous event that the page belongs to is retained. All of it takes the controller's timeout and a second for each
    /// MiB at most, and each command the timeout.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::SmartLog};
    /// let controller = Controller::open("emu:size=1M")?;
    /// let smart = controller.log::<SmartLog>()?;
    /// assert_eq!(smart.available_spare, 100);
    /// println!("{smart}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`log_bytes`](Self::log_bytes).
    pub fn log<L: LogPage>(&self) -> Result<L> {
        self.log_with(&LogQuery::default())
    }

    /// Reads a log page like [`log`](Self::log), with parameters.
    ///
    /// # Errors
    /// Those of [`log_bytes`](Self::log_bytes).
    pub fn log_with<L: LogPage>(&self, query: &LogQuery) -> Result<L> {
        self.log_limited(query, &mut self.inner.limit())
    }

    /// Reads a log page like [`log_with`](Self::log_with), as a part of a call.
    pub(crate) fn log_limited<L: LogPage>(&self, query: &LogQuery, limit: &mut Limit<'_>) -> Result<L> {
        let page = self.read_log(L::ID, query, L::len, limit)?;
        L::from_page(&page)
            .ok_or_else(|| self.invalid_data(L::ID, "the page is shorter than its header".into()))
    }

    /// Reads a log page as bytes. `len` returns the length by the bytes that were read so far, like
    /// [`LogPage::len`]; `|_, _| 512` reads 512 bytes.
    ///
    /// A page that changes between two commands may be inconsistent; some have a generation number that tells.
    ///
    /// # Errors
    /// - [`Failure::Protocol`](crate::Failure::Protocol) for a page of more than 256 MiB: read it in parts by
    ///   [`admin`](Self::admin).
    /// - [`Failure::Argument`](crate::Failure::Argument) for a page of more than one command on a controller that takes no
    ///   offset (LPA bit 2).
    /// - The controller's status, or a timeout: of a command, or of the whole page, which has a second more for each MiB.
    pub fn log_bytes(
        &self,
        id: LogPageId,
        query: &LogQuery,
        len: impl Fn(&[u8], &IdentifyController) -> u64,
    ) -> Result<Vec<u8>> {
        self.read_log(id, query, len, &mut self.inner.limit())
    }

    fn read_log(
        &self,
        id: LogPageId,
        query: &LogQuery,
        len: impl Fn(&[u8], &IdentifyController) -> u64,
        limit: &mut Limit<'_>,
    ) -> Result<Vec<u8>> {
        let extended = self.identify().lpa & 1 << 2 != 0;
        let most = (self.max_transfer() as u64).min(if extended { PIECE } else { SHORT }) & !3;
        let (mut page, mut query) = (Vec::new(), *query);
        loop {
            let have = page.len() as u64;
            let wanted = len(&page, self.identify());
            if wanted > LONGEST_LOG {
                let reason = format!("the page claims {wanted} bytes; read parts of it by `admin`");
                return Err(self.invalid_data(id, reason));
            }
            // Whole dwords are read.
            let wanted = wanted.next_multiple_of(4);
            if wanted <= have {
                return Ok(page);
            }
            // Without extended data each command starts at the beginning.
            let from = if extended { have } else { 0 };
            if !extended && wanted > most {
                let reason = format!(
                    "has {wanted} bytes, and the controller takes no offset to read more than {most}"
                );
                return Err(Error::argument(self.name(), format!("log page {id} {reason}")));
            }
            let bytes = (wanted - from).min(most);
            page.resize((from + bytes) as usize, 0);
            limit.allow_bytes(wanted);
            let command = query.command(id, bytes, from);
            // The bits of the parameter that begin something: with the first command only, which is sent once.
            let begins = match id {
                LogPageId::TELEMETRY_HOST | LogPageId::PERSISTENT_EVENTS => 1,
                // The action; the quality stays.
                LogPageId::EYE_OPENING => 0xc,
                _ => 0,
            };
            let tries = if query.parameter & begins == 0 { self.inner.retries() } else { 0 };
            let (mut one, part) = (limit.part(self.inner.timeout()), &mut page[from as usize..]);
            let what = || format!("Get Log Page of {id}");
            self.inner.retrying(tries, &what, &mut one, |one| self.admin_limited(&command, part, one))?;
            query.parameter &= !begins;
        }
    }

    /// Runs an Identify, and returns the structure.
    ///
    /// ```
    /// use upcie_nvme::{Controller, IdentifyQuery, spec::IdentifyNamespace};
    /// let controller = Controller::open("emu:size=1M,lba=4096")?;
    /// let query = IdentifyQuery { nsid: 1, ..Default::default() };
    /// let namespace = controller.identify_as::<IdentifyNamespace>(&query)?;
    /// assert_eq!(namespace.nsze, 256);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The controller's status (Invalid Field if it doesn't have the structure), or a timeout.
    pub fn identify_as<S: IdentifyData>(&self, query: &IdentifyQuery) -> Result<S> {
        self.identify_limited(query, &mut self.inner.limit())
    }

    /// Runs an Identify like [`identify_as`](Self::identify_as), as a part of a call.
    pub(crate) fn identify_limited<S: IdentifyData>(
        &self,
        query: &IdentifyQuery,
        limit: &mut Limit<'_>,
    ) -> Result<S> {
        self.read_identify(S::CNS, S::CSI, query, limit).map(|page| S::from_page(&page))
    }

    /// Runs an Identify, and returns its 4096 bytes.
    ///
    /// # Errors
    /// Those of [`identify_as`](Self::identify_as).
    pub fn identify_bytes(&self, cns: Cns, csi: Csi, query: &IdentifyQuery) -> Result<Box<[u8; 4096]>> {
        self.read_identify(cns, csi, query, &mut self.inner.limit())
    }

    fn read_identify(
        &self,
        cns: Cns,
        csi: Csi,
        query: &IdentifyQuery,
        limit: &mut Limit<'_>,
    ) -> Result<Box<[u8; 4096]>> {
        let mut command = Command::identify(cns, query.nsid, 0);
        command.cdw10 = IdentifyDword10::new().with_cns(cns).with_cntid(query.controller_id).into_bits();
        command.cdw11 = IdentifyDword11::new().with_cnssi(query.specific_id).with_csi(csi).into_bits();
        command.cdw14 = u32::from(query.uuid_index & 0x7f);
        let mut page = Box::new([0; 4096]);
        let send = |limit: &mut Limit<'_>| self.admin_limited(&command, &mut *page, limit);
        self.inner.retrying(self.inner.retries(), &|| "Identify".into(), limit, send)?;
        Ok(page)
    }

    /// Returns the current value of a feature of the controller.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::NumberOfQueues};
    /// let controller = Controller::open("emu:size=1M,queues=4")?;
    /// assert_eq!(controller.feature::<NumberOfQueues>()?.submission_queues(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`feature_with`](Self::feature_with).
    pub fn feature<F: Feature>(&self) -> Result<F> {
        self.feature_with(&FeatureQuery::default())
    }

    /// Returns a value of a feature: the current one, the default or the saved one, of the controller or a namespace.
    ///
    /// # Errors
    /// - [`Failure::Argument`](crate::Failure::Argument) for a feature whose data has a length that is not known here, and for
    ///   [`FeatureSelect::SUPPORTED`], whose answer is no value: see
    ///   [`feature_capabilities`](Self::feature_capabilities).
    /// - The controller's status (Invalid Field if it doesn't have the feature), or a timeout.
    pub fn feature_with<F: Feature>(&self, query: &FeatureQuery) -> Result<F> {
        self.feature_limited(query, &mut self.inner.limit())
    }

    /// Returns a value of a feature like [`feature_with`](Self::feature_with), as a part of a call.
    pub(crate) fn feature_limited<F: Feature>(
        &self,
        query: &FeatureQuery,
        limit: &mut Limit<'_>,
    ) -> Result<F> {
        let dword11 = query.dword11.unwrap_or(F::DWORD11);
        let query = FeatureQuery { dword11: Some(dword11), ..*query };
        let (dword0, data) = self.read_feature(F::ID, F::DATA, &query, limit)?;
        let short = || Error::argument(self.name(), format!("{}: the data is too short", F::ID));
        F::from_answer(dword0, &data).ok_or_else(short)
    }

    /// Returns dword 0 of the answer to a Get Features, and `len` bytes of data.
    ///
    /// # Errors
    /// Those of [`feature_with`](Self::feature_with).
    pub fn feature_bytes(&self, id: FeatureId, len: usize, query: &FeatureQuery) -> Result<(u32, Vec<u8>)> {
        self.read_feature(id, len, query, &mut self.inner.limit())
    }

    fn read_feature(
        &self,
        id: FeatureId,
        len: usize,
        query: &FeatureQuery,
        limit: &mut Limit<'_>,
    ) -> Result<(u32, Vec<u8>)> {
        if query.select == FeatureSelect::SUPPORTED {
            let reason = format!("{id}: the supported capabilities are no value: use `feature_capabilities`");
            return Err(Error::argument(self.name(), reason));
        }
        let mut data = vec![0; len];
        let dword0 = self.get_feature(id, query, &mut data, limit)?;
        Ok((dword0, data))
    }

    /// Returns what the controller lets hosts do with a feature.
    ///
    /// # Errors
    /// Those of [`feature_with`](Self::feature_with); a controller without selections (ONCS bit 4) may answer with the
    /// value.
    pub fn feature_capabilities(&self, id: FeatureId) -> Result<FeatureCapabilities> {
        let query = FeatureQuery { select: FeatureSelect::SUPPORTED, ..Default::default() };
        self.get_feature(id, &query, &mut [], &mut self.inner.limit()).map(FeatureCapabilities::from_bits)
    }

    fn get_feature(
        &self,
        id: FeatureId,
        query: &FeatureQuery,
        data: &mut [u8],
        limit: &mut Limit<'_>,
    ) -> Result<u32> {
        let cdw10 = FeaturesDword10::new().with_fid(id).with_sel(query.select).into_bits();
        let command = Command::get_features(id, query.select);
        let cdw11 = query.dword11.unwrap_or(0);
        let command = Command { nsid: query.nsid, cdw10, cdw11, ..command };
        let send = |limit: &mut Limit<'_>| self.admin_limited(&command, data, limit);
        self.inner.retrying(self.inner.retries(), &|| format!("Get Features of {id}"), limit, send)
    }

    fn invalid_data(&self, id: LogPageId, reason: String) -> Error {
        Error::protocol(self.name(), format!("Get Log Page of {id}"), reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_get_log_page_go_to_their_dwords() {
        let query = LogQuery {
            nsid: 7,
            parameter: 0xff,
            identifier: 0x1234,
            csi: Csi::ZONED,
            uuid_index: 0xff,
            retain_event: true,
        };
        let command = query.command(LogPageId::ENDURANCE_GROUP, 0x4_0000, 0x1_0000_0004);
        let dwords = [command.cdw10, command.cdw11, command.cdw12, command.cdw13, command.cdw14];
        assert_eq!(dwords, [0xffff_ff09, 0x1234_0000, 4, 1, 0x0200_007f]);
        assert_eq!((command.nsid, command.log_page_bytes()), (7, 0x4_0000));
        let cleared = LogQuery { parameter: 0, retain_event: false, ..query };
        assert_eq!(cleared.command(LogPageId::SMART, 512, 0).cdw10, 0x007f_0002);
    }
}
