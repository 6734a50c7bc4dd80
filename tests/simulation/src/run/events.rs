//! Asynchronous events: one that the controller raises arrives, before a reset and after it. Stale namespace handles.

use super::{Broken, Run};
use crate::stamp::BLOCK;
use std::time::Duration;
use upcie_core::dma::DmaBuf;
use upcie_nvme::{
    QueuePair, Refusal,
    emu::Fault,
    spec::{AdminOpcode, AsyncEvent, AsyncEventType, Command, EventKind, LogPageId, NoticeEvent},
};

/// The embedded controller's own command: raises an event.
const RAISE: AdminOpcode = AdminOpcode(0xc0);
/// The longest time until an event arrives.
const ARRIVAL: Duration = Duration::from_secs(2);
/// More events than storms of a case have.
const STORMS: usize = 100;

impl Run<'_> {
    /// Lets the controller raise an event, and waits for it if `take`.
    pub(super) fn event(&mut self, notice: bool, take: bool) -> Result<(), Broken> {
        let (Some((controller, _)), Some(_)) = (&self.open, &self.events) else { return Ok(()) };
        let event = match notice {
            true => AsyncEvent::new()
                .with_kind(AsyncEventType::NOTICE)
                .with_information(NoticeEvent::NAMESPACE_ATTRIBUTES.0)
                .with_log_page(LogPageId::CHANGED_NAMESPACES),
            // The driver reads the page, which lets the next one come.
            false => AsyncEvent::new().with_kind(AsyncEventType::VENDOR).with_log_page(LogPageId::SMART),
        };
        let mut command = Command::admin(RAISE, 0);
        (command.cdw10, command.cdw11) = (event.into_bits(), 1);
        #[expect(unsafe_code, reason = "only a raw command raises an event")]
        // SAFETY: the embedded controller's command has no data, and changes no namespace.
        let raised = unsafe { controller.admin_raw(&command, DmaBuf::empty()) };
        (self.is_stale, self.raised) = (true, self.raised + 1);
        if let Err(error) = raised {
            return self.excuse(&error);
        }
        if take {
            self.take_event(event)?;
        }
        self.renew_namespace()
    }

    fn take_event(&mut self, wanted: AsyncEvent) -> Result<(), Broken> {
        // Those that nobody has waited for come first: each reset lets another one of a kind come.
        let storms = if self.has_storm() { STORMS } else { 0 };
        for _ in 0..self.raised + storms {
            let Some(events) = &mut self.events else { return Ok(()) };
            match events.wait(ARRIVAL) {
                Ok(Some(event)) => {
                    self.world.note(format_args!("  {event}"));
                    if let (EventKind::Error(_), false) = (event.kind(), self.has_storm()) {
                        return Err(format!("the controller reports an error of the driver: {event}"));
                    }
                    if event.kind() == wanted.subject() {
                        return Ok(());
                    }
                }
                Ok(None) => return self.without_event(),
                Err(error) => return self.excuse(&error),
            }
        }
        self.without_event()
    }

    /// Returns `true` if the controller reports events that nobody has caused.
    fn has_storm(&self) -> bool {
        self.case.has(|fault| matches!(fault, Fault::EventStorm(_)))
    }

    fn without_event(&self) -> Result<(), Broken> {
        // It has no room for those that come while many wait.
        if self.has_storm() {
            return Ok(());
        }
        self.excuse(&std::io::Error::other(format!("no event arrived in {ARRIVAL:?}")))
    }

    /// Makes the namespace handle stale, and checks that neither a blocking call nor queue pair `at` takes it.
    pub(super) fn try_stale(&mut self, at: usize) -> Result<(), Broken> {
        // Data that comes late may change the Identify data of a new handle.
        let Some((controller, namespace)) = self.open.as_ref().filter(|_| self.case.is_honest()) else {
            return Ok(());
        };
        controller.invalidate_namespaces();
        self.is_stale = true;
        if namespace.read_at(0, &mut [0; BLOCK]).is_ok() {
            return Err("a blocking call takes a stale handle".into());
        }
        let mut trouble = None;
        match self.queues[at].as_mut().map(QueuePair::turn) {
            Some(Ok(mut turn)) => {
                self.next += 1;
                let buffer = controller.alloc(BLOCK).map_err(|error| error.to_string())?;
                match turn.read(namespace, 0, buffer, self.ledger.issue(self.next)) {
                    Err(refused) if matches!(refused.reason, Refusal::StaleNamespace) => {}
                    Err(refused) => return Err(format!("a stale handle was refused: {}", refused.reason)),
                    Ok(()) => return Err("a queue takes a stale handle".into()),
                }
            }
            Some(Err(error)) => trouble = Some(error),
            None => {}
        }
        if let Some(error) = trouble {
            self.trouble(at, &error)?;
        }
        if self.is_down { Ok(()) } else { self.renew_namespace() }
    }

    /// Gets a new namespace handle if a notice may have made the old one stale.
    pub(super) fn renew_namespace(&mut self) -> Result<(), Broken> {
        let Some((controller, namespace)) = self.open.as_mut().filter(|_| self.is_stale) else {
            return Ok(());
        };
        match controller.namespace(1) {
            Ok(new) => {
                (*namespace, self.is_stale) = (new, false);
                Ok(())
            }
            Err(error) => self.excuse(&error),
        }
    }
}
