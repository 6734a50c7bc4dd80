//! Plans in files: TOML, of which each key is known or refused with its line.

use super::{
    super::{
        Error,
        units::{parse_bytes, parse_time},
    },
    Fault, FaultPlan, FaultRule, Watched,
};
use crate::spec::{AdminOpcode, NvmOpcode, Status};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    str::FromStr,
    time::Duration,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The longest file: far beyond any plan by hand, and soon read.
const MAX_FILE: u64 = 1 << 20;

/// Names of opcodes, and `true` for those of the admin queue.
const OPCODES: [(&str, bool, u8); 16] = [
    ("read", false, NvmOpcode::READ.0),
    ("write", false, NvmOpcode::WRITE.0),
    ("flush", false, NvmOpcode::FLUSH.0),
    ("write-zeroes", false, NvmOpcode::WRITE_ZEROES.0),
    ("deallocate", false, NvmOpcode::DATASET_MANAGEMENT.0),
    ("create-sq", true, AdminOpcode::CREATE_SQ.0),
    ("delete-sq", true, AdminOpcode::DELETE_SQ.0),
    ("create-cq", true, AdminOpcode::CREATE_CQ.0),
    ("delete-cq", true, AdminOpcode::DELETE_CQ.0),
    ("identify", true, AdminOpcode::IDENTIFY.0),
    ("get-log-page", true, AdminOpcode::GET_LOG_PAGE.0),
    ("abort", true, AdminOpcode::ABORT.0),
    ("set-features", true, AdminOpcode::SET_FEATURES.0),
    ("get-features", true, AdminOpcode::GET_FEATURES.0),
    ("async-event-request", true, AdminOpcode::ASYNC_EVENT_REQUEST.0),
    ("format", true, AdminOpcode::FORMAT_NVM.0),
];

/// Reads a plan from a file; returns it with the file's text.
pub fn load(path: &Path) -> Result<(FaultPlan, String), Error> {
    let bad = |reason: String, source| Error::File { path: path.into(), reason, source };
    let unreadable = |error| bad("the fault plan can't be read".into(), Some(error));
    // Without the flag, a pipe that nobody writes to would keep this call waiting.
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        let reason = "a fault plan is a regular file, which a pipe or a device is not: write the plan to one";
        return Err(bad(reason.into(), None));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        let reason = format!("it is longer than {MAX_FILE} bytes, the most of a fault plan: leave rules out");
        return Err(bad(reason, None));
    }
    let text = String::from_utf8(text).map_err(|error| unreadable(io::Error::other(error)))?;
    match text.parse::<FaultPlan>() {
        Ok(plan) => Ok((plan, text)),
        Err(Error::FaultPlan { line, reason }) => Err(bad(format!("line {line}: {reason}"), None)),
        Err(other) => Err(other),
    }
}

/// Says which line and key of a plan's text an error of the plan is about.
pub fn located(text: &str, error: &Error) -> String {
    let (rule, key, reason) = match *error {
        Error::FaultRule { rule, key, reason } => (Some(rule), key, reason),
        Error::FaultCache { reason } => (None, "cache", reason),
        _ => return error.to_string(),
    };
    // The text was a plan before.
    let at = offset_of(text, rule, key).unwrap_or(0);
    format!("line {}: {key}: {reason}", line(text, at))
}

/// Returns the place of a key of a rule, of the rule if it lacks the key; without a rule, of the plan.
fn offset_of(text: &str, rule: Option<usize>, key: &'static str) -> Option<usize> {
    let parsed = DeTable::parse(text).ok()?;
    let top = Keys::of(parsed.get_ref(), parsed.span());
    let Some(rule) = rule else { return Some(top.at(key)) };
    let table = top.find("fault")?.get_ref().as_array()?.get(rule - 1)?;
    Some(Keys::of(table.get_ref().as_table()?, table.span()).at(key))
}

/// Returns the line, from 1 on, of a place in a text.
fn line(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or(text).matches('\n').count() + 1
}

