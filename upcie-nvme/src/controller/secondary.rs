//! Secondary controllers: those of a primary controller's virtual functions (Base, "Virtualization Enhancements").

use super::{Controller, IdentifyQuery, Limit};
use crate::{
    Error, Result,
    spec::{
        PrimaryController, SecondaryController, SecondaryControllerList, VirtualResource,
        VirtualizationAction, VirtualizationManagement,
    },
};

/// A kind of resource in the words of Identify: its name, those in all, those of the primary controller, of secondary ones, and
/// the most of one secondary controller.
struct Pool {
    resource: VirtualResource,
    name: &'static str,
    total: u32,
    of_primary: u16,
    assigned: u32,
    most: u16,
}

impl Pool {
    fn both(of: &PrimaryController) -> [Self; 2] {
        [
            Self {
                resource: VirtualResource::QUEUES,
                name: "queue pairs (VQ)",
                total: of.vq_flexible_total,
                of_primary: of.vq_flexible_of_primary,
                assigned: of.vq_flexible_assigned,
                most: of.vq_max_of_secondary,
            },
            Self {
                resource: VirtualResource::INTERRUPTS,
                name: "interrupt vectors (VI)",
                total: of.vi_flexible_total,
                of_primary: of.vi_flexible_of_primary,
                assigned: of.vi_flexible_assigned,
                most: of.vi_max_of_secondary,
            },
        ]
    }

    fn free(&self) -> u32 {
        self.total.saturating_sub(self.of_primary.into()).saturating_sub(self.assigned)
    }

    /// Returns the reason why no secondary controller can get so many.
    fn refusal(&self, wanted: u16) -> Option<String> {
        let (name, most, free) = (self.name, self.most, self.free());
        if wanted > most {
            return Some(format!(
                "a secondary controller can have {most} {name} at most, and {wanted} are wanted"
            ));
        }
        (u32::from(wanted) > free).then(|| {
            format!(
                "{wanted} {name} are wanted, and {free} of {} are free: the primary controller has {}, secondary ones {} \
                 (`release_flexible` and `take_offline` free them)",
                self.total, self.of_primary, self.assigned
            )
        })
    }
}

impl Controller {
    /// Lists the secondary controllers, by their identifiers (CNTLID), with their state, resources and the number of their virtual
    /// function.
    ///
    /// # Errors
    /// The controller's status (Invalid Field if it is no primary controller), or a timeout of the whole list.
    pub fn secondary_controllers(&self) -> Result<Vec<SecondaryController>> {
        let (mut all, mut limit) = (Vec::<SecondaryController>::new(), self.inner.limit());
        loop {
            let last = all.last().map(|last| last.secondary_controller_id);
            let Some(from) = last.map_or(Some(0), |last| last.checked_add(1)) else { return Ok(all) };
            let query = IdentifyQuery { controller_id: from, ..Default::default() };
            let list = self.identify_limited::<SecondaryControllerList>(&query, &mut limit)?;
            let more = list.used();
            let ids = more.iter().map(|controller| controller.secondary_controller_id);
            if ids.clone().any(|id| id < from) || !ids.is_sorted_by(|a, b| a < b) {
                let operation = "Identify (secondary controllers)";
                return Err(Error::protocol(self.name(), operation, "the list is not ascending"));
            }
            all.extend(more);
            if more.len() < list.controllers.len() {
                return Ok(all);
            }
        }
    }

    /// Gives up the flexible resources of this primary controller itself, for secondary ones. Returns whether it had any: it has
    /// them until its function is reset, which opening it again does through VFIO. (A [`reset`](Self::reset) of this handle
    /// would find fewer queues than before.)
    ///
    /// # Errors
    /// Those of [`bring_online`](Self::bring_online).
    pub fn release_flexible(&self) -> Result<bool> {
        let (mut had, mut limit) = (false, self.inner.limit());
        let primary = self.primary(&mut limit)?;
        let (action, id) = (VirtualizationAction::PRIMARY_FLEXIBLE, self.identify().cntlid);
        for pool in Pool::both(&primary).into_iter().filter(|pool| pool.of_primary > 0) {
            had = true;
            self.manage(action, id, (pool.resource, 0), &mut limit)?;
        }
        Ok(had)
    }

