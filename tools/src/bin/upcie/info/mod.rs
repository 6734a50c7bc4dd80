//! `upcie info`: shows a controller, its namespaces and its registers.

use crate::{
    cli,
    files::{self, Place, Use},
    outcome::Outcome,
    signal,
    target::{self, Target},
    units,
};
use anyhow::{Context, anyhow};
use clap::Args;
use serde_json::{Map, Value, json};
use std::{io::Write, time::Duration};
use upcie_nvme::{
    Controller, IrqKind, open_device,
    protection::BlockFormat,
    spec::{
        AdminQueueAttributes, Capabilities, CmbLocation, CmbSize, Configuration, ControllerStatus,
        PowerState, Version, offset,
    },
    upcie_core::{Chain, memory::PageSize},
};

mod note;
mod print;

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie info emu
  upcie info 0000:01:00.0 --registers    works if the controller does not start, too
  upcie info 0000:01:00.0 --json | jq .namespaces[].size";

/// Arguments of `upcie info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    #[command(flatten)]
    target: Target,
    /// Print one JSON object on stdout; sizes are in bytes
    #[arg(long)]
    json: bool,
    /// Only read the registers: neither start the controller nor write a register
    #[arg(long)]
    registers: bool,
    /// Give up if the device does not answer for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

/// Runs `upcie info`.
pub fn run(args: &InfoArgs) -> anyhow::Result<Outcome> {
    let stdout = Use::writes("stdout", Place::Stdout);
    files::check_distinct(&Use::media(&args.target, false).into_iter().chain([stdout]).collect::<Vec<_>>())?;
    files::check_stream_unlocked(Place::Stdout)?;
    signal::install()?;
    if args.registers {
        return registers_alone(args);
    }
    let options = Controller::builder().timeout(args.timeout);
    let controller = args.target.open_to_read(options).map_err(|error| advise(&args.target, error))?;
    let (namespaces, unlisted) = match namespaces(&controller) {
        Ok(namespaces) => (namespaces, None),
        // Some controllers without I/O have no list of namespaces either.
        Err(error) if controller.check_io().is_err() => (Vec::new(), Some(format!("{error:#}"))),
        Err(error) => return Err(error),
    };
    let info = json!({
        "address": controller.name(),
        "controller": identify(&controller),
        "limits": {
            "max_transfer": controller.max_transfer(),
            "queue_pairs": controller.max_queue_pairs(),
            "queue_entries": controller.max_depth(),
            "page_size": controller.page_size(),
            "no_io": no_io(&controller),
        },
        "own_memory": own_memory(&controller),
        "interrupts": interrupts(&controller)?,
        "namespaces": namespaces,
        "namespaces_unknown": unlisted,
        "registers": registers(controller.capabilities(), |at| Ok(controller.register(at)?))?,
    });
    drop(controller);
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer_pretty(&mut text, &info)?;
        writeln!(text)?;
    } else {
        print::all(&info, &mut text)?;
    }
    cli::print(&text)?;
    Ok(Outcome::Done)
}

fn identify(controller: &Controller) -> Value {
    let id = controller.identify();
    let bit = |bits: u16, bit: u16| bits >> bit & 1 != 0;
    let power = id.power_states().iter().map(PowerState::max_power).max().filter(|&power| power > 0);
    json!({
        "model": id.model(),
        "serial": id.serial(),
        "firmware": id.firmware(),
        "version": controller.version().to_string(),
        "vendor": id.vid,
        "subsystem_vendor": id.ssvid,
        "id": id.cntlid,
        "subsystem_name": id.subsystem_name(),
        "mdts": id.mdts,
        "max_namespaces": id.nn,
        "capacity": (id.total_capacity() > 0).then(|| u64::try_from(id.total_capacity()).unwrap_or(u64::MAX)),
        "volatile_write_cache": id.has_volatile_cache(),
        "sgls": id.supports_sgls(),
        "commands": {
            "security": bit(id.oacs, 0),
            "format": bit(id.oacs, 1),
            "firmware": bit(id.oacs, 2),
            "namespace_management": bit(id.oacs, 3),
            "compare": bit(id.oncs, 0),
            "dataset_management": bit(id.oncs, 2),
            "write_zeroes": bit(id.oncs, 3),
            "verify": bit(id.oncs, 7),
            "copy": bit(id.oncs, 8),
        },
        "atomic_write_blocks": u32::from(id.awun) + 1,
        "power_states": id.power_states().len(),
        "max_power_microwatts": power,
        "warning_temperature_kelvin": (id.wctemp > 0).then_some(id.wctemp),
        "critical_temperature_kelvin": (id.cctemp > 0).then_some(id.cctemp),
    })
}