impl FromStr for FaultPlan {
    type Err = Error;

    /// Parses a plan in TOML.
    ///
    /// # Errors
    /// [`Error::FaultPlan`] with the line and the key.
    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text).map_err(|(at, reason)| Error::FaultPlan { line: line(text, at), reason })
    }
}

/// An error and its offset in the text.
type Fail = (usize, String);

fn parse(text: &str) -> Result<FaultPlan, Fail> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.get(..at).and_then(|before| before.lines().next_back().map(str::len));
        let begin = at
            - if text.get(..at).is_some_and(|before| before.ends_with('\n')) { 0 } else { line.unwrap_or(0) };
        let line = text.get(begin..).and_then(|rest| rest.lines().next()).unwrap_or("").trim();
        let key = line.split('=').next().unwrap_or(line).trim();
        (at, format!("{key}: {}", error.message()))
    })?;
    let top = Keys::of(parsed.get_ref(), parsed.span());
    let mut plan = FaultPlan::new(top.integer("seed")?.unwrap_or(0));
    plan.cache = top.bytes("cache")?;
    if let Some(faults) = top.find("fault") {
        let Some(rules) = faults.get_ref().as_array() else {
            return Err((
                faults.span().start,
                "fault: an array of tables is needed: each rule begins with [[fault]]".into(),
            ));
        };
        for rule in rules.iter() {
            let Some(table) = rule.get_ref().as_table() else {
                return Err((rule.span().start, "fault: each rule is a table".into()));
            };
            let keys = Keys::of(table, rule.span());
            plan.rules.push(parse_rule(&keys)?);
            keys.refuse_others()?;
        }
    }
    top.refuse_others()?;
    Ok(plan)
}

fn parse_rule(keys: &Keys<'_, '_>) -> Result<FaultRule, Fail> {
    let mut rule = FaultRule::new(parse_fault(keys)?);
    let mut of_admin = None;
    if let Some(value) = keys.find("opcode") {
        let (by_name, opcode) = parse_opcode(value)?;
        (rule.opcode, of_admin) = (Some(opcode), by_name);
    }
    if of_admin == Some(true) {
        rule.queue = Watched::One(0);
    }
    if let Some(value) = keys.find("queue") {
        rule.queue = parse_queue(value)?;
        let is_admin = rule.queue == Watched::One(0);
        if of_admin.is_some_and(|of_admin| of_admin != is_admin) {
            let queues = if is_admin { "I/O queues" } else { "the admin queue" };
            return Err((value.span().start, format!("queue: this opcode is one of {queues}")));
        }
    }
    rule.namespace = keys.integer("namespace")?;
    rule.lba = match keys.find("lba") {
        None => None,
        Some(value) => Some(parse_range(value)?),
    };
    rule.after = keys.integer("after")?.unwrap_or(0);
    if let Some(count) = keys.integer("count")? {
        rule.count = Some(count);
    }
    if let Some(value) = keys.find("probability") {
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) => integer.as_str().parse().ok(),
            _ => None,
        };
        let probability: f64 = number
            .filter(|number| (0.0..=1.0).contains(number))
            .ok_or((value.span().start, "probability: a number from 0 to 1 is needed".into()))?;
        rule = rule.probability(probability);
    }
    Ok(rule)
}

