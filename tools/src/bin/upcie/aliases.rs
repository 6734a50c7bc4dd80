//! nvme-cli's names of verbs and its options: each stands for a verb, a word or an option of this program.

use crate::structures::{is_cns, is_feature, is_log, is_page, is_structure};
use clap::{Arg, Command, CommandFactory};
use std::ffi::OsString;

/// nvme-cli's name, the words that stand for it, and the words behind the device and its options.
type Alias = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The names that stand for other words. Log pages and identify structures that `log` and `id` know by nvme-cli's names need
/// no line here.
const ALIASES: &[Alias] = &[
    ("admin-passthru", &["admin"], &[]),
    ("io-passthru", &["io"], &[]),
    ("create-ns", &["ns", "create"], &[]),
    ("delete-ns", &["ns", "delete"], &[]),
    ("attach-ns", &["ns", "attach"], &[]),
    ("detach-ns", &["ns", "detach"], &[]),
    ("fw-download", &["fw", "download"], &[]),
    ("fw-commit", &["fw", "commit"], &[]),
    ("fw-activate", &["fw", "commit"], &[]),
    ("device-self-test", &["selftest"], &[]),
    ("security-send", &["security", "send"], &[]),
    ("security-recv", &["security", "receive"], &[]),
    ("dir-send", &["directive", "send"], &[]),
    ("dir-receive", &["directive", "receive"], &[]),
    ("virt-mgmt", &["virt"], &[]),
    ("capacity-mgmt", &["capacity"], &[]),
    ("get-lba-status", &["lba-status"], &[]),
    ("resv-register", &["resv", "register"], &[]),
    ("resv-acquire", &["resv", "acquire"], &[]),
    ("resv-release", &["resv", "release"], &[]),
    ("resv-report", &["resv", "report"], &[]),
    ("show-regs", &["info"], &[]),
    ("subsystem-reset", &["reset"], &["--subsystem"]),
    ("get-property", &["property", "get"], &[]),
    ("set-property", &["property", "set"], &[]),
    ("get-log", &["log"], &[]),
    ("get-feature", &["feature"], &["get"]),
    ("set-feature", &["feature"], &["set"]),
    ("get-ns-id", &["id"], &["list-ns"]),
];

/// Verbs that have a word where nvme-cli has an option, with the option's letter and its name.
const WORDS: &[(&str, &str, &str)] = &[
    ("log", "-i", "--log-id"),
    ("feature", "-f", "--feature-id"),
    ("selftest", "-s", "--self-test-code"),
    ("fw download", "-f", "--fw"),
];

/// nvme-cli's flags of some verbs, and the flag that stands for each. One that is empty is left out: text is always
/// for people, and the opcode tells the direction of the data.
const FLAGS: &[(&[&str], &[&str], &str)] = &[
    (&["log", "id", "feature"], &["-b", "--raw-binary"], "--output-format=binary"),
    (&["log", "id", "feature", "info"], &["-H", "--human-readable"], ""),
    (&["admin", "io"], &["-b", "--raw-binary"], "--raw=-"),
    (&["admin", "io"], &["-r", "--read", "-w", "--write"], ""),
];

/// Returns the arguments in this program's words and order.
pub fn expand(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    // clap's `help` takes no option.
    let help = |word: Option<&OsString>| word.is_some_and(|word| word == "--help" || word == "-h");
    if all.get(1).is_some_and(|verb| verb == "help") && help(all.get(2)) {
        all.remove(2);
    }
    // Options in front of the verb are this program's own: leave such a line as it is.
    let Some(name) = all.get(1).and_then(|name| name.to_str()).map(str::to_owned) else { return all };
    let owned = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    let mut behind = Vec::new();
    if let Some((_, verb, words)) = ALIASES.iter().find(|alias| alias.0 == name) {
        all.splice(1..2, owned(verb));
        behind = owned(words);
    } else if is_log(&name) || is_structure(&name) {
        all[1] = if is_log(&name) { "log" } else { "id" }.into();
        behind = owned(&[&name]);
    }
    arrange(&mut all, behind);
    all
}

