//! Reservations between hosts: three controllers of one NVM subsystem, each with a host of its own, of the embedded controller
//! and of `nvme-emu`.

mod model;

use model::{CONFLICT, Model, Outcome};
use upcie_nvme::{
    Controller, Error, HostId, LogQuery, Namespace, QueuePair, Refused, Reservations, Turn, Zeroes, emu,
    spec::{
        CommandSetEvent, CopyRange, EventKind, ExtendedHostIdentifier, ExtendedHostIdentifierData,
        HostIdentifier, HostIdentifierData, PersistenceChange, ReservationNotificationLog,
        ReservationPersistence, ReservationType, Status,
    },
};
use upcie_tests::{deadline, io::finish, process::Server, says, scaled, seeded};

/// A host on a controller of its own.
struct Host {
    controller: Controller,
    namespace: Namespace,
    reservations: Reservations,
    queue: QueuePair<u32>,
    key: u64,
}

impl Host {
    fn new(controller: Controller, identifier: u64) -> Self {
        controller.set_feature(&HostIdentifier { data: HostIdentifierData { identifier } }).unwrap();
        let namespace = controller.namespace(1).unwrap();
        let reservations = namespace.reservations().unwrap();
        let queue = controller.queue_pair().depth(4).create().unwrap();
        Self { controller, namespace, reservations, queue, key: identifier * 0x11 }
    }

    fn register(&self) {
        self.reservations.register(self.key).unwrap();
    }

