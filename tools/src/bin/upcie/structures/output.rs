//! How a structure is printed: as text, as JSON, or as the bytes that the controller sent.

use super::nvme_cli::{self, Source};
use crate::{
    cli,
    files::{self, Place, Use},
    outcome::Outcome,
    signal,
    target::Target,
    units,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};
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
    #[arg(long, short_alias = 'O', alias = "output-file", value_name = "FILE")]
    raw: Option<PathBuf>,
    /// Print as nvme-cli does: its names in JSON, where it has them
    #[arg(short, long, value_enum, value_name = "FORMAT", conflicts_with_all = ["json", "raw"])]
    output_format: Option<Format>,
    /// Give up if the device does not answer for this long
    #[arg(long, value_name = "TIME", default_value = "30", value_parser = units::parse_time)]
    timeout: Duration,
}

/// Output formats, by nvme-cli's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, as without this option
    Normal,
    /// One JSON value on stdout, with nvme-cli's names
    Json,
    /// The bytes as the controller sent them, on stdout
    Binary,
}

/// A structure that a controller sent.
#[derive(Debug)]
pub struct Page<'a> {
    /// The controller's name.
    pub device: &'a str,
    /// The specification's name of the structure.
    pub title: &'a str,
    /// The command that it came by.
    pub source: Source,
    /// `None` for one that the library does not know: its bytes are shown.
    pub fields: Option<Vec<Field>>,
    /// All of it.
    pub bytes: &'a [u8],
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

    /// Prints a structure.
    pub fn print(&self, page: Page<'_>) -> anyhow::Result<Outcome> {
        match (&self.raw, self.output_format) {
            (Some(path), _) if path.as_os_str() == "-" => cli::print(page.bytes)?,
            (Some(path), _) => write_file(path, page.bytes)?,
            (None, Some(Format::Binary)) => cli::print(page.bytes)?,
            (None, Some(Format::Json)) => {
                let json = nvme_cli::of_nvme_cli(page.source, page.device, page.bytes);
                print_json(&json.map_or_else(|| page.to_json(), Ok)?)?;
            }
            (None, _) if self.json => print_json(&page.to_json()?)?,
            (None, _) => cli::print(page.to_text()?.as_bytes())?,
        }
        Ok(Outcome::Done)
    }
}

impl Page<'_> {
    fn to_json(&self) -> anyhow::Result<Json> {
        let fields = match &self.fields {
            Some(fields) => serde_json::to_value(Value::Fields(fields.clone()))?,
            None => json!({ "bytes": hex(self.bytes) }),
        };
        Ok(json!({ "device": self.device, "structure": self.title, "fields": fields }))
    }

    fn to_text(&self) -> anyhow::Result<String> {
        let shown = match &self.fields {
            Some(fields) => Value::Fields(fields.clone()).to_string(),
            None => dump(self.bytes),
        };
        let mut text = format!("{}: {}\n", self.device, self.title);
        for line in shown.lines() {
            writeln!(text, "  {line}")?;
        }
        Ok(text)
    }
}

fn print_json(json: &Json) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(json)?;
    writeln!(text)?;
    cli::print(&text)
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
