//! `upcie kv`: the keys and values of a namespace.

use super::common::{Common, Effect, namespace_of};
use crate::{
    cli,
    files::{self, Output, Place, Use},
    guard::Consent,
    input::{self, Limit},
    outcome::Outcome,
    structures::{hex, parse},
    target::Lists,
    units,
};
use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    path::PathBuf,
};
use upcie_nvme::{
    Controller, KeyValue,
    spec::{Csi, Key, RetrieveOptions, StoreOptions},
};

/// Text below the options of `--help`.
pub const EXAMPLES: &str = "\
Examples:
  upcie kv list emu:kv=true
  echo hello | upcie kv store 0000:01:00.0 greeting --destructive
  upcie kv store 0000:01:00.0 00ff17 value.bin --hex --must-not-exist --destructive
  upcie kv retrieve 0000:01:00.0 greeting
  upcie kv exist 0000:01:00.0 greeting

A key is text of 1 to 16 bytes or, with --hex, hexadecimal digits. The first namespace with keys is
meant if none is named. `exist` ends with the exit code 3 if there is no such key.";

/// Arguments of `upcie kv`.
#[derive(Debug, Args)]
pub struct KvArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Store a file or stdin as the value of a key
    Store(StoreArgs),
    /// Retrieve the value of a key into a file or to stdout
    Retrieve(RetrieveArgs),
    /// List keys
    List(ListArgs),
    /// Delete a key and its value
    Delete(DeleteArgs),
    /// Say whether there is a key
    Exist(ExistArgs),
}

/// The device and its namespace.
#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    common: Common,
    /// Namespace; the first one with keys by default
    #[arg(long, short = 'n', alias = "namespace-id", value_name = "NSID", value_parser = parse::<u32>)]
    namespace: Option<u32>,
    #[command(flatten)]
    lists: Lists,
}

/// A key of the namespace.
#[derive(Debug, Args)]
struct Named {
    /// Key: text, or hexadecimal digits with --hex
    #[arg(value_name = "KEY")]
    key: String,
    /// The key is hexadecimal digits
    #[arg(long)]
    hex: bool,
}

#[derive(Debug, Args)]
struct StoreArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: Named,
    /// File to store, or - for stdin
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Store only if the key exists
    #[arg(long, conflicts_with = "must_not_exist")]
    must_exist: bool,
    /// Store only if the key does not exist
    #[arg(long)]
    must_not_exist: bool,
    /// Ask the controller not to compress the value
    #[arg(long)]
    uncompressed: bool,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct RetrieveArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: Named,
    /// File to write, or - for stdout; an existing file is replaced once the value was retrieved
    #[arg(value_name = "FILE", default_value = "-", conflicts_with = "json")]
    file: PathBuf,
    /// Ask for the value as it is stored, without decompression
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    which: Which,
    /// Key to begin with: text, or hexadecimal digits with --hex
    #[arg(long, value_name = "KEY")]
    from: Option<String>,
    /// The key of --from is hexadecimal digits
    #[arg(long, requires = "from")]
    hex: bool,
    /// The most keys to list; all by default
    #[arg(long, value_name = "N", value_parser = parse::<u64>)]
    count: Option<u64>,
}

#[derive(Debug, Args)]
struct DeleteArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: Named,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Args)]
struct ExistArgs {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    key: Named,
}

impl Which {
    /// Returns the keys of the namespace.
    fn keys(&self, controller: &Controller) -> anyhow::Result<KeyValue> {
        Ok(namespace_of(controller, self.namespace, Csi::KEY_VALUE, "keys")?.keys()?)
    }

    fn open(&self, effect: Effect<'_>, consent: Consent) -> anyhow::Result<(Controller, KeyValue)> {
        let controller = self.common.open_with(effect, consent, self.lists.builder())?;
        let keys = self.keys(&controller)?;
        Ok((controller, keys))
    }

    fn open_to_read(&self) -> anyhow::Result<(Controller, KeyValue)> {
        self.open(Effect::Reads, Consent::default())
    }

