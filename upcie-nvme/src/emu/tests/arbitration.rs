//! Weighted round robin.

use super::host::Host;
use crate::spec::{Arbitration, Capabilities, Command, FeatureId, FeatureSelect, QueuePriority, Status};

/// Enable, weighted round robin, entries of 64 and 16 bytes.
const WEIGHTED: u32 = 1 | 1 << 11 | 6 << 16 | 4 << 20;

#[test]
fn weighted_round_robin_exists_on_request_only() {
    for (options, has) in [("", false), ("wrr=true", true)] {
        let host = Host::disabled(options);
        let cap = Capabilities::from_bits(host.bar.read_u64(0).unwrap());
        assert_eq!(cap.supports_weighted_round_robin(), has);
        host.configure(WEIGHTED);
        assert_eq!(host.csts(), if has { 1 } else { 2 }, "ready, or a fatal status");
    }
}

#[test]
fn commands_are_fetched_by_class_and_weight() {
    let mut host = Host::disabled("wrr=true,size=1M");
    host.configure(WEIGHTED);
    let setting = Arbitration::new().with_ab(1).with_hpw(7).with_mpw(3).with_lpw(0);
    let set = Command::set_features(FeatureId::ARBITRATION, setting.into_bits());
    assert_eq!(host.admin.status(set), Status::SUCCESS);
    let get = Command::get_features(FeatureId::ARBITRATION, FeatureSelect::CURRENT);
    assert_eq!(host.admin.run(get).dw0, setting.into_bits());

    // A completion queue that is full holds all queues back until it is acknowledged.
    let mut full = host.queue(1, [512, 512], None);
    for _ in 0..511 {
        full.put(&Command::flush(1));
    }
    full.ring();
    for _ in 0..511 {
        while full.next().is_none() {
            std::thread::yield_now();
        }
    }
    // The class high has two queues.
    let classes = [
        (2, QueuePriority::LOW, 60),
        (3, QueuePriority::MEDIUM, 60),
        (4, QueuePriority::HIGH, 60),
        (5, QueuePriority::HIGH, 60),
        (6, QueuePriority::URGENT, 30),
    ];
    let queues: Vec<_> = classes
        .map(|(qid, class, count)| {
            let mut queue = host.submission_queue(qid, 256, 1, class);
            for _ in 0..count {
                queue.put(&Command::flush(1));
            }
            queue.ring();
            queue
        })
        .into();
    host.alive();
    full.acknowledge();
    let total: usize = classes.iter().map(|(.., count)| count).sum();
    let order: Vec<u16> = (0..total).map(|_| full.wait().sqid).collect();

    // The acknowledgement may have come in the middle of a round.
    let urgent = order.iter().position(|&qid| qid == 6).unwrap();
    assert!(urgent <= 13, "{urgent} commands before the urgent ones");
    assert_eq!(order[urgent..urgent + 30], [6; 30], "urgent queues are served alone");
    for round in order[urgent + 30..].chunks_exact(13).take(8) {
        // Two of a queue at a time.
        let mut high = round[..8].to_vec();
        assert!(matches!(high[..4], [4, 4, 5, 5] | [5, 5, 4, 4]), "{round:?}");
        high.sort_unstable();
        assert_eq!(high, [4, 4, 4, 4, 5, 5, 5, 5]);
        assert_eq!(round[8..], [3, 3, 3, 3, 2]);
    }
    drop(queues);
}
