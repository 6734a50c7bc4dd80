//! Appends to a zone with several commands in flight, and reports the zones. The controller chooses the blocks: each
//! completion tells where its record begins.
//!
//! Run it with a device that has a zoned namespace, or with `emu:size=4M,zoned=true,zone-size=1M`. It resets a zone, whose
//! data is lost.

use std::{error::Error, time::Duration};
use upcie_nvme::{Controller, Wait, ZoneSelect, spec::Csi};

const RECORDS: u32 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or("emu:size=4M,zoned=true,zone-size=1M".into());
    let controller = Controller::open(&address)?;
    let all = controller.namespaces()?;
    let Some(namespace) = all.iter().find(|namespace| namespace.command_set() == Csi::ZONED) else {
        println!("{address}: no namespace has zones; try emu:size=4M,zoned=true,zone-size=1M");
        return Ok(());
    };
    let zones = namespace.zones()?;
    println!("{namespace}: {} zones of {} blocks", zones.count(), zones.zone_blocks());

    let zone = zones.start_of(0);
    zones.reset(ZoneSelect::At(zone))?;
    let mut queue = controller.queue_pair().depth(RECORDS + 1).create()?;
    let mut turn = queue.turn()?;
    for record in 0..RECORDS {
        let mut buffer = controller.alloc(namespace.block_size())?;
        buffer.write_at(0, format!("record {record}").as_bytes());
        turn.append(namespace, zone, buffer, record)?;
    }
    drop(turn); // rings the doorbell once

    let mut places = Vec::new();
    while places.len() < RECORDS as usize {
        if !queue.wait(Wait::Poll, Duration::from_secs(30))? {
            return Err("no completion came".into());
        }
        for done in queue.turn()? {
            let block = done.block();
            let (record, result, _) = done.into_parts();
            result?;
            places.push((record, block));
        }
    }
    for (record, block) in places {
        let mut text = vec![0; format!("record {record}").len()];
        namespace.read_at(block * namespace.block_size() as u64, &mut text)?;
        assert_eq!(text, format!("record {record}").as_bytes());
        println!("record {record} is at block {block}");
    }

    for zone in zones.report(0, 3)? {
        println!("zone of block {}: {}, {:?} blocks written", zone.start, zone.state(), zone.written());
    }
    zones.finish(ZoneSelect::At(zone))?;
    Ok(())
}