/// Describes the controller memory buffer and the persistent memory region, if there are any.
fn own_memory(controller: &Controller) -> Value {
    let buffer = match controller.cmb() {
        Ok(None) => Value::Null,
        Err(error) => json!({ "unusable": Chain(&error).to_string() }),
        Ok(Some(memory)) => {
            let (size, location) = (memory.properties(), memory.location());
            json!({
                "bar": location.bir(),
                "size": memory.size(),
                "caching": memory.caching().to_string(),
                "uses": {
                    "submission_queues": size.sqs(), "completion_queues": size.cqs(), "lists": size.lists(),
                    "read_data": size.rds(), "write_data": size.wds(),
                },
                "lists_elsewhere": location.cdpcils(),
                "data_partly_elsewhere": location.cdmmms(),
                "peers": memory.check_peers().map_or_else(|error| Chain(&error).to_string(), |()| "yes".into()),
            })
        }
    };
    let persistent = match controller.pmr() {
        Ok(None) => Value::Null,
        Err(error) => json!({ "unusable": Chain(&error).to_string() }),
        Ok(Some(memory)) => {
            let cap = memory.properties();
            let status = memory.status().map_or_else(
                |error| Chain(&error).to_string(),
                |status| {
                    ["normal", "restore error", "read-only", "unreliable"]
                        .get(usize::from(status.hsts()))
                        .map_or_else(|| format!("{}", status.hsts()), |name| (*name).to_owned())
                },
            );
            json!({
                "bar": cap.bir(),
                "size": memory.size(),
                "caching": memory.caching().to_string(),
                "uses": { "read_data": cap.rds(), "write_data": cap.wds() },
                "addresses": cap.cmss(),
                "health": status,
                "peers": memory.check_peers().map_or_else(|error| Chain(&error).to_string(), |()| "yes".into()),
            })
        }
    };
    json!({ "controller_memory_buffer": buffer, "persistent_memory_region": persistent })
}

/// Counts the vectors of each interrupt kind that the transport offers, and names the kind in use.
fn interrupts(controller: &Controller) -> anyhow::Result<Value> {
    let mut all = Map::new();
    for kind in [IrqKind::Msix, IrqKind::Msi, IrqKind::Intx] {
        all.insert(target::irq_name(kind).into(), controller.irq_count(kind)?.into());
    }
    all.insert("in_use".into(), controller.irq_kind().map(target::irq_name).into());
    Ok(all.into())
}

fn namespaces(controller: &Controller) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for nsid in controller.namespace_ids()? {
        let namespace = controller.namespace(nsid)?;
        let (id, zones, keys) = (namespace.identify(), namespace.zones().ok(), namespace.keys().ok());
        let (zones, keys) = (zones.as_ref(), keys.as_ref());
        let formats: Vec<_> = id.lbaf[..id.format_count()]
            .iter()
            .enumerate()
            .filter_map(|(index, format)| {
                let in_use = index == id.format_index();
                format.block_size().map(|size| json!({ "index": index, "block_size": size, "metadata": format.ms(), "in_use": in_use }))
            })
            .collect();
        let nonzero = |bytes: &[u8]| {
            let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            bytes.iter().any(|&byte| byte != 0).then_some(text)
        };
        all.push(json!({
            "id": nsid,
            "blocks": namespace.blocks(),
            "block_size": namespace.block_size(),
            "block_format": namespace.format().to_string(),
            "data_size": namespace.format().data_size(),
            "metadata_size": namespace.format().metadata_size(),
            "metadata_is_extended": namespace.format().is_extended(),
            "protection": protection(namespace.format()),
            "size": namespace.blocks().saturating_mul(namespace.block_size() as u64),
            "used_blocks": id.nuse,
            "max_transfer": namespace.max_transfer(),
            "formats": formats,
            "eui64": nonzero(&id.eui64),
            "nguid": nonzero(&id.nguid),
            "write_protected": id.is_write_protected(),
            "command_set": namespace.command_set().name(),
            "zones": zones.map(|zones| zones.count()),
            "zone_blocks": zones.map(|zones| zones.zone_blocks()),
            "max_open_zones": zones.and_then(|zones| zones.max_open()),
            "max_active_zones": zones.and_then(|zones| zones.max_active()),
            "max_append": zones.map(|zones| zones.max_append()),
            "key_value_size": keys.map(|keys| keys.size()),
            "key_value_used": keys.map(|keys| keys.identify().utilization),
            "max_key": keys.map(|keys| keys.max_key()),
            "max_value": keys.map(|keys| keys.max_value()),
            "unusable": namespace.check_usable().err().filter(|_| keys.is_none()).map(|error| error.to_string()),
        }));
    }
    Ok(all)
}

/// Describes how blocks are protected; null if they are not.
fn protection(format: &BlockFormat) -> Value {
    format.protection().map_or(Value::Null, |protection| {
        json!({
            "type": protection.kind() as u8,
            "guard_bits": protection.guard().size() * 8,
            "storage_tag_bits": protection.storage_tag_bits(),
            "in_first_bytes": protection.is_first(),
        })
    })
}

/// Returns the reason if the controller takes no I/O.
fn no_io(controller: &Controller) -> Option<String> {
    let error = controller.check_io().err()?;
    match error.failure() {
        upcie_nvme::Failure::NoIo { reason, .. } => Some(reason.to_string()),
        _ => Some(Chain(&error).to_string()),
    }
}