fn parse_fault(keys: &Keys<'_, '_>) -> Result<Fault, Fail> {
    let Some(kind) = keys.find("kind") else {
        return Err((keys.span.start, "kind: it is missing (kind = \"delay\", for example)".into()));
    };
    let unknown = || (kind.span().start, format!("kind: {} is no kind of fault", shown(kind)));
    Ok(match kind.get_ref().as_str().ok_or_else(unknown)? {
        "delay" => Fault::Delay(keys.need_time()?),
        "reorder" => Fault::Reorder(keys.need_time()?),
        "drop" => Fault::Drop,
        "lose-completion" => Fault::LoseCompletion,
        "status" => Fault::Status(parse_status(keys)?),
        "corrupt" => Fault::Corrupt,
        "duplicate" => Fault::Duplicate,
        "forged-id" => Fault::ForgedId,
        "stale-id" => Fault::StaleId,
        "wrong-queue" => Fault::WrongQueue,
        "bad-head" => Fault::BadHead,
        "early-phase" => Fault::EarlyPhase(keys.need_time()?),
        "half-written" => Fault::HalfWritten(keys.need_time()?),
        "early-completion" => Fault::EarlyCompletion(keys.need_time()?),
        "lost-interrupt" => Fault::LostInterrupt,
        "spurious-interrupts" => Fault::SpuriousInterrupts(keys.need_integer("number")?),
        "fatal" => Fault::Fatal,
        "never-ready" => Fault::NeverReady,
        "stuck-start" => Fault::StuckStart,
        "always-ready" => Fault::AlwaysReady,
        "all-ones" => Fault::AllOnes(keys.time()?),
        "changing-registers" => Fault::ChangingRegisters,
        "power-cut" => Fault::PowerCut,
        "stall" => Fault::Stall(keys.need_time()?),
        "event-storm" => Fault::EventStorm(keys.need_integer("number")?),
        "remove-namespace" => Fault::RemoveNamespace(keys.integer("target")?),
        "resize-namespace" => {
            Fault::ResizeNamespace { target: keys.integer("target")?, blocks: keys.need_integer("blocks")? }
        }
        "reformat-namespace" => Fault::ReformatNamespace {
            target: keys.integer("target")?,
            block_size: keys.need_integer("block-size")?,
        },
        "read-only-zone" => {
            Fault::ReadOnlyZone { target: keys.integer("target")?, zone: keys.need_integer("zone")? }
        }
        "offline-zone" => {
            Fault::OfflineZone { target: keys.integer("target")?, zone: keys.need_integer("zone")? }
        }
        "close-connection" => Fault::CloseConnection,
        _ => return Err(unknown()),
    })
}

/// Parses `status`, `dnr`, `more` and `crd`.
fn parse_status(keys: &Keys<'_, '_>) -> Result<Status, Fail> {
    let value = keys.find("status").ok_or_else(|| keys.missing("status"))?;
    let status: u16 = keys.integer("status")?.unwrap_or(0);
    if status > 0x7ff {
        let reason =
            "status: type and code are 11 bits, 0x001 to 0x7ff; dnr, more and crd are keys of their own";
        return Err((value.span().start, reason.into()));
    }
    let crd: u16 = keys.integer("crd")?.unwrap_or(0);
    if crd > 3 {
        return Err((keys.at("crd"), "crd: 0 to 3, the index of a command retry delay".into()));
    }
    let (dnr, more) = (keys.flag("dnr")?, keys.flag("more")?);
    Ok(Status::from_bits(status | crd << 11 | u16::from(more) << 13 | u16::from(dnr) << 14))
}

/// Parses an opcode; one by name is of the admin queue, or is not.
fn parse_opcode(value: &Spanned<DeValue<'_>>) -> Result<(Option<bool>, u8), Fail> {
    let fail = || {
        let names: Vec<_> = OPCODES.iter().map(|(name, ..)| *name).collect();
        let at = value.span().start;
        (at, format!("opcode: {} is neither 0 to 255 nor one of {}", shown(value), names.join(", ")))
    };
    if let Some(name) = value.get_ref().as_str() {
        let found = OPCODES.iter().find(|(known, ..)| *known == name);
        return found.map(|&(_, admin, opcode)| (Some(admin), opcode)).ok_or_else(fail);
    }
    integer(value).and_then(|number| u8::try_from(number).ok()).map(|opcode| (None, opcode)).ok_or_else(fail)
}

fn parse_queue(value: &Spanned<DeValue<'_>>) -> Result<Watched, Fail> {
    match value.get_ref().as_str() {
        Some("io") => return Ok(Watched::Io),
        Some("admin") => return Ok(Watched::One(0)),
        _ => {}
    }
    let qid = integer(value).and_then(|number| u16::try_from(number).ok());
    let reason = || format!("queue: {} is neither 0 to 65535, \"io\" nor \"admin\"", shown(value));
    qid.map(Watched::One).ok_or_else(|| (value.span().start, reason()))
}

