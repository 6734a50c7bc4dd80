//! Checks the machine code of the hot path: it must have no panic, no division, no locked instruction, and no
//! call except of functions that are cold by name.
//!
//! It checks the functions of `upcie_benches::caller`, without landing pads, which only unwinding reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::Workspace;
use crate::checks::counted::{PROFILES, program};
use crate::process::{self, log};

/// The checked functions, by the ends of their names.
const MODULE: &str = "upcie_benches::caller::";
const FUNCTIONS: [&str; 3] = ["reap_and_read", "reap_and_write", "reap_and_submit"];
/// Parts of names of cold functions, which may be called off the straight path. The freeing functions (under
/// two names) free the box that holds the error of `reopen`. `turn_end::end` ends a turn where a panic unwinds or a function returns
/// early; a call on the straight path would show in the instructions per I/O.
const COLD: [&str; 8] = [
    "reopen",
    "turn_end::end",
    "submit_slowly",
    "turn::release",
    "Drop>::drop::release",
    "drop_in_place",
    "__rust_dealloc",
    "= free@",
];
const FORBIDDEN: [(&str, &str); 5] = [
    ("div", "a division"),
    ("idiv", "a division"),
    ("lock", "a locked instruction"),
    ("mfence", "a fence"),
    ("syscall", "a system call"),
];

/// Disassembles and checks every function in each profile.
pub fn check(workspace: &Workspace) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the machine code can be checked on x86-64 only");
    }
    let mut problems = Vec::new();
    for profile in PROFILES {
        let program = program(workspace, profile)?;
        let objdump = |arguments: &[&str]| {
            let output = process::output(Command::new("objdump").args(arguments).arg(&program));
            output.context("objdump (Debian: apt install binutils)")
        };
        let text = objdump(&["--disassemble", "--demangle", "--no-show-raw-insn", "--section=.text"])?;
        let text = with_slots(&text, &objdump(&["--dynamic-reloc"])?);
        for name in FUNCTIONS {
            let function = Function::find(&text, &format!("{MODULE}{name}"))?;
            problems.extend(
                function.problems().into_iter().map(|problem| format!("{profile} {name}: {problem}")),
            );
            log!(
                "{profile} {name}: {} instructions, {} calls of cold functions",
                function.code.len(),
                function.calls()
            );
        }
    }
    if !problems.is_empty() {
        bail!("the hot path has changed:\n  {}", problems.join("\n  "));
    }
    Ok(())
}