    /// Opens the namespace for a change: `what` names it, and ends before the namespace.
    fn open_to_change(&self, what: &str, consent: Consent) -> anyhow::Result<(Controller, KeyValue)> {
        let first = |controller: &Controller| Ok(self.keys(controller)?.namespace().nsid());
        let nsid = self.common.erased(self.namespace, consent, first)?;
        self.open(Effect::Erases(nsid, what), consent)
    }

    fn print(
        &self,
        controller: &Controller,
        text: &str,
        fields: &[(&str, Value)],
    ) -> anyhow::Result<Outcome> {
        self.common.print(controller.name(), text, fields)
    }
}

/// Parses a key: text, or hexadecimal digits.
fn key_of(text: &str, is_hex: bool) -> anyhow::Result<Key> {
    if !is_hex {
        return Key::new(text.as_bytes()).with_context(|| format!("the key {text:?}"));
    }
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let byte = |at: usize| {
        let pair = digits.get(at..at + 2).filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(byte).collect();
    let bytes = bytes
        .with_context(|| format!("the key {text:?}: hexadecimal digits, two for each byte, are needed"))?;
    Key::new(&bytes).with_context(|| format!("the key {text:?}"))
}

impl Named {
    fn key(&self) -> anyhow::Result<Key> {
        key_of(&self.key, self.hex)
    }
}

/// Describes a key for programs: its bytes, and the text that they are, if they are one.
fn described(key: Key) -> Value {
    let text = std::str::from_utf8(key.as_bytes()).ok().filter(|text| !text.contains(char::is_control));
    json!({ "key": text, "hex": hex(key.as_bytes()) })
}

/// Runs `upcie kv`.
pub fn run(args: &KvArgs) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Store(args) => store(args),
        Verb::Retrieve(args) => retrieve(args),
        Verb::List(args) => list(args),
        Verb::Delete(args) => delete(args),
        Verb::Exist(args) => exist(args),
    }
}

/// A value, which one command stores.
const LARGEST: Limit<'static> =
    Limit { bytes: input::COMMAND.bytes, reason: "the most of a value: store it under several keys" };

fn store(args: &StoreArgs) -> anyhow::Result<Outcome> {
    let (which, key) = (&args.which, args.key.key()?);
    let (name, value) = files::read_input(&args.file, LARGEST)?;
    let (controller, keys) = which.open_to_change("kv store writes to", args.consent)?;
    ensure!(
        value.len() <= keys.max_value(),
        "{name} has {} bytes, and a value has {} at most here; nothing was stored",
        value.len(),
        keys.max_value()
    );
    let mut options = StoreOptions::empty();
    options.set(StoreOptions::MUST_EXIST, args.must_exist);
    options.set(StoreOptions::MUST_NOT_EXIST, args.must_not_exist);
    options.set(StoreOptions::UNCOMPRESSED, args.uncompressed);
    keys.store_bytes(key, &value, options)?;
    keys.flush()?;
    let nsid = keys.namespace().nsid();
    let text = format!("stored {} bytes under {key} in namespace {nsid}", value.len());
    let fields = [("namespace", nsid.into()), ("key", described(key)), ("bytes", value.len().into())];
    which.print(&controller, &text, &fields)
}

