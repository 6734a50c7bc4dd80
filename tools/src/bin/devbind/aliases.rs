//! Options of dpdk-devbind, and of PyPI's program of the same name: each stands for a verb of this program.

use std::ffi::OsString;

/// Returns the arguments with another program's option for a verb replaced by the verb: dpdk-devbind's `--status`, `-b DRIVER` and
/// `-u`, and PyPI's `--list`, `--bind DRIVER --device BDF`, `--unbind` and `--print-completion`. `is_verb` tells the words of this
/// program, whose lines stay as they are.
pub fn expand(
    arguments: impl IntoIterator<Item = OsString>,
    is_verb: impl Fn(&str) -> bool,
) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.into_iter().collect();
    for at in 1..all.len() {
        let Some(word) = all[at].to_str().map(str::to_owned) else { continue };
        if is_verb(&word) {
            break;
        }
        let driver = word.strip_prefix("--bind=").or_else(|| word.strip_prefix("-b"));
        let verb = match (&*word, driver) {
            ("status", _) if at == 1 => "list",
            ("-s" | "--status" | "--list", _) => "list",
            ("--print-completion", _) => "completions",
            ("-u" | "--unbind", _) => "unbind",
            ("-b" | "--bind", _) if all.get(at + 1).is_some_and(|driver| driver == "none") => {
                all.remove(at + 1);
                "unbind"
            }
            ("-b" | "--bind", _) => "bind",
            (_, Some("none")) => "unbind",
            (_, Some(driver)) => {
                all.insert(at + 1, driver.into());
                "bind"
            }
            _ => continue,
        };
        all.remove(at);
        all.insert(1, verb.into());
        // The functions are words here.
        all.retain(|word| word != "--device");
        break;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_other_programs_stand_for_verbs() {
        for (line, expected) in [
            ("devbind --status", "devbind list"),
            ("devbind -s --json", "devbind list --json"),
            ("devbind status -v", "devbind list -v"),
            ("devbind -b vfio-pci 01:00.0", "devbind bind vfio-pci 01:00.0"),
            ("devbind --force --bind=nvme 01:00.0 02:00.0", "devbind bind --force nvme 01:00.0 02:00.0"),
            ("devbind -buio_pci_generic 01:00.0", "devbind bind uio_pci_generic 01:00.0"),
            ("devbind -u 01:00.0", "devbind unbind 01:00.0"),
            ("devbind -b none 01:00.0", "devbind unbind 01:00.0"),
            ("devbind --bind=none 01:00.0", "devbind unbind 01:00.0"),
            ("devbind --list", "devbind list"),
            ("devbind --bind vfio-pci --device 01:00.0", "devbind bind vfio-pci 01:00.0"),
            ("devbind --unbind --device 01:00.0", "devbind unbind 01:00.0"),
            ("devbind --print-completion bash", "devbind completions bash"),
            // Words of this program, and lines that are wrong in any case.
            ("devbind bind vfio-pci -u", "devbind bind vfio-pci -u"),
            ("devbind -n list", "devbind -n list"),
            ("devbind -b", "devbind bind"),
            ("devbind --help", "devbind --help"),
            ("devbind", "devbind"),
        ] {
            let words = line.split(' ').map(OsString::from);
            let all = expand(words, |word| matches!(word, "list" | "bind" | "unbind"));
            let all: Vec<_> = all.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(all.join(" "), expected, "{line}");
        }
    }
}
