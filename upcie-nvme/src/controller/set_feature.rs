//! Set Features with typed values.

use super::Controller;
use crate::{
    Error, Result,
    spec::{Command, Feature, FeatureId, FeatureInfo, FeaturesDword10, OptionalCommands},
};

/// The parameters of a Set Features; the default sets the value of the controller, until the next reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureUpdate {
    /// The namespace (NSID), for features of a namespace;
    /// [`ALL_NAMESPACES`](crate::spec::ALL_NAMESPACES) for all of them.
    pub nsid: u32,
    /// Keeps the value over power cycles and resets (SV).
    pub save: bool,
    /// The NVM set or the endurance group, for features whose value is not in dword 11.
    pub group: u16,
    /// UUID index, 7 bits; 0 for none.
    pub uuid_index: u8,
}

impl Controller {
    /// Sets a feature of the controller until the next power cycle; a [`reset`](Self::reset) sets it again. Returns dword 0 of
    /// the completion.
    ///
    /// ```
    /// use upcie_nvme::{Controller, spec::{Arbitration, TemperatureThreshold}};
    /// let controller = Controller::open("emu:size=1M")?;
    /// controller.set_feature(&TemperatureThreshold::new().with_tmpth(350))?;
    /// assert_eq!(controller.feature::<TemperatureThreshold>()?.tmpth(), 350);
    /// let arbitration = controller.feature::<Arbitration>()?;
    /// controller.set_feature(&arbitration.with_ab(3))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`set_feature_with`](Self::set_feature_with).
    pub fn set_feature<F: Feature>(&self, value: &F) -> Result<u32> {
        self.set_feature_with(value, &FeatureUpdate::default())
    }

    /// Sets a feature like [`set_feature`](Self::set_feature), of a namespace, or so that it is saved.
    ///
    /// # Errors
    /// - [`Failure::Argument`](crate::Failure::Argument) for a feature that the driver sets itself or that gives the controller
    ///   memory, and for `save` on a controller that saves nothing.
    /// - [`Failure::InUse`](crate::Failure::InUse) for a feature that changes what queue pairs rely on, while one exists.
    /// - The controller's status, or a timeout.
    pub fn set_feature_with<F: Feature>(&self, value: &F, update: &FeatureUpdate) -> Result<u32> {
        let (dword, data) = value.to_command();
        self.set_feature_bytes(F::ID, dword, &data, update)
    }

    /// Sets a feature by its dword and its data, for programs that choose one by number or name.
    ///
    /// # Errors
    /// Those of [`set_feature_with`](Self::set_feature_with).
    pub fn set_feature_bytes(
        &self,
        id: FeatureId,
        dword: u32,
        data: &[u8],
        update: &FeatureUpdate,
    ) -> Result<u32> {
        let saves = self.identify().optional_commands().contains(OptionalCommands::SAVED_FEATURES);
        if update.save && !saves {
            let reason =
                format!("{id}: the controller saves no features (ONCS bit 4): set it without saving");
            return Err(Error::argument(self.name(), reason));
        }
        let mut command = Command::set_features(id, dword);
        command.nsid = update.nsid;
        command.cdw10 = FeaturesDword10::from_bits(command.cdw10).with_sv(update.save).into_bits();
        if FeatureInfo::of(id).is_some_and(|info| info.in_dword12) {
            (command.cdw11, command.cdw12) = (update.group.into(), dword);
        }
        command.cdw14 = u32::from(update.uuid_index & 0x7f);
        self.admin(&command, &mut data.to_vec())
    }
}
