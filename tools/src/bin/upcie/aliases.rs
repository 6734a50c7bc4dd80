//! nvme-cli's names of verbs: each stands for a verb of this program.

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
    ("get-log", &["log"], &[]),
    ("get-feature", &["feature"], &["get"]),
    ("set-feature", &["feature"], &["set"]),
    ("get-ns-id", &["id"], &["list-ns"]),
];

/// Returns the arguments with nvme-cli's name of a verb replaced.
pub fn expand(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    // clap's `help` takes no option.
    let help = |word: Option<&OsString>| word.is_some_and(|word| word == "--help" || word == "-h");
    if all.get(1).is_some_and(|verb| verb == "help") && help(all.get(2)) {
        all.remove(2);
    }
    // Options in front of the verb are this program's own: leave such a line as it is.
    let Some(name) = all.get(1).and_then(|name| name.to_str()).map(str::to_owned) else { return all };
    let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    if let Some((_, verb, behind)) = ALIASES.iter().find(|alias| alias.0 == name) {
        all.splice(1..2, words(verb));
        if !behind.is_empty() {
            let device = after_device(&all, 1 + verb.len());
            all.splice(device..device, words(behind));
        }
        return all;
    }
    let verb = match () {
        () if crate::structures::is_log(&name) => "log",
        () if crate::structures::is_structure(&name) => "id",
        () => return all,
    };
    let device = after_device(&all, 2);
    all.splice(device..device, words(&[&name]));
    all[1] = verb.into();
    all
}

/// Returns the position behind the device: the first word from `from` on that is no option.
fn after_device(all: &[OsString], from: usize) -> usize {
    let is_word = |word: &OsString| !word.to_string_lossy().starts_with('-');
    let found = all.iter().skip(from).position(is_word);
    found.map_or(all.len(), |at| from + at + 1)
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
            ("upcie help --help", "upcie help"),
            ("upcie help perf", "upcie help perf"),
            // Words of this program, and lines that are wrong in any case.
            ("upcie list", "upcie list"),
            ("upcie read emu", "upcie read emu"),
            ("upcie id emu ctrl", "upcie id emu ctrl"),
            ("upcie smart-log", "upcie log smart-log"),
            ("upcie", "upcie"),
        ] {
            assert_eq!(expanded(line), expected, "{line}");
        }
    }

    /// No name hides a verb, and each stands for one.
    #[test]
    fn aliases_are_no_verbs_and_stand_for_verbs() {
        use clap::CommandFactory;
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
            assert!(!crate::structures::is_log(name) && !crate::structures::is_structure(name), "{name}");
        }
    }
}