/// Adds a hint to the error of a controller that does not start.
fn advise(target: &Target, error: anyhow::Error) -> anyhow::Error {
    use upcie_nvme::Failure::{Core, Emulator, Gone};
    match error.downcast_ref().map(upcie_nvme::Error::failure) {
        None | Some(Core(_) | Emulator(_) | Gone { .. }) => error,
        Some(_) => {
            anyhow!("{error:#}; `upcie info --registers {}` shows its registers", target.address)
        }
    }
}

/// Runs `--registers`: opens the device without starting the controller.
fn registers_alone(args: &InfoArgs) -> anyhow::Result<Outcome> {
    let device = open_device(args.target.to_read(), args.timeout)?;
    let bar = device.bar(0)?;
    let cap = Capabilities::from_bits(bar.read_u64(offset::CAP as u64)?);
    let read = |at: usize| -> anyhow::Result<u32> { Ok(bar.read_u32(at as u64)?) };
    let (cc, csts) = (read(offset::CC)?, read(offset::CSTS)?);
    let note = note::note(cap, Configuration::from_bits(cc), ControllerStatus::from_bits(csts));
    let info = json!({
        "address": device.name(),
        "note": note,
        "registers": registers(cap, read)?,
    });
    let mut text = Vec::new();
    if args.json {
        serde_json::to_writer_pretty(&mut text, &info)?;
        writeln!(text)?;
    } else {
        writeln!(text, "{}", device.name())?;
        print::registers(&info, &mut text)?;
    }
    if let Some(note) = note {
        cli::message(&format!("{}: {note}", device.name()));
    } else if device.dma().is_physical() && cap.page_size_min() > PageSize::Huge2M.bytes() as u64 {
        let (name, page) = (device.name(), cap.page_size_min());
        cli::message(&format!(
            "{name}: its smallest memory page has {page} bytes (CAP.MPSMIN): it needs an IOMMU, or pages of 1 GiB"
        ));
    }
    cli::print(&text)?;
    Ok(Outcome::Done)
}

/// Decodes the registers by name.
fn registers(cap: Capabilities, read: impl Fn(usize) -> anyhow::Result<u32>) -> anyhow::Result<Value> {
    let read = |at: usize| read(at).context("reading the registers");
    let cc = Configuration::from_bits(read(offset::CC)?);
    let csts = ControllerStatus::from_bits(read(offset::CSTS)?);
    let aqa = AdminQueueAttributes::from_bits(read(offset::AQA)?);
    let mut all = Map::new();
    let mut put = |name: &str, raw: u64, fields: Value| {
        let mut entry = Map::from_iter([("raw".to_owned(), format!("{raw:#x}").into())]);
        if let Value::Object(fields) = fields {
            entry.extend(fields);
        }
        all.insert(name.into(), entry.into());
    };
    put(
        "CAP",
        cap.into_bits(),
        json!({
            "max_queue_entries": cap.max_queue_entries(),
            "contiguous_queues": cap.cqr(),
            "timeout_ms": cap.timeout().as_millis() as u64,
            "doorbell_stride": cap.doorbell_stride(),
            "page_size_min": cap.page_size_min(),
            "page_size_max": cap.page_size_max(),
            "command_sets": format!("{:#04x}", cap.css()),
            "nvm_command_set": cap.supports_nvm(),
            "subsystem_reset": cap.nssrs(),
            "controller_memory_buffer": cap.cmbs(),
            "persistent_memory_region": cap.pmrs(),
        }),
    );
    put(
        "VS",
        read(offset::VS)?.into(),
        json!({ "version": Version::from_bits(read(offset::VS)?).to_string() }),
    );
    put(
        "CC",
        cc.into_bits().into(),
        json!({ "enabled": cc.en(), "command_set": cc.css().to_string(), "page_size": cc.page_size(),
                "sq_entry_bytes": 1 << cc.iosqes(), "cq_entry_bytes": 1 << cc.iocqes() }),
    );
    put(
        "CSTS",
        csts.into_bits().into(),
        json!({ "ready": csts.rdy(), "fatal": csts.cfs(), "shutdown": csts.shst().to_string() }),
    );
    put(
        "AQA",
        aqa.into_bits().into(),
        json!({ "sq_entries": u32::from(aqa.asqs()) + 1, "cq_entries": u32::from(aqa.acqs()) + 1 }),
    );
    let size = CmbSize::from_bits(read(offset::CMBSZ)?);
    // Controllers before NVMe 1.4 have no CAP.CMBS; a size above 0 announces the buffer.
    if size.into_bits() != 0 {
        let location = CmbLocation::from_bits(read(offset::CMBLOC)?);
        put(
            "CMBLOC",
            location.into_bits().into(),
            json!({ "bar": location.bir(), "offset_units": location.ofst() }),
        );
        put(
            "CMBSZ",
            size.into_bits().into(),
            json!({ "bytes": size.bytes(), "read_data": size.rds(), "write_data": size.wds(),
            "submission_queues": size.sqs(), "completion_queues": size.cqs(), "lists": size.lists() }),
        );
    }
    Ok(all.into())
}
