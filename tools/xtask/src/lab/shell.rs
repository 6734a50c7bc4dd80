//! `cargo xtask guest --shell`: a prompt in the guest over its serial port.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::lab::guest;
use crate::lab::kernel::Lab;
use crate::lab::payload::Payload;
use crate::lab::qemu::Options;
use crate::process::{self, log};

/// Ctrl-], the escape key of telnet.
const ESCAPE: u8 = 0x1d;
/// Ctrl-D.
const END: u8 = 0x04;

pub fn run(lab: &Lab, options: &Options, mut payload: Payload) -> Result<ExitCode> {
    // A serial port does not know the size of the terminal.
    let size = stty(&["size"]).unwrap_or_default();
    let resize = match size.split_whitespace().collect::<Vec<_>>()[..] {
        [rows, columns] => format!("stty rows {rows} cols {columns}\n"),
        _ => String::new(),
    };
    let script = format!("{resize}export PS1='guest:\\w\\$ '\nexec sh -i\n");
    payload.add("payload/shell", &script);
    log!("booting; `exit` ends the guest, Ctrl-] kills it");
    let (run, mut machine) = guest::boot(lab, options, &payload, true, Duration::from_secs(120))?;
    let started = Instant::now();
    loop {
        process::check_interrupt()?;
        let mut console = machine.console();
        // Once there is a prompt, the shell reads input.
        if let Some(prompt) = console.find("guest:") {
            console.forward = true;
            std::io::stdout().write_all(&console.text[prompt..])?;
            std::io::stdout().flush()?;
            break;
        }
        if started.elapsed() > Duration::from_secs(120) {
            bail!("no prompt within 120 s; the guest's console:\n{}", console.tail(20));
        }
        drop(console);
        if machine.has_ended()? {
            bail!("the guest ended:\n{}", machine.console().tail(20));
        }
        thread::sleep(process::POLL);
    }
    let raw = Raw::enter();
    let escape = Arc::new(AtomicBool::new(false));
    if let Some(input) = machine.input.take() {
        let escape = Arc::clone(&escape);
        // The thread may block in a read when the guest ends; it ends with the process.
        thread::spawn(move || forward_input(input, &escape));
    }
    while !machine.has_ended()? && !escape.load(Ordering::Relaxed) {
        process::check_interrupt()?;
        if run.out("shell.code").exists() {
            // Hide the kernel's last messages.
            machine.console().forward = false;
        }
        thread::sleep(process::POLL);
    }
    drop(raw);
    println!();
    let code = std::fs::read_to_string(run.out("shell.code")).unwrap_or_default();
    Ok(ExitCode::from(code.trim().parse::<u8>().unwrap_or(1)))
}

/// Passes input on in small pieces: the port's flow control does not reach the shell.
fn forward_input(mut to: impl Write, escape: &AtomicBool) {
    let mut chunk = [0; 64];
    let mut stdin = std::io::stdin().lock();
    while let Ok(length @ 1..) = stdin.read(&mut chunk) {
        if chunk[..length].contains(&ESCAPE) {
            escape.store(true, Ordering::Relaxed);
            return;
        }
        if to.write_all(&chunk[..length]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
    // Send Ctrl-D at the end of a pipe. The pipe to QEMU stays open, because QEMU would not pass its end on.
    if to.write_all(&[END]).and_then(|()| to.flush()).is_ok() {
        loop {
            thread::park();
        }
    }
}

fn stty(arguments: &[&str]) -> Option<String> {
    if !std::io::stdin().is_terminal() {
        return None;
    }
    let output = Command::new("stty").args(arguments).stdin(Stdio::inherit()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The terminal in raw mode until this is dropped: every key goes to the guest, which echoes it.
struct Raw(Option<String>);

impl Raw {
    fn enter() -> Self {
        let saved = stty(&["-g"]);
        if saved.is_some() {
            stty(&["raw", "-echo"]);
        }
        Self(saved)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            stty(&[saved]);
        }
    }
}
