//! Admin commands as structures.

use super::{Controller, Limit};
use crate::{
    Error, Result,
    spec::{AdminCommand, DataDirection, FirmwareDownload},
};
use std::{ops::ControlFlow, time::Duration};

/// The most bytes of a firmware image that one command downloads.
const PART: usize = 128 << 10;

impl Controller {
    /// Runs an admin command that is a structure, and returns its answer. A command that the controller lacks by its Identify
    /// data is refused with the reason, and nothing is sent.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::{DeleteNamespace, FormatNvm}};
    /// let controller = Controller::open("emu:size=1M,namespaces=2")?;
    /// controller.execute(&FormatNvm { nsid: 1, format: 1, ..Default::default() })?;
    /// assert_eq!(controller.namespace(1)?.block_size(), 4096);
    /// controller.execute(&DeleteNamespace { nsid: 2 })?;
    /// assert_eq!(controller.namespace_ids()?, [1]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Failure::Argument`](crate::Failure::Argument) for what the controller can't do, and those of [`admin`](Self::admin).
    pub fn execute<C: AdminCommand>(&self, command: &C) -> Result<C::Answer> {
        self.execute_within(command, self.inner.timeout())
    }

    /// Runs an admin command like [`execute`](Self::execute), with a deadline of its own.
    ///
    /// # Errors
    /// Those of [`execute`](Self::execute).
    pub fn execute_within<C: AdminCommand>(&self, command: &C, timeout: Duration) -> Result<C::Answer> {
        self.execute_limited(command, &mut self.inner.limit_of(timeout))
    }

    /// Runs an admin command like [`execute`](Self::execute), as a part of a call.
    pub(super) fn execute_limited<C: AdminCommand>(
        &self,
        command: &C,
        limit: &mut Limit<'_>,
    ) -> Result<C::Answer> {
        if let Some(reason) = command.refusal(self.identify()) {
            return Err(Error::argument_of(self.name(), C::OPCODE.to_string(), reason));
        }
        let mut data = match C::OPCODE.direction() {
            DataDirection::FromController => vec![0; command.returns()],
            _ => command.data().into_owned(),
        };
        let dword0 = self.admin_limited(&command.command(), &mut data, limit)?;
        let invalid = || Error::protocol(self.name(), C::OPCODE.to_string(), "the answer is inconsistent");
        command.answer(dword0, data).ok_or_else(invalid)
    }

    /// Downloads a firmware image in parts that the controller takes (FWUG, MDTS); a
    /// [`FirmwareCommit`](crate::spec::FirmwareCommit) puts it into a slot. `progress` is called with the bytes that the
    /// controller has, and may end the download: the result is then its `Break`, and a commit would be of a part of the image.
    ///
    /// It takes the controller's timeout and a second for each MiB of the image at most, and the timeout for each part; the
    /// time in `progress` does not count.
    ///
    /// # Errors
    /// [`Failure::Argument`](crate::Failure::Argument) for an empty image, one above 4 GiB or one that has not whole dwords, or
    /// a controller that takes none; the controller's status, or a timeout. The error names the bytes that were downloaded
    /// before it, if there are any.
    pub fn download_firmware(
        &self,
        image: &[u8],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>> {
        if image.is_empty() || u32::try_from(image.len()).is_err() {
            return Err(Error::argument(self.name(), "a firmware image has 4 bytes to 4 GiB"));
        }
        if image.len() % 4 != 0 {
            let reason = format!(
                "a firmware image has whole dwords, and this one {} bytes: check that the file is complete",
                image.len()
            );
            return Err(Error::argument(self.name(), reason));
        }
        let unit = FirmwareDownload::granularity(self.identify());
        if unit > self.max_transfer() {
            let most = self.max_transfer();
            let reason = format!(
                "the controller takes firmware in units of {unit} bytes (FWUG), and transfers {most}"
            );
            return Err(Error::protocol(self.name(), "Firmware Image Download", reason));
        }
        let part = (PART.min(self.max_transfer()) / unit * unit).max(unit);
        let (mut have, mut limit) = (0, self.inner.limit_for(image.len() as u64));
        for data in image.chunks(part) {
            let command = FirmwareDownload { offset: have as u32, data };
            let sent = self.execute_limited(&command, &mut limit.part(self.inner.timeout()));
            sent.map_err(|error| match have {
                0 => error,
                _ => error.with_note(&format!(
                    " after the first {have} bytes (the controller has a part of the image: download all of it before a \
                     commit)"
                )),
            })?;
            have += data.len();
            if limit.outside(|| progress(have)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
