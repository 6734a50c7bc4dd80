//! Calls of several commands, with their deadlines.

use super::{Row, TIMEOUT, admin, call, io};
use std::{
    io::{BufRead, Write},
    ops::ControlFlow,
    time::Duration,
};
use upcie_nvme::{
    Controller, LogQuery,
    emu::{Fault, FaultRule},
    spec::{
        AdminOpcode, Arbitration, Command, FeatureId, FormatNvm, Key, LogPageId, Status, StoreOptions,
        TemperatureThreshold,
    },
};

/// Lets the temperature exceed its threshold, which is an event.
fn heat(controller: &Controller) {
    let command = Command::set_features(FeatureId::TEMPERATURE_THRESHOLD, 290);
    controller.admin(&command, &mut []).unwrap();
    // Time for the event to arrive.
    for _ in 0..3 {
        controller.namespace_ids().unwrap();
    }
}

/// Returns calls on the admin queue.
pub(super) fn admin_rows() -> Vec<Row> {
    let refused = FaultRule::new(Fault::Status(Status::INVALID_FIELD)).queue(0);
    let silent = || FaultRule::new(Fault::Drop).queue(0).opcode(AdminOpcode::GET_LOG_PAGE.0);
    vec![
        Row {
            name: "a namespace's handle",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.namespace(1).map(drop)?))
            },
        },
        Row {
            name: "handles of all namespaces",
            options: "size=1M,namespaces=2",
            rules: vec![admin()],
            deadline: 32,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.namespaces().map(drop)?))
            },
        },
        Row {
            name: "a log in pieces",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let (controller, query) = (controller.clone(), LogQuery::default());
                let step = |read: &[u8], _: &_| (read.len() + 64).min(256) as u64;
                call(move || {
                    Ok(controller.log_bytes(LogPageId::ERROR_INFORMATION, &query, step).map(drop)?)
                })
            },
        },
        Row {
            name: "a firmware image",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 31,
            prepare: |controller| {
                let (controller, image) = (controller.clone(), vec![0x5a; 1 << 20]);
                let go_on = |_| ControlFlow::Continue(());
                call(move || Ok(controller.download_firmware(&image, go_on).map(drop)?))
            },
        },
        Row {
            name: "the log of effects, and a Format",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                let format = FormatNvm { nsid: 1, ..FormatNvm::default() };
                call(move || Ok(controller.execute(&format).map(drop)?))
            },
        },
        Row {
            name: "lent memory that is refused, and taken back",
            options: "size=1M,hmb=1M",
            rules: vec![admin(), refused.opcode(AdminOpcode::SET_FEATURES.0).count(1)],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.lend_host_memory(64 << 20).map(drop)?))
            },
        },
        Row {
            name: "placement handles",
            options: "size=1M,fdp=true,fdp-handles=4,fdp-unit=64K",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let namespace = controller.namespace(1).unwrap();
                call(move || Ok(namespace.placement().map(drop)?))
            },
        },
        Row {
            name: "events turned on",
            options: "size=1M",
            rules: vec![FaultRule::new(Fault::Drop).queue(0).opcode(AdminOpcode::SET_FEATURES.0)],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.events().map(drop)?))
            },
        },
        Row {
            name: "an event that is there",
            options: "size=1M",
            rules: vec![silent()],
            deadline: 30,
            prepare: |controller| {
                let mut events = controller.events().unwrap();
                heat(controller);
                call(move || Ok(events.try_next().map(drop)?))
            },
        },
        Row {
            name: "a wait of 10 s for an event",
            options: "size=1M",
            rules: vec![silent()],
            deadline: 40,
            prepare: |controller| {
                let mut events = controller.events().unwrap();
                heat(controller);
                call(move || Ok(events.wait(Duration::from_secs(10)).map(drop)?))
            },
        },
        Row {
            name: "a queue pair",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.queue_pair().create::<u64>().map(drop)?))
            },
        },
        Row {
            name: "a queue pair after a reset",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let mut queue = controller.queue_pair().create::<u64>().unwrap();
                controller.reset().unwrap();
                call(move || Ok(queue.recover().map(drop)?))
            },
        },
        Row {
            name: "an I/O command on a queue pair of its own",
            options: "size=1M",
            rules: vec![admin()],
            deadline: 30,
            prepare: |controller| {
                let controller = controller.clone();
                call(move || Ok(controller.io(&Command::flush(1), &mut [], TIMEOUT).map(drop)?))
            },
        },
        Row {
            name: "a reset, with features, lent memory and events",
            options: "size=1M,hmb=1M",
            rules: vec![admin().opcode(AdminOpcode::SET_FEATURES.0)],
            deadline: 30,
            prepare: |controller| {
                controller.set_feature(&TemperatureThreshold::new().with_tmpth(350)).unwrap();
                let arbitration = controller.feature::<Arbitration>().unwrap();
                controller.set_feature(&arbitration.with_ab(3)).unwrap();
                controller.lend_host_memory(64 << 20).unwrap();
                let (controller, events) = (controller.clone(), controller.events().unwrap());
                call(move || {
                    let _ = &events;
                    Ok(controller.reset()?)
                })
            },
        },
        Row {
            name: "a reset, with namespaces that have handles",
            options: "size=8M,namespaces=3",
            rules: vec![admin().opcode(AdminOpcode::IDENTIFY.0)],
            deadline: 30,
            prepare: |controller| {
                let (controller, namespaces) = (controller.clone(), controller.namespaces().unwrap());
                call(move || {
                    let _ = &namespaces;
                    Ok(controller.reset()?)
                })
            },
        },
    ]
}

