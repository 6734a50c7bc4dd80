//! Base 2.1, "Controller Data Queue", the feature.

use super::super::fields::{Field, FieldPlace, Places, Structure};
use super::super::macros::{bits, structure};
use super::id::FeatureId;
use super::value::data_features;

bits! {
    /// Dword 0 of feature 21h; command dword 11 has the same form.
    ControllerDataQueueTrigger(u32), "Controller Data Queue" {
        /// The queue (CDQID).
        queue: u16[16] => number;
        __: u16[15];
        /// An event is raised once the slot of the trigger has an entry (ETPT).
        tail_event: bool[1] => flag;
    }
}

structure! {
    /// The data of feature 21h, Controller Data Queue, as Get Features returns it.
    ControllerDataQueueSlots[512], "Controller Data Queue" {
        /// The slot of the head (HP).
        0 head: u32 => number;
        /// The slot whose entry raises an event; 0 if none does (TPT).
        4 tail_trigger: u32 => number;
        8 reserved8: [u8; 504];
    }
}

data_features! {
    /// Feature 21h, Controller Data Queue: where a queue is. Set Features takes dwords in place of data: see
    /// [`UpdateDataQueue`](crate::spec::UpdateDataQueue).
    ControllerDataQueue: CONTROLLER_DATA_QUEUE, "Controller Data Queue", ControllerDataQueueSlots,
        dword = ControllerDataQueueTrigger [SELECTS: u32 = 0xffff];
}

#[cfg(test)]
mod tests {
    use super::super::Feature;
    use super::*;

    #[test]
    fn a_queue_has_a_head_and_a_trigger() {
        let mut data = [0; 512];
        (data[0], data[4]) = (7, 9);
        let queue = ControllerDataQueue::from_answer(1 << 31 | 3, &data).unwrap();
        assert_eq!((queue.dword.queue(), queue.dword.tail_event()), (3, true));
        assert_eq!((queue.data.head, queue.data.tail_trigger), (7, 9));
    }
}
