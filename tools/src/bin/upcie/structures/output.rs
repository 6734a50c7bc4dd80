//! How a structure is printed: as text, as JSON, or as the bytes that the controller sent.

use crate::{
    cli,
    files::{self, Place, Use},
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value as Json, json};
use std::{
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};
use upcie_nvme::{
    Controller,
    spec::{Field, Value},
};

/// Arguments of all commands that show structures.
#[derive(Debug, Args)]
pub struct Output {
    /// Print one JSON object on stdout
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Write the bytes as the controller sent them to FILE; `-` is stdout
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Give up if the device does not answer for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

impl Output {
    /// Checks that the outputs are not the device's medium, and opens the controller for reading.
    pub fn open(&self, target: &Target) -> anyhow::Result<Controller> {
        self.prepare(target, false)?;
        target.open_to_read(Controller::builder().timeout(self.timeout))
    }

    /// Opens the controller like [`open`](Self::open), to change something.
    pub fn open_to_change(&self, target: &Target) -> anyhow::Result<Controller> {
        self.prepare(target, true)?;
        target.open(Controller::builder().timeout(self.timeout))
    }

    fn prepare(&self, target: &Target, writes: bool) -> anyhow::Result<()> {
        let place = match &self.raw {
            Some(path) => Use::writes("--raw", Place::output(path)),
            None => Use::writes("stdout", Place::Stdout),
        };
        files::check_distinct(&Use::media(target, writes).into_iter().chain([place]).collect::<Vec<_>>())?;
        files::check_stream_unlocked(Place::Stdout)?;
        signal::install()
    }

    /// Prints a structure. `fields` is `None` for one that the library does not know: its bytes are shown.
    pub fn print(
        &self,
        device: &str,
        title: &str,
        fields: Option<Vec<Field>>,
        bytes: &[u8],
    ) -> anyhow::Result<Outcome> {
        match &self.raw {
            Some(path) if path.as_os_str() == "-" => cli::print(bytes)?,
            Some(path) => write_file(path, bytes)?,
            None if self.json => {
                let mut object = Map::new();
                object.insert("device".into(), device.into());
                object.insert("structure".into(), title.into());
                let fields = match fields {
                    Some(fields) => serde_json::to_value(Value::Fields(fields))?,
                    None => json!({ "bytes": hex(bytes) }),
                };
                object.insert("fields".into(), fields);
                let mut text = serde_json::to_vec_pretty(&Json::Object(object))?;
                writeln!(text)?;
                cli::print(&text)?;
            }
            None => {
                let shown = match fields {
                    Some(fields) => Value::Fields(fields).to_string(),
                    None => dump(bytes),
                };
                let mut text = format!("{device}: {title}\n");
                for line in shown.lines() {
                    writeln!(text, "  {line}")?;
                }
                cli::print(text.as_bytes())?;
            }
        }
        Ok(Outcome::Done)
    }
}

/// Replaces a file by bytes, unless another program has locked it.
pub fn write_file(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = files::Output::open(path)?;
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))
}

/// Returns bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns bytes as lines of 16, with their offsets; lines that repeat the one before are left out.
pub fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut last: Option<&[u8]> = None;
    let mut skipped = false;
    for (index, line) in bytes.chunks(16).enumerate() {
        if last == Some(line) && (index + 1) * 16 < bytes.len() {
            if !skipped {
                text += "*\n";
            }
            skipped = true;
            continue;
        }
        (last, skipped) = (Some(line), false);
        let digits = line.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
        text += &format!("{:08x} {digits}\n", index * 16);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_are_left_out_of_a_dump() {
        let mut bytes = vec![0; 64];
        bytes[63] = 0xff;
        let lines: Vec<_> = dump(&bytes).lines().map(|line| line[..8.min(line.len())].to_owned()).collect();
        assert_eq!(lines, ["00000000", "*", "00000030"]);
    }
}