/// Returns calls on the queue pair of the blocking calls.
pub(super) fn io_rows() -> Vec<Row> {
    let inconsistent = FaultRule::new(Fault::Status(Status::HOST_ID_INCONSISTENT)).count(1);
    vec![
        Row {
            name: "3 MiB of bytes",
            options: "size=8M",
            rules: vec![io()],
            deadline: 33,
            prepare: |controller| {
                let (namespace, mut bytes) = (controller.namespace(1).unwrap(), vec![0; 3 << 20]);
                call(move || Ok(namespace.read_at(0, &mut bytes)?))
            },
        },
        Row {
            name: "part of a block, read and written back",
            options: "size=1M",
            rules: vec![io()],
            deadline: 30,
            prepare: |controller| {
                let namespace = controller.namespace(1).unwrap();
                call(move || Ok(namespace.write_at(10, &[1; 100])?))
            },
        },
        Row {
            name: "a stream made durable",
            options: "size=1M",
            rules: vec![io()],
            deadline: 30,
            prepare: |controller| {
                let mut stream = controller.namespace(1).unwrap().stream();
                stream.write_all(b"three").unwrap();
                call(move || Ok(stream.sync()?))
            },
        },
        Row {
            name: "a stream, written and read ahead",
            options: "size=4M",
            rules: vec![io()],
            deadline: 31,
            prepare: |controller| {
                let mut stream = controller.namespace(1).unwrap().stream();
                stream.write_all(b"three").unwrap();
                call(move || {
                    stream.fill_buf()?;
                    Ok(())
                })
            },
        },
        Row {
            name: "a report of zones",
            options: "size=64M,zoned=true,zone-size=64K,mdts=8K",
            rules: vec![io()],
            deadline: 30,
            prepare: |controller| {
                let zones = controller.namespace(1).unwrap().zones().unwrap();
                call(move || Ok(zones.report(0, usize::MAX).map(drop)?))
            },
        },
        Row {
            name: "zeroes of three zones",
            options: "size=1M,zoned=true,zone-size=64K",
            rules: vec![io()],
            deadline: 33,
            prepare: |controller| {
                let namespace = controller.namespace(1).unwrap();
                call(move || Ok(namespace.write_zeroes(0, 3 * 128)?))
            },
        },
        Row {
            name: "a list of keys",
            options: "size=16M,kv=true,mdts=8K",
            rules: vec![io()],
            deadline: 30,
            prepare: |controller| {
                let keys = controller.namespace(1).unwrap().keys().unwrap();
                // One command lists 409.
                for number in 0..450 {
                    let key = Key::new(format!("{number:016}").as_bytes()).unwrap();
                    keys.store_bytes(key, b"value", StoreOptions::empty()).unwrap();
                }
                call(move || Ok(keys.list(None, usize::MAX).map(drop)?))
            },
        },
        Row {
            name: "a value of unknown length",
            options: "size=1M,kv=true",
            rules: vec![io()],
            deadline: 30,
            prepare: |controller| {
                let keys = controller.namespace(1).unwrap().keys().unwrap();
                let key = Key::new(b"long").unwrap();
                keys.store_bytes(key, &[7; 6000], StoreOptions::empty()).unwrap();
                call(move || Ok(keys.retrieve_bytes(key).map(drop)?))
            },
        },
        Row {
            name: "a report of reservations in its second form",
            options: "size=1M",
            rules: vec![io(), inconsistent],
            deadline: 30,
            prepare: |controller| {
                let reservations = controller.namespace(1).unwrap().reservations().unwrap();
                call(move || Ok(reservations.report().map(drop)?))
            },
        },
    ]
}