/// Puts the device of a line in front of its other words, which is clap's order, and `behind` it the words that a name
/// or an option of nvme-cli's stands for.
fn arrange(all: &mut Vec<OsString>, mut behind: Vec<OsString>) {
    let cli = crate::Cli::command();
    let (mut command, mut from, mut names) = (&cli, 1_usize, Vec::new());
    while let Some(found) = all.get(from).and_then(|word| command.find_subcommand(word)) {
        (command, from) = (found, from + 1);
        names.push(found.get_name());
    }
    let verb: &str = &names.join(" ");
    behind.extend(word_of_option(all, from, verb));
    // Verbs whose -o is an opcode or a file have no such letter.
    let has = |wanted: &dyn Fn(&Arg) -> bool| command.get_arguments().any(wanted);
    let has_format = has(&|argument| argument.get_long() == Some("output-format"))
        && !has(&|argument| argument.get_short() == Some('o'));
    let sets = verb == "feature" && all.iter().skip(from).chain(&behind).any(|word| word == "set");
    for at in kinds(all, from, command, |kind| kind == Kind::Option).into_iter().rev() {
        let flag = FLAGS
            .iter()
            .find(|(verbs, flags, _)| verbs.contains(&verb) && flags.iter().any(|flag| all[at] == *flag));
        match flag {
            Some((_, _, "")) => drop(all.remove(at)),
            Some((_, _, ours)) => all[at] = ours.into(),
            // The letter of --select of Get Features.
            None if sets && all[at] == "-s" => all[at] = "--save".into(),
            None if has_format && all[at] == "-o" => all[at] = "--output-format".into(),
            None => {}
        }
    }
    let is_name: fn(&str) -> bool = match verb {
        "log" => is_page,
        "id" => is_cns,
        "feature" => |word| is_action(word) || is_feature(word),
        _ => |_| false,
    };
    let is_word = |kind: Kind| kind == Kind::Word;
    let words = kinds(all, from, command, is_word);
    let device = words.iter().find(|&&at| !is_name(&all[at].to_string_lossy())).copied();
    if let (Some(device), Some(&first)) = (device, words.first()) {
        let device = all.remove(device);
        all.insert(first, device);
    }
    // A feature is behind what is done with it.
    let has_action = behind.first().and_then(|word| word.to_str()).is_some_and(is_action);
    let front = if verb == "feature" && !has_action { 2 } else { 1 };
    let words = kinds(all, from, command, is_word);
    let place = words.get(front - 1).map_or(all.len(), |at| at + 1);
    all.splice(place..place, behind);
}

fn is_action(word: &str) -> bool {
    matches!(word, "get" | "set")
}

/// Takes an option of [`WORDS`] out of a line; returns its value.
fn word_of_option(all: &mut Vec<OsString>, from: usize, verb: &str) -> Option<OsString> {
    let &(_, letter, name) = WORDS.iter().find(|option| option.0 == verb)?;
    for at in from..all.len() {
        let Some(text) = all[at].to_str() else { continue };
        if text == letter || text == name {
            all.remove(at);
            return (at < all.len()).then(|| all.remove(at));
        }
        let named = text.strip_prefix(name).and_then(|rest| rest.strip_prefix('='));
        let value = named.or_else(|| text.strip_prefix(letter)).map(OsString::from);
        if value.is_some() {
            all.remove(at);
            return value;
        }
    }
    None
}

/// A part of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A device, a file, or a name.
    Word,
    /// An option, with its value if both are one argument.
    Option,
    /// The value of the option before it.
    Value,
}

/// Returns the positions from `from` on of the wanted kind.
fn kinds(all: &[OsString], from: usize, command: &Command, wanted: impl Fn(Kind) -> bool) -> Vec<usize> {
    let (mut found, mut is_value) = (Vec::new(), false);
    for (at, argument) in all.iter().enumerate().skip(from) {
        let text = argument.to_string_lossy();
        let kind = match text.strip_prefix('-') {
            _ if is_value => Kind::Value,
            None | Some("") => Kind::Word,
            Some(_) => Kind::Option,
        };
        is_value = kind == Kind::Option && awaits_value(&text, command);
        if wanted(kind) {
            found.push(at);
        }
    }
    found
}