    /// Gives a secondary controller so many queue pairs (VQ, its admin queue's included: 2 at least) and interrupt vectors (VI, 1
    /// at least), in place of those that it has, and turns it on. Its virtual function can be opened then, by its own address.
    ///
    /// It stays on while this controller does: a reset or the end of this one turns it off.
    ///
    /// ```no_run
    /// use upcie_core::pci::{Binder, Function};
    /// use upcie_nvme::Controller;
    ///
    /// let function = Function::at("0000:01:00.0".parse()?)?;
    /// let token = "token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
    /// let primary = Controller::open(format!("0000:01:00.0,{token}"))?;
    /// let functions = Binder::new().set_virtual_functions(&function, 2)?;
    /// for secondary in primary.secondary_controllers()?.iter().take(2) {
    ///     primary.bring_online(secondary.secondary_controller_id, 4, 3)?;
    /// }
    /// let secondary = Controller::open(format!("{},{token}", functions[0]))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// - [`Failure::Argument`](crate::Failure::Argument): the resources are not there, with the numbers of those that are; or the
    ///   controller has no Virtualization Management.
    /// - [`Failure::InUse`](crate::Failure::InUse): a queue pair of a controller of the NVM subsystem exists in this process, of
    ///   another virtual function, say. Turn all of them on first.
    /// - The controller's status, or a timeout of all steps together.
    pub fn bring_online(&self, secondary: u16, queues: u16, interrupts: u16) -> Result<()> {
        let (mut limit, none) = (self.inner.limit(), (VirtualResource::default(), 0));
        self.manage(VirtualizationAction::SECONDARY_OFFLINE, secondary, none, &mut limit)?;
        let primary = self.primary(&mut limit)?;
        for (pool, wanted) in Pool::both(&primary).into_iter().zip([queues, interrupts]) {
            let what = || format!("secondary controller {secondary}");
            if let Some(reason) = pool.refusal(wanted) {
                return Err(Error::argument(self.name(), format!("{}: {reason}", what())));
            }
            let (action, resource) = (VirtualizationAction::SECONDARY_ASSIGN, (pool.resource, wanted));
            let got = self.manage(action, secondary, resource, &mut limit)?;
            if got != wanted {
                let reason = format!("{}: {got} {} were assigned, not {wanted}", what(), pool.name);
                return Err(Error::protocol(self.name(), "Virtualization Management", reason));
            }
        }
        self.manage(VirtualizationAction::SECONDARY_ONLINE, secondary, none, &mut limit).map(drop)
    }

    /// Turns a secondary controller off, and takes its resources. Whoever drives it finds it failed.
    ///
    /// # Errors
    /// Those of [`bring_online`](Self::bring_online).
    pub fn take_offline(&self, secondary: u16) -> Result<()> {
        let (action, none) = (VirtualizationAction::SECONDARY_OFFLINE, (VirtualResource::default(), 0));
        self.manage(action, secondary, none, &mut self.inner.limit()).map(drop)
    }

    fn primary(&self, limit: &mut Limit<'_>) -> Result<PrimaryController> {
        let query = IdentifyQuery { controller_id: self.identify().cntlid, ..Default::default() };
        self.identify_limited(&query, limit)
    }

    fn manage(
        &self,
        action: VirtualizationAction,
        controller: u16,
        (resource, number): (VirtualResource, u16),
        limit: &mut Limit<'_>,
    ) -> Result<u16> {
        self.execute_limited(&VirtualizationManagement { action, controller, resource, number }, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;
    use crate::spec::{PrimaryController, VirtualResource};
    use zerocopy::FromZeros;

    #[test]
    fn missing_resources_are_refused_with_the_numbers() {
        let mut primary = PrimaryController::new_zeroed();
        (primary.vq_flexible_total, primary.vq_flexible_assigned) = (8, 3);
        (primary.vq_flexible_of_primary, primary.vq_max_of_secondary) = (2, 4);
        (primary.vi_flexible_total, primary.vi_max_of_secondary) = (2, 9);
        let [queues, interrupts] = Pool::both(&primary);
        assert_eq!((queues.resource, queues.free()), (VirtualResource::QUEUES, 3));
        assert_eq!((interrupts.resource, interrupts.free()), (VirtualResource::INTERRUPTS, 2));
        assert_eq!((queues.refusal(3), interrupts.refusal(2)), (None, None));
        let reason = queues.refusal(4).unwrap();
        assert!(reason.contains("4 queue pairs (VQ) are wanted, and 3 of 8 are free"), "{reason}");
        assert!(reason.contains("the primary controller has 2, secondary ones 3"), "{reason}");
        assert!(queues.refusal(5).unwrap().contains("can have 4 queue pairs (VQ) at most"));
        assert!(interrupts.refusal(3).unwrap().contains("2 of 2 are free"));
        // A controller that contradicts itself.
        primary.vq_flexible_assigned = 9;
        assert_eq!(Pool::both(&primary)[0].free(), 0);
    }
}