/// Adds the names of functions that are called through a slot of the global offset table. Without link-time
/// optimisation functions of other crates are called so: `call *0x846b3(%rip)        # d2588 <…>`.
fn with_slots(text: &str, relocations: &str) -> String {
    let heads = text.lines().filter_map(|line| line.strip_suffix(">:")?.split_once(" <"));
    let names: BTreeMap<u64, &str> =
        heads.filter_map(|(address, name)| Some((u64::from_str_radix(address, 16).ok()?, name))).collect();
    let mut slots = BTreeMap::new();
    for line in relocations.lines() {
        let mut words = line.split_whitespace();
        let (Some(slot), Some(_), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
        let Ok(slot) = u64::from_str_radix(slot, 16) else { continue };
        let address = value.strip_prefix("*ABS*+0x").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        // Functions of a shared library have a name only.
        slots.insert(slot, address.and_then(|address| names.get(&address).copied()).unwrap_or(value));
    }
    let mut all = String::with_capacity(text.len());
    for line in text.lines() {
        let slot = line.split_once(" # ").and_then(|(_, comment)| comment.split_once(' '));
        let slot = slot.and_then(|(slot, _)| u64::from_str_radix(slot, 16).ok());
        all += line;
        if let Some(name) = slot.and_then(|slot| slots.get(&slot)) {
            all += " = ";
            all += name;
        }
        all.push('\n');
    }
    all
}

/// One instruction.
#[derive(Debug)]
struct Instruction {
    mnemonic: String,
    operands: String,
    /// Target of a jump inside the function.
    target: Option<u64>,
}

impl Instruction {
    fn is_call(&self) -> bool {
        self.mnemonic.starts_with("call")
    }

    fn is_jump(&self) -> bool {
        self.mnemonic.starts_with('j')
    }

    fn is_conditional(&self) -> bool {
        self.is_jump() && !self.mnemonic.starts_with("jmp")
    }

    /// Returns true if the next instruction can't follow.
    fn ends(&self) -> bool {
        self.mnemonic.starts_with("ret")
            || self.mnemonic == "ud2"
            || (self.is_jump() && !self.is_conditional())
    }
}

/// A function's instructions by address.
#[derive(Debug)]
struct Function {
    code: BTreeMap<u64, Instruction>,
}

impl Function {
    /// Finds the function in objdump's text.
    fn find(text: &str, name: &str) -> Result<Self> {
        let head = format!("<{name}>:");
        let mut lines = text.lines().skip_while(|line| !line.ends_with(&head)).skip(1);
        let mut code = BTreeMap::new();
        for line in lines.by_ref().take_while(|line| !line.is_empty()) {
            let Some((address, instruction)) = line.trim_start().split_once(":\t") else { continue };
            let address = u64::from_str_radix(address, 16).with_context(|| line.to_owned())?;
            let (mnemonic, operands) = instruction.split_once(' ').unwrap_or((instruction, ""));
            let operands = operands.trim();
            let target = operands.split_whitespace().next();
            let target = target.and_then(|target| u64::from_str_radix(target, 16).ok());
            let (mnemonic, operands) = (mnemonic.trim().to_owned(), operands.to_owned());
            code.insert(address, Instruction { mnemonic, operands, target });
        }
        if code.is_empty() {
            bail!("there is no function {name} in the machine code");
        }
        for instruction in code.values().filter(|instruction| instruction.is_jump()) {
            if instruction.target.is_none() {
                bail!("{name} has a jump by table: {} {}", instruction.mnemonic, instruction.operands);
            }
        }
        Ok(Self { code })
    }

    fn after(&self, address: u64) -> Option<u64> {
        self.code.range(address + 1..).next().map(|(address, _)| *address)
    }

    /// Finds the instructions that are reached without unwinding.
    fn reached(&self) -> BTreeSet<u64> {
        let mut open: Vec<u64> = self.code.keys().next().copied().into_iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(address) = open.pop() {
            let Some(instruction) = self.code.get(&address) else { continue };
            if !reached.insert(address) {
                continue;
            }
            if !instruction.ends() {
                open.extend(self.after(address));
            }
            if instruction.is_jump() {
                open.extend(instruction.target);
            }
        }
        reached
    }

    /// Follows the function without taking a forward branch, until it repeats: compilers lay out the likely
    /// path in a straight line.
    fn straight(&self) -> Vec<u64> {
        let mut path = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = self.code.keys().next().copied();
        while let Some(address) = next.filter(|address| seen.insert(*address)) {
            path.push(address);
            let Some(instruction) = self.code.get(&address) else { break };
            next = match instruction.target {
                Some(target)
                    if instruction.is_jump() && (!instruction.is_conditional() || target < address) =>
                {
                    Some(target)
                }
                _ if instruction.ends() => None,
                _ => self.after(address),
            };
        }
        path
    }

    fn calls(&self) -> usize {
        self.reached().iter().filter(|address| self.code[*address].is_call()).count()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut found = |what: &str, address: u64, instruction: &Instruction| {
            problems
                .push(format!("{what} at {address:x}: {} {}", instruction.mnemonic, instruction.operands));
        };
        let reached = self.reached();
        for address in &reached {
            let instruction = &self.code[address];
            let away =
                instruction.is_jump() && !instruction.target.is_some_and(|to| self.code.contains_key(&to));
            if (instruction.is_call() || away) && !COLD.iter().any(|cold| instruction.operands.contains(cold))
            {
                found("a call", *address, instruction);
            }
            for (word, what) in FORBIDDEN {
                if instruction.mnemonic.strip_prefix(word).is_some_and(|suffix| suffix.len() <= 1) {
                    found(what, *address, instruction);
                }
            }
            // xchg with a memory operand locks without a prefix.
            if instruction.mnemonic.starts_with("xchg") && instruction.operands.contains('(') {
                found("a locked instruction", *address, instruction);
            }
        }
        for address in self.straight() {
            if let Some(instruction) = self.code.get(&address).filter(|instruction| instruction.is_call()) {
                found("a call on the straight path", address, instruction);
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::{Function, with_slots};

    /// A loop from 10 to 20 with a cold call at 30, and a landing pad at 40 without a jump to it.
    const TEXT: &str = "\
0000000000000010 <a::hot>:
  10:\tmov    (%rdi),%rax
  14:\tjne    30 <a::hot+0x20>
  18:\tmov    %rax,(%rsi)
  1c:\tjne    10 <a::hot>
  20:\tret
  30:\tcall   99 <b::turn::release>
  34:\tjmp    18 <a::hot+0x8>
  40:\tcall   *0x10(%rip)        # 500 <_DYNAMIC+0x1>
  44:\tud2

0000000000000099 <b::turn::release>:
  99:\tret
";

    fn problems(text: &str) -> Vec<String> {
        Function::find(text, "a::hot").expect("the function").problems()
    }

    #[test]
    fn cold_calls_off_the_path_and_landing_pads_pass() {
        assert_eq!(problems(TEXT), [""; 0]);
        assert_eq!(Function::find(TEXT, "a::hot").expect("the function").calls(), 1);
    }

    #[test]
    fn other_calls_are_found() {
        assert_eq!(problems(&TEXT.replace("b::turn::release>\n", "core::panicking::panic>\n")).len(), 1);
        assert_eq!(
            problems(&TEXT.replace("call   99", "call   *%rax #")).len(),
            0,
            "the name decides, not the call's form"
        );
        assert_eq!(problems(&TEXT.replace("call   99 <b::turn::release>", "call   *%rax")).len(), 1);
        // A jump out of the function counts as a call.
        assert_eq!(problems(&TEXT.replace("jmp    18 <a::hot+0x8>", "jmp    990 <c::d>")).len(), 1);
    }

    #[test]
    fn a_cold_call_on_the_straight_path_is_found() {
        let found = problems(&TEXT.replace("18:\tmov    %rax,(%rsi)", "18:\tcall   99 <b::turn::release>"));
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("straight"), "{found:?}");
    }

    #[test]
    fn divisions_and_locked_instructions_are_found() {
        for bad in
            ["lock xadd %rax,(%rsi)", "divl   0x34(%rcx)", "idiv   %ecx", "xchg   %rax,(%rsi)", "mfence"]
        {
            assert_eq!(problems(&TEXT.replace("mov    %rax,(%rsi)", bad)).len(), 1, "{bad}");
        }
        assert_eq!(problems(&TEXT.replace("mov    %rax,(%rsi)", "xchg   %ax,%ax")).len(), 0);
    }

    #[test]
    fn a_missing_function_is_an_error() {
        assert!(Function::find(TEXT, "a::cold").is_err());
    }

    #[test]
    fn a_call_through_a_slot_gets_a_name() {
        let relocations = "OFFSET TYPE VALUE\n0000000000000500 R_X86_64_RELATIVE  *ABS*+0x0000000000000099\n";
        let text = with_slots(TEXT, relocations);
        assert!(text.contains("# 500 <_DYNAMIC+0x1> = b::turn::release\n"), "{text}");
    }
}