/// Returns `true` if the argument behind an option is its value.
fn awaits_value(option: &str, command: &Command) -> bool {
    let takes = |named: &dyn Fn(&Arg) -> bool| {
        let mut all = command.get_arguments();
        all.any(|argument| argument.get_action().takes_values() && named(argument))
    };
    if let Some(name) = option.strip_prefix("--") {
        return takes(&|argument| {
            argument.get_long() == Some(name)
                || argument.get_all_aliases().is_some_and(|all| all.contains(&name))
        });
    }
    // The first letter that takes a value takes the letters behind it.
    let mut letters = option[1..].char_indices();
    let first = letters.find(|&(_, letter)| {
        takes(&|argument| {
            argument.get_short() == Some(letter)
                || argument.get_all_short_aliases().is_some_and(|all| all.contains(&letter))
        })
    });
    first.is_some_and(|(at, letter)| at + letter.len_utf8() == option.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(line: &str) -> String {
        let all = expand(line.split(' ').map(OsString::from));
        all.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn nvme_clis_names_stand_for_verbs() {
        for (line, expected) in [
            ("upcie smart-log emu --json", "upcie log emu smart-log --json"),
            ("upcie sanitize-log emu", "upcie log emu sanitize-log"),
            ("upcie id-ctrl emu", "upcie id emu id-ctrl"),
            ("upcie id-ns emu --namespace 1", "upcie id emu id-ns --namespace 1"),
            ("upcie list-ns --json emu", "upcie id --json emu list-ns"),
            ("upcie create-ns emu --blocks 8", "upcie ns create emu --blocks 8"),
            ("upcie device-self-test emu short", "upcie selftest emu short"),
            ("upcie resv-report emu --json", "upcie resv report emu --json"),
            ("upcie get-feature emu 7", "upcie feature emu get 7"),
            ("upcie set-feature emu 4 threshold=350", "upcie feature emu set 4 threshold=350"),
            ("upcie get-feature -f 4 emu -s 1", "upcie feature emu get 4 -s 1"),
            ("upcie set-feature emu --feature-id=4 -V 350 -s", "upcie feature emu set 4 -V 350 --save"),
            ("upcie device-self-test emu -n 1 -s1", "upcie selftest emu 1 -n 1"),
            ("upcie get-log emu -i 2 -l 512 -b", "upcie log emu 2 -l 512 --output-format=binary"),
            ("upcie fw-download emu -f image.bin", "upcie fw download emu image.bin"),
            ("upcie id-ctrl -o json emu -H", "upcie id -o json emu id-ctrl"),
            ("upcie admin-passthru emu -o 6 -r -l 64", "upcie admin emu -o 6 -l 64"),
            ("upcie resv-report emu -o json", "upcie resv report emu --output-format json"),
            ("upcie list -o json emu", "upcie list --output-format json emu"),
            ("upcie io-passthru emu -o 2 -l 512", "upcie io emu -o 2 -l 512"),
            ("upcie subsystem-reset emu", "upcie reset emu --subsystem"),
            ("upcie get-property emu --offset 0x14", "upcie property get emu --offset 0x14"),
            // The device behind the name.
            ("upcie log smart emu", "upcie log emu smart"),
            ("upcie log --raw - 0x02 emu --lsp 1", "upcie log --raw - emu 0x02 --lsp 1"),
            ("upcie id ctrl emu", "upcie id emu ctrl"),
            ("upcie id ns emu -n 1", "upcie id emu ns -n 1"),
            ("upcie feature get emu 4", "upcie feature emu get 4"),
            ("upcie feature get number-of-queues emu", "upcie feature emu get number-of-queues"),
            ("upcie feature set emu -f 4 threshold=350", "upcie feature emu set 4 threshold=350"),
            ("upcie help --help", "upcie help"),
            ("upcie help perf", "upcie help perf"),
            // Words of this program, and lines that are wrong in any case.
            ("upcie list", "upcie list"),
            ("upcie read emu", "upcie read emu"),
            ("upcie id emu ctrl", "upcie id emu ctrl"),
            ("upcie log emu 2", "upcie log emu 2"),
            ("upcie feature emu get 4", "upcie feature emu get 4"),
            ("upcie log wrong emu", "upcie log wrong emu"),
            ("upcie smart-log", "upcie log smart-log"),
            ("upcie", "upcie"),
        ] {
            assert_eq!(expanded(line), expected, "{line}");
        }
    }

    /// No name hides a verb, and each stands for one.
    #[test]
    fn aliases_are_no_verbs_and_stand_for_verbs() {
        let cli = crate::Cli::command();
        for (name, verb, _) in ALIASES {
            assert!(cli.find_subcommand(name).is_none(), "{name}");
            let mut command = cli.find_subcommand(verb[0]);
            for word in &verb[1..] {
                command = command.and_then(|command| command.find_subcommand(word));
            }
            assert!(command.is_some(), "{name}");
        }
        for command in cli.get_subcommands() {
            let name = command.get_name();
            assert!(!is_log(name) && !is_structure(name), "{name}");
        }
    }
}