fn parse_range(value: &Spanned<DeValue<'_>>) -> Result<std::ops::RangeInclusive<u64>, Fail> {
    if let Some(block) = integer(value) {
        return Ok(block..=block);
    }
    let ends = value.get_ref().as_str().and_then(|text| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    ends.ok_or_else(|| {
        (value.span().start, format!("lba: {} is no block (8) or range (\"8-15\")", shown(value)))
    })
}

/// Returns a number that is not negative.
fn integer(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Returns a value for a message.
fn shown(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.as_str().into(),
        DeValue::Float(float) => float.as_str().into(),
        DeValue::Boolean(flag) => flag.to_string(),
        other => format!("this {}", other.type_str()),
    }
}

/// The keys of a table, of which each that was looked for is known.
struct Keys<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'t, 'i> Keys<'t, 'i> {
    fn of(table: &'t DeTable<'i>, span: Range<usize>) -> Self {
        Self { table, span, known: RefCell::default() }
    }

    fn find(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.known.borrow_mut().insert(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn at(&self, key: &'static str) -> usize {
        self.find(key).map_or(self.span.start, |value| value.span().start)
    }

    fn missing(&self, key: &str) -> Fail {
        (self.span.start, format!("{key}: this kind of fault needs it"))
    }

    fn integer<N: TryFrom<u64>>(&self, key: &'static str) -> Result<Option<N>, Fail> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let number = integer(value).and_then(|number| N::try_from(number).ok());
        let bits = size_of::<N>() * 8;
        let reason = || format!("{key}: {} is no whole number from 0 on of {bits} bits", shown(value));
        number.map(Some).ok_or_else(|| (value.span().start, reason()))
    }

    fn need_integer<N: TryFrom<u64>>(&self, key: &'static str) -> Result<N, Fail> {
        self.integer(key)?.ok_or_else(|| self.missing(key))
    }

    fn flag(&self, key: &'static str) -> Result<bool, Fail> {
        let Some(value) = self.find(key) else { return Ok(false) };
        let reason = || format!("{key}: true or false is needed, not {}", shown(value));
        value.get_ref().as_bool().ok_or_else(|| (value.span().start, reason()))
    }

    fn bytes(&self, key: &'static str) -> Result<Option<u64>, Fail> {
        let Some(value) = self.find(key) else { return Ok(None) };
        let parsed = match (integer(value), value.get_ref().as_str()) {
            (Some(bytes), _) => Ok(bytes),
            (_, Some(text)) => parse_bytes(text),
            _ => Err(format!("{} is no size", shown(value))),
        };
        parsed.map(Some).map_err(|reason| (value.span().start, format!("{key}: {reason}")))
    }

    fn time(&self) -> Result<Option<Duration>, Fail> {
        let Some(value) = self.find("time") else { return Ok(None) };
        let text = value.get_ref().as_str();
        let parsed = text.ok_or_else(|| "a text with a unit is needed: \"5ms\"".into());
        let parsed = parsed.and_then(|text| parse_time(text, None));
        parsed.map(Some).map_err(|reason| (value.span().start, format!("time: {reason}")))
    }

    fn need_time(&self) -> Result<Duration, Fail> {
        self.time()?.ok_or_else(|| self.missing("time"))
    }

    /// Refuses keys that were never looked for.
    fn refuse_others(&self) -> Result<(), Fail> {
        let known = self.known.borrow();
        let other = self.table.iter().find(|(name, _)| !known.contains(&**name.get_ref()));
        other.map_or(Ok(()), |(name, _)| {
            let known: Vec<_> = known.iter().copied().collect();
            let reason =
                format!("{}: there is no such key here; known are {}", name.get_ref(), known.join(", "));
            Err((name.span().start, reason))
        })
    }
}
