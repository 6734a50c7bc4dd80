//! The end of a queue pair: by a reset, after which it begins again, or by its deletion.

use super::{one::notice, pair::QueuePair};
use crate::{Error, Result, engine::Returned, wait::Waiter};
use upcie_core::{dma::DmaBuf, events::emit};

impl<T> QueuePair<T> {
    /// Brings the queue back after a [reset](crate::Controller::reset) of the controller: creates it again under its id,
    /// with its depth, interrupt and priority, and gives back every command that was in flight, once. Commands that the
    /// controller had completed come first. Returns nothing, and changes nothing, if the controller was not reset.
    ///
    /// It takes the controller's timeout at most, for a reset of another thread and for both commands; a half of the queue pair
    /// that was made is then undone, within the deadline of [`close`](Self::close).
    ///
    /// # Errors
    /// After an error nothing is lost: call it again, or [`close`](Self::close), which gives the commands back even if the
    /// queue pair can't be created again ([`Failure::Undeleted`](crate::Failure::Undeleted)).
    /// - [`Failure::Down`](crate::Failure::Down): the controller did not come back.
    /// - [`Failure::Reset`](crate::Failure::Reset): the controller was reset again meanwhile.
    /// - The queue is closed for another reason than a reset: reset the controller first.
    /// - The controller refused the queue, or did not answer.
    pub fn recover(&mut self) -> Result<Vec<Returned<T>>> {
        if self.ended.is_some() {
            return Err(self.undeleted());
        }
        if self.controller.is_inherited() || !self.queue.is_over() {
            return self.queue.check_live().map(|()| Vec::new());
        }
        let (mut limit, what) = (self.controller.limit(), || "recovering a queue pair".into());
        self.controller.wait_for_reset(&limit, &what)?;
        if !self.queue.epoch().has_let_go() {
            return self.queue.check_live().map(|()| Vec::new());
        }
        self.looks.deadlines.forget(&self.controller);
        self.returned.append(&mut self.queue.take_all());
        let vector = self.waiter.as_ref().map(Waiter::vector);
        let made = self.controller.create_again(&mut self.queue, vector, self.priority, &mut limit);
        if let Err((error, again)) = made {
            if !again {
                self.ended = Some(false);
            }
            return Err(error);
        }
        notice(&mut self.queue, &self.controller);
        self.reaped.restart();
        self.looks.progress = (self.controller.clock().now(), self.queue.completion_cursor());
        Ok(std::mem::take(&mut self.returned))
    }

    /// Deletes the queues on the controller, as dropping does, and gives back the commands that were in flight, once the
    /// controller has let go of them. Memory that commands borrow ([`Turn::submit_held`](crate::Turn::submit_held)) may be freed
    /// after `Ok`; after an error give it to [`Controller::keep`](crate::Controller::keep).
    ///
    /// It takes the controller's timeout at most, and 5 s for each of its two commands: that includes a reset of another thread,
    /// and the deletion of queue pairs that was not confirmed before.
    ///
    /// # Errors
    /// [`Failure::Undeleted`](crate::Failure::Undeleted): the controller did not confirm the deletion within the deadline, or this is a
    /// forked child, which does not ask it. The controller keeps the memory of so many commands until it stops, because it
    /// may still use it. After [`try_close`](Self::try_close) their tags can be taken.
    pub fn close(mut self) -> Result<Vec<Returned<T>>> {
        self.try_close()
    }

    /// Closes the queue pair like [`close`](Self::close), and leaves it to the caller: to [take the tags](Self::take_kept) of commands
    /// that do not come back, and to ask why it takes no turns.
    ///
    /// ```
    /// use upcie_nvme::{Controller, queue::Returned};
    ///
    /// let controller = Controller::open("emu:size=1M")?;
    /// let mut queue = controller.queue_pair().create::<u64>()?;
    /// queue.turn()?.flush(&controller.namespace(1)?, 7)?;
    /// let tags: Vec<u64> = match queue.try_close() {
    ///     Ok(returned) => returned.iter().map(Returned::tag).copied().collect(),
    ///     Err(error) => {
    ///         eprintln!("{error}");
    ///         queue.take_kept()
    ///     }
    /// };
    /// assert_eq!(tags, [7]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`close`](Self::close), each time.
    pub fn try_close(&mut self) -> Result<Vec<Returned<T>>> {
        let in_flight = self.queue.in_flight();
        let ended = self.end();
        if self.controller.is_inherited() {
            return Err(Error::undeleted(self.controller.name(), self.queue.qid(), in_flight));
        }
        if !ended {
            // The queue pair was not created again: the controller has let go of its commands, if not of its rings.
            if !self.returned.is_empty() {
                return Ok(std::mem::take(&mut self.returned));
            }
            return Err(Error::undeleted(self.controller.name(), self.queue.qid(), in_flight));
        }
        let mut all = std::mem::take(&mut self.returned);
        all.append(&mut self.queue.take_all());
        Ok(all)
    }

    /// Takes the tags of the commands whose memory the controller has kept, each once, after a [`try_close`](Self::try_close) that
    /// failed with [`Failure::Undeleted`](crate::Failure::Undeleted). It is not known whether they were executed. Returns nothing
    /// while the queue pair is open, nor in a forked child.
    pub fn take_kept(&mut self) -> Vec<T> {
        self.queue.take_tags()
    }

    fn undeleted(&self) -> Error {
        Error::undeleted(self.controller.name(), self.queue.qid(), 0)
    }

    /// Deletes the queues, once; returns `true` when the controller uses their memory no more.
    fn end(&mut self) -> bool {
        if let Some(ended) = self.ended {
            return ended;
        }
        // A panic in the wait leaves the memory to the controller: the drop that follows must not delete the queues again.
        self.ended = Some(false);
        if !self.controller.is_inherited() {
            self.looks.deadlines.forget(&self.controller);
        }
        // In a forked child the queue is the parent's.
        let ended = self.controller.is_inherited()
            || self.controller.end_queue(&mut self.queue, &mut DmaBuf::empty(), &mut self.controller.limit());
        self.ended = Some(ended);
        ended
    }
}

impl<T> Drop for QueuePair<T> {
    fn drop(&mut self) {
        let is_closed = self.ended.is_some() || self.controller.is_inherited();
        let lost = if is_closed { 0 } else { self.queue.in_flight() as usize + self.returned.len() };
        self.end();
        if lost > 0 {
            // Last: a subscriber of the log may panic.
            let (device, qid) = (self.controller.shared_name().clone(), self.queue.qid());
            emit(move || {
                tracing::info!(
                    %device, qid, lost,
                    "dropped with commands in flight, whose tags are lost: close the queue pair first"
                );
            });
        }
    }
}
