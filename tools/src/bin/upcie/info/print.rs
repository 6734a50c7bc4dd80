//! Prints what `upcie info` has found for people: in sections, one field per line.

use crate::units;
use serde_json::Value;
use std::io::{self, Write};

/// Prints the information for people: in sections, one field per line.
pub fn all(info: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", text("", &info["address"]))?;
    section(out, "Controller", &info["controller"])?;
    section(out, "Limits", &info["limits"])?;
    for (name, fields) in info["own_memory"].as_object().into_iter().flatten() {
        if !fields.is_null() {
            let (first, rest) = name.split_at(1);
            section(out, &format!("{}{}", first.to_uppercase(), rest.replace('_', " ")), fields)?;
        }
    }
    section(out, "Interrupts", &info["interrupts"])?;
    for namespace in info["namespaces"].as_array().into_iter().flatten() {
        section(out, &format!("Namespace {}", namespace["id"]), namespace)?;
    }
    if let Some(reason) = info["namespaces_unknown"].as_str() {
        writeln!(out, "\nNamespaces\n  unknown: {reason}")?;
    }
    registers(info, out)
}

/// Prints the registers: a line with the value, and lines with its fields.
pub fn registers(info: &Value, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nRegisters")?;
    for (name, fields) in info["registers"].as_object().into_iter().flatten() {
        let fields = fields.as_object().into_iter().flatten();
        let raw = fields
            .clone()
            .filter(|(key, _)| *key == "raw")
            .map(|(_, value)| text("", value))
            .collect::<String>();
        let rest: Vec<_> = fields
            .filter(|(key, _)| *key != "raw")
            .map(|(key, value)| format!("{} {}", key.replace('_', " "), text(key, value)))
            .collect();
        writeln!(out, "  {name:<7} {raw}")?;
        for line in lines(&rest) {
            writeln!(out, "          {line}")?;
        }
    }
    Ok(())
}

/// Joins texts by commas, in lines of at most 90 characters where no text is longer.
fn lines(texts: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for text in texts {
        match lines.last_mut() {
            Some(line) if line.len() + text.len() < 88 => *line = format!("{line}, {text}"),
            Some(line) => {
                line.push(',');
                lines.push(text.clone());
            }
            None => lines.push(text.clone()),
        }
    }
    lines
}

/// Fields that the text of `block_format` or `max_transfer` tells.
const TOLD: [&str; 5] = ["data_size", "metadata_size", "metadata_is_extended", "protection", "mdts"];

fn section(out: &mut impl Write, title: &str, fields: &Value) -> io::Result<()> {
    writeln!(out, "\n{title}")?;
    for (key, value) in fields.as_object().into_iter().flatten() {
        match value {
            Value::Null if key == "in_use" => {
                writeln!(out, "  {:<28} none: polling only", label(key))?;
            }
            // The controller does not report this field, or another one shows it to people.
            Value::Null => {}
            _ if TOLD.contains(&key.as_str()) => {}
            Value::Object(flags) => {
                let set: Vec<_> = flags
                    .iter()
                    .filter(|(_, on)| **on == Value::Bool(true))
                    .map(|(name, _)| name.replace('_', " "))
                    .collect();
                writeln!(
                    out,
                    "  {:<28} {}",
                    label(key),
                    if set.is_empty() { "none".into() } else { set.join(", ") }
                )?;
            }
            Value::Array(formats) => {
                for format in formats {
                    let mark = if format["in_use"] == true { ", in use" } else { "" };
                    let (index, size, metadata) =
                        (&format["index"], &format["block_size"], &format["metadata"]);
                    writeln!(
                        out,
                        "  {:<28} {size} bytes + {metadata} of metadata{mark}",
                        format!("format {index}")
                    )?;
                }
            }
            value if key != "id" || title == "Controller" => {
                writeln!(out, "  {:<28} {}", label(key), text(key, value))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the name of a field for people, without the unit, which the value has.
fn label(key: &str) -> String {
    let name = key.strip_suffix("_kelvin").or_else(|| key.strip_suffix("_microwatts"));
    name.unwrap_or(key).replace('_', " ")
}

/// Formats a value for people.
fn text(key: &str, value: &Value) -> String {
    const SIZES: [&str; 11] = [
        "size",
        "key_value_size",
        "key_value_used",
        "max_value",
        "max_transfer",
        "page_size",
        "page_size_min",
        "page_size_max",
        "capacity",
        "bytes",
        "doorbell_stride",
    ];
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(on) => if *on { "yes" } else { "no" }.into(),
        Value::Number(number) if SIZES.contains(&key) => units::bytes(number.as_u64().unwrap_or(0)),
        Value::Number(number) if key.ends_with("_microwatts") => {
            format!("{} W", number.as_f64().unwrap_or(0.0) / 1e6)
        }
        Value::Number(number) if key.ends_with("_kelvin") => {
            format!("{} °C", units::celsius(number.as_i64().unwrap_or(0)))
        }
        Value::Number(number) if matches!(key, "vendor" | "subsystem_vendor") => {
            format!("{:#06x}", number.as_u64().unwrap_or(0))
        }
        other => other.to_string(),
    }
}