fn retrieve(args: &RetrieveArgs) -> anyhow::Result<Outcome> {
    let (which, key) = (&args.which, args.key.key()?);
    let place = Place::output(&args.file);
    if let Place::Path(path) = place {
        let media = Use::media(&which.common.target, false).into_iter();
        let output = Use::writes(path.display().to_string(), place);
        files::check_distinct(&media.chain([output]).collect::<Vec<_>>())?;
    }
    let (controller, keys) = which.open_to_read()?;
    let mut options = RetrieveOptions::empty();
    options.set(RetrieveOptions::RAW, args.raw);
    let mut buffer = controller.alloc(keys.max_transfer())?;
    let room = buffer.len();
    let len = keys.retrieve_with(key, &mut buffer, 0..room, options)?;
    ensure!(
        len <= room,
        "the value of {key} has {}, and one command transfers {} (MDTS): it can't be retrieved as a whole",
        units::bytes(len as u64),
        units::bytes(room as u64)
    );
    let mut value = vec![0; len];
    buffer.read_at(0, &mut value);
    if which.common.is_json() {
        let nsid = keys.namespace().nsid();
        let fields = [
            ("namespace", nsid.into()),
            ("key", described(key)),
            ("bytes", len.into()),
            ("value", hex(&value).into()),
        ];
        return which.print(&controller, "", &fields);
    }
    match place {
        Place::Path(path) => {
            let name = path.display().to_string();
            // Opened last: every error before this leaves an existing file unchanged.
            let mut file = Output::open(path)?;
            file.clear().and_then(|()| file.write_all(&value)).with_context(|| format!("writing {name}"))?;
        }
        _ => {
            let is_text = std::str::from_utf8(&value)
                .is_ok_and(|text| text.chars().all(|letter| !letter.is_control() || letter == '\n'));
            if !is_text && io::stdout().is_terminal() {
                bail!("refusing to print bytes to a terminal: name a file, or use --json");
            }
            cli::print(&value)?;
        }
    }
    Ok(Outcome::Done)
}

fn list(args: &ListArgs) -> anyhow::Result<Outcome> {
    let from = args.from.as_deref().map(|from| key_of(from, args.hex)).transpose()?;
    let (controller, keys) = args.which.open_to_read()?;
    let most = args.count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
    let found = keys.list(from, most)?;
    let (nsid, id) = (keys.namespace().nsid(), keys.identify());
    let mut text = format!(
        "namespace {nsid}: {} in use of {}; keys: {}",
        units::bytes(id.utilization),
        units::bytes(id.size),
        found.len()
    );
    for key in &found {
        write!(text, "\n  {key}")?;
    }
    let fields = [
        ("namespace", nsid.into()),
        ("size", id.size.into()),
        ("used", id.utilization.into()),
        ("count", found.len().into()),
        ("keys", found.into_iter().map(described).collect()),
    ];
    args.which.print(&controller, &text, &fields)
}

fn delete(args: &DeleteArgs) -> anyhow::Result<Outcome> {
    let (which, key) = (&args.which, args.key.key()?);
    let (controller, keys) = which.open_to_change("kv delete deletes a key of", args.consent)?;
    let existed = keys.exists(key)?;
    keys.delete(key)?;
    keys.flush()?;
    let nsid = keys.namespace().nsid();
    let text = match existed {
        true => format!("deleted {key} and its value from namespace {nsid}"),
        false => format!("there was no {key} in namespace {nsid}"),
    };
    let fields = [("namespace", nsid.into()), ("key", described(key)), ("existed", existed.into())];
    which.print(&controller, &text, &fields)
}

fn exist(args: &ExistArgs) -> anyhow::Result<Outcome> {
    let (which, key) = (&args.which, args.key.key()?);
    let (controller, keys) = which.open_to_read()?;
    let (nsid, exists) = (keys.namespace().nsid(), keys.exists(key)?);
    let text = match exists {
        true => format!("namespace {nsid} has the key {key}"),
        false => format!("namespace {nsid} has no key {key}"),
    };
    let fields = [("namespace", nsid.into()), ("key", described(key)), ("exists", exists.into())];
    which.print(&controller, &text, &fields)?;
    Ok(if exists { Outcome::Done } else { Outcome::Faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_text_or_digits() {
        assert_eq!(key_of("user:17", false).unwrap().as_bytes(), b"user:17");
        for text in ["00ff17", "0x00FF17"] {
            assert_eq!(key_of(text, true).unwrap().as_bytes(), [0, 0xff, 0x17]);
        }
        for (text, is_hex) in
            [("", false), ("12345678901234567", false), ("", true), ("0x", true), ("123", true)]
        {
            key_of(text, is_hex).unwrap_err();
        }
        for text in ["0g", "+1", "é", "0x1é", "112233445566778899aabbccddeeff0011"] {
            assert!(format!("{:#}", key_of(text, true).unwrap_err()).contains(text), "{text}");
        }
    }
}