    /// Sends a command; returns its status.
    fn status(
        &mut self,
        send: impl FnOnce(&mut Turn<'_, u32>, &Controller, &Namespace) -> Result<(), Refused<u32>>,
    ) -> Status {
        let mut turn = self.queue.turn().unwrap();
        send(&mut turn, &self.controller, &self.namespace).unwrap();
        drop(turn);
        finish(&mut self.queue).remove(0).status()
    }
}

const OPTIONS: [&str; 2] = ["size=1M", "size=1M,lba=4096,latency=20us"];

/// Runs a check on three hosts of the embedded controller, and of a server.
fn on_each(check: impl Fn(&mut [Host])) {
    for options in OPTIONS {
        println!("emu:{options}");
        let devices = emu::spawn_subsystem(&options.parse().unwrap(), 3).unwrap();
        let hosts = (1..)
            .zip(devices)
            .map(|(id, device)| Host::new(Controller::builder().from_device(device).unwrap(), id));
        check(&mut hosts.collect::<Vec<_>>());
    }
    println!("nvme-emu");
    let server = Server::start_several(OPTIONS[0], 3);
    let hosts = (1..)
        .zip(server.addresses())
        .map(|(id, address)| Host::new(Controller::open(address.to_string()).unwrap(), id));
    check(&mut hosts.collect::<Vec<_>>());
}

/// The commands of a class, by name.
type Sent = Result<(), Refused<u32>>;
type Issue = fn(&mut Turn<'_, u32>, &Controller, &Namespace) -> Sent;
const READS: [(&str, Issue); 3] = [
    ("Read", |turn, controller, namespace| turn.read(namespace, 0, controller.alloc(4096).unwrap(), 0)),
    ("Compare", |turn, controller, namespace| {
        let mut zeros = controller.alloc(4096).unwrap();
        zeros.fill(0);
        turn.compare(namespace, 64, zeros, 0)
    }),
    ("Verify", |turn, _, namespace| turn.verify(namespace, 0, 1, 0)),
];
const WRITES: [(&str, Issue); 6] = [
    ("Write", |turn, controller, namespace| {
        let mut data = controller.alloc(4096).unwrap();
        data.fill(7);
        turn.write(namespace, 0, data, 0)
    }),
    ("Flush", |turn, _, namespace| turn.flush(namespace, 0)),
    ("Write Zeroes", |turn, _, namespace| turn.write_zeroes(Zeroes::new(namespace, 0, 1), 0)),
    ("Write Uncorrectable", |turn, _, namespace| turn.write_uncorrectable(namespace, 200, 1, 0)),
    ("Dataset Management", |turn, controller, namespace| {
        let mut ranges = controller.alloc(4096).unwrap();
        ranges.write_at(0, &upcie_nvme::spec::DatasetRange::new(0, 1).to_bytes());
        turn.deallocate(namespace, ranges, 1, 0)
    }),
    ("Copy", |turn, controller, namespace| {
        let mut ranges = controller.alloc(4096).unwrap();
        ranges.write_at(0, &CopyRange::new(0, 1).to_bytes());
        turn.copy(namespace, ranges, 1, 32, 0)
    }),
];

/// The specification's table: type, by holder, registrant and stranger, by class of commands.
#[test]
fn each_type_keeps_out_its_hosts() {
    on_each(|hosts| {
        hosts[0].register();
        hosts[1].register();
        for kind in ReservationType::ALL {
            let key = hosts[0].key;
            hosts[0].reservations.acquire(key, kind).unwrap();
            let registrants = kind.0 >= 3;
            let reads = kind.0 % 2 == 1;
            let table = [(true, true), (registrants || reads, registrants), (reads, false)];
            for (number, (host, (read, write))) in hosts.iter_mut().zip(table).enumerate() {
                let all = READS.map(|one| (one, read)).into_iter().chain(WRITES.map(|one| (one, write)));
                for ((name, send), is_free) in all {
                    let status = host.status(send);
                    let wanted = if is_free { Status::SUCCESS } else { Status::RESERVATION_CONFLICT };
                    assert_eq!(status, wanted, "{kind}: {name} of host {number}");
                }
                // Anyone may look.
                assert_eq!(host.reservations.report().unwrap().kind, Some(kind));
            }
            hosts[0].reservations.release(key, kind).unwrap();
            assert_eq!(hosts[2].status(WRITES[0].1), Status::SUCCESS, "{kind}: nothing is held");
        }
    });
}

/// Blocking calls name the status.
#[test]
fn a_conflict_is_told_by_its_name() {
    on_each(|hosts| {
        hosts[0].register();
        hosts[0].reservations.acquire(hosts[0].key, ReservationType::EXCLUSIVE_ACCESS).unwrap();
        let other = &hosts[1];
        let mut buffer = other.controller.alloc(4096).unwrap();
        let error = other.namespace.read(0, &mut buffer).unwrap_err();
        assert_eq!(error.status(), Some(Status::RESERVATION_CONFLICT));
        says(&error, &["Read (02h) of 4096 bytes", "Reservation Conflict", "another host"]);
        let error = other.reservations.acquire(1, ReservationType::WRITE_EXCLUSIVE).unwrap_err();
        says(&error, &["Reservation Acquire (11h, Acquire) of namespace 1", "Reservation Conflict"]);
        let error = other.reservations.unregister(None).unwrap_err();
        says(&error, &["Unregister Reservation Key", "Reservation Conflict"]);
        let kind = ReservationType(7);
        says(&other.reservations.acquire(1, kind).unwrap_err(), &["can't have a reservation", "RESCAP"]);
    });
}

/// All hosts write to one medium, and one counts by Compare and Write against the others.
#[test]
fn hosts_share_blocks_and_swap_them_atomically() {
    on_each(|hosts| {
        let block = hosts[0].namespace.block_size();
        let rounds = scaled(60).max(10);
        std::thread::scope(|scope| {
            for host in &*hosts {
                let (controller, namespace) = (&host.controller, &host.namespace);
                scope.spawn(move || {
                    let mut buffers = [(); 2].map(|()| controller.alloc(block).unwrap());
                    let [seen, next] = &mut buffers;
                    for _ in 0..rounds {
                        loop {
                            namespace.read(8, seen).unwrap();
                            let mut bytes = seen.to_vec();
                            let count = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 1;
                            bytes[..8].copy_from_slice(&count.to_le_bytes());
                            next.write_at(0, &bytes);
                            if namespace.compare_and_write(8, seen, next).unwrap() {
                                break;
                            }
                        }
                    }
                });
            }
        });
        let mut buffer = hosts[0].controller.alloc(block).unwrap();
        hosts[2].namespace.flush().unwrap();
        hosts[0].namespace.read(8, &mut buffer).unwrap();
        let count = u64::from_le_bytes(buffer.to_vec()[..8].try_into().unwrap());
        assert_eq!(count, 3 * rounds as u64, "no increment is lost");
    });
}

/// A preempted host is told by an event and the log.
#[test]
fn hosts_are_notified() {
    on_each(|hosts| {
        hosts[0].register();
        hosts[1].register();
        hosts[1]
            .reservations
            .acquire(hosts[1].key, ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
            .unwrap();
        let mut events = [0, 1].map(|host| hosts[host].controller.events().unwrap());
        let mut next = |host: usize| {
            let event = events[host].wait(deadline()).unwrap().expect("an event");
            assert_eq!(event.kind(), EventKind::CommandSet(CommandSetEvent::RESERVATION_LOG));
            // A read removes the page, so the driver leaves it to the program.
            assert!(event.log().is_none());
            let query = LogQuery { retain_event: false, ..Default::default() };
            let log = hosts[host].controller.log_with::<ReservationNotificationLog>(&query).unwrap();
            assert_eq!(log.namespace_id, 1);
            log.notification_type
        };
        let (mine, other) = (hosts[0].key, hosts[1].key);
        hosts[1].reservations.release(other, ReservationType::WRITE_EXCLUSIVE_REGISTRANTS_ONLY).unwrap();
        assert_eq!(next(0), 2, "released");
        hosts[0].reservations.preempt_and_abort(mine, other, ReservationType::WRITE_EXCLUSIVE).unwrap();
        assert_eq!(next(1), 1, "its registration was preempted");
        hosts[1].register();
        hosts[1].reservations.clear(other).unwrap();
        assert_eq!(next(0), 3, "the reservation was preempted");
    });
}

/// A registration is the host's, whatever its controller does.
#[test]
fn registrations_outlast_resets_and_programs() {
    let server = Server::start_several("size=1M", 2);
    let open =
        |number: usize, id| Host::new(Controller::open(server.addresses()[number].to_string()).unwrap(), id);
    let kind = ReservationType::EXCLUSIVE_ACCESS;
    let first = open(0, 1);
    first.register();
    first.reservations.acquire(first.key, kind).unwrap();
    // The driver's own reset sets the identifier again.
    first.controller.reset().unwrap();
    let mut buffer = first.controller.alloc(4096).unwrap();
    first.controller.namespace(1).unwrap().write(0, &mut buffer).unwrap();
    drop((buffer, first));
    let mut second = open(1, 2);
    let report = second.reservations.report().unwrap();
    assert_eq!((report.kind, report.registrants.len()), (Some(kind), 1));
    let one = report.registrants[0];
    assert_eq!((one.controller, one.holds, one.host, one.key), (None, true, HostId::Short(1), 0x11));
    assert_eq!(second.status(READS[0].1), Status::RESERVATION_CONFLICT);
    // The same host by the other controller, and another host by the first one.
    drop(second);
    let mut back = open(1, 1);
    assert_eq!(back.status(WRITES[0].1), Status::SUCCESS);
    assert_eq!(back.reservations.report().unwrap().registrants[0].controller, Some(2));
    let mut other = open(0, 3);
    assert_eq!(other.status(READS[0].1), Status::RESERVATION_CONFLICT);
    // A host without an identifier is forgotten with the reset.
    drop(other);
    let unnamed = Controller::open(server.addresses()[0].to_string()).unwrap();
    let reservations = unnamed.namespace(1).unwrap().reservations().unwrap();
    reservations.register(9).unwrap();
    assert_eq!(back.reservations.report().unwrap().registrants.len(), 2);
    unnamed.reset().unwrap();
    assert_eq!(back.reservations.report().unwrap().registrants.len(), 1);
}

#[test]
fn long_identifiers_are_reported_in_their_form() {
    let controller = Controller::open("emu:size=1M").unwrap();
    let identifier = std::array::from_fn(|at| at as u8 + 1);
    let data = ExtendedHostIdentifierData { identifier };
    controller.set_feature(&ExtendedHostIdentifier { data }).unwrap();
    let namespace = controller.namespace(1).unwrap();
    let reservations = namespace.reservations().unwrap();
    reservations.register_with(5, PersistenceChange::SET).unwrap();
    let report = reservations.report().unwrap();
    assert_eq!((report.persists, report.registrants[0].host), (true, HostId::Extended(identifier)));
    let query = upcie_nvme::FeatureQuery { nsid: 1, ..Default::default() };
    assert!(controller.feature_with::<ReservationPersistence>(&query).unwrap().persist_through_power_loss());
    reservations.replace(Some(5), 6).unwrap();
    assert_eq!(reservations.report().unwrap().registrants[0].key, 6);
}

/// The controllers of a subsystem tell that they are several, and lack what would change the others' namespaces.
#[test]
fn controllers_of_a_subsystem_know_of_each_other() {
    on_each(|hosts| {
        for (number, host) in (1..).zip(&*hosts) {
            let id = host.controller.identify();
            assert_eq!((id.cntlid, id.cmic & 2, id.oacs & 0b1010, id.sanicap), (number, 2, 0, 0));
            assert_eq!(id.subnqn, hosts[0].controller.identify().subnqn);
            assert_eq!(host.namespace.identify().nmic & 1, 1);
            let format = upcie_nvme::spec::FormatNvm { nsid: 1, format: 1, ..Default::default() };
            assert!(host.controller.execute(&format).is_err());
        }
    });
}

fn outcome(result: Result<(), Error>) -> Outcome {
    result.map_err(|error| error.status().unwrap_or_else(|| panic!("{error}")))
}

#[test]
fn reservations_are_those_of_a_model() {
    on_each(|hosts| {
        let (mut random, mut model) = (seeded(1), Model::default());
        for step in 0..scaled(400) {
            let who = random.below(3);
            let host = &hosts[who].reservations;
            // Few keys, so that hosts share some and name the right one often.
            let (key, other) = (1 + random.below(3) as u64, random.below(4) as u64);
            let kind = ReservationType::ALL[random.below(6)];
            let (name, is, wanted) = match random.below(8) {
                0 | 1 => ("register", host.register(key), model.register(who, key)),
                2 => {
                    let wanted = match model.keys.get(&who) {
                        Some(old) if *old == key => {
                            model.remove(who);
                            model.generation += 1;
                            Ok(())
                        }
                        _ => CONFLICT,
                    };
                    ("unregister", host.unregister(Some(key)), wanted)
                }
                3 | 4 => ("acquire", host.acquire(key, kind), model.acquire(who, key, kind)),
                5 => ("preempt", host.preempt(key, other, kind), model.preempt(who, key, other, kind)),
                6 => ("release", host.release(key, kind), model.release(who, key, kind)),
                _ => {
                    let wanted = if model.keys.get(&who) == Some(&key) {
                        model = Model { generation: model.generation + 1, ..Model::default() };
                        Ok(())
                    } else {
                        CONFLICT
                    };
                    ("clear", host.clear(key), wanted)
                }
            };
            let at = format!("step {step}: {name} of host {who}, keys {key} and {other}, {kind}");
            assert_eq!(outcome(is), wanted, "{at}");
            let report = hosts[random.below(3)].reservations.report().unwrap();
            let held = model.held.map(|(kind, _)| kind);
            assert_eq!((report.generation, report.kind), (model.generation, held), "{at}");
            let mut found: Vec<_> =
                report.registrants.iter().map(|one| (one.host.to_string(), one.key, one.holds)).collect();
            found.sort();
            let wanted: Vec<_> = model
                .keys
                .iter()
                .map(|(who, key)| (format!("{:#x}", who + 1), *key, model.holds(*who)))
                .collect();
            assert_eq!(found, wanted, "{at}");
        }
    });
}
