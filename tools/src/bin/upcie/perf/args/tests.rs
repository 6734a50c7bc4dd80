use super::*;
use clap::FromArgMatches;

fn parse(text: &str) -> Result<PerfArgs, clap::Error> {
    let words = std::iter::once("perf").chain(text.split_whitespace());
    let matches = PerfArgs::augment_args(Command::new("perf")).try_get_matches_from(words)?;
    PerfArgs::from_arg_matches(&matches)
}

#[test]
fn conflicting_arguments_are_named() {
    for (text, part) in [
        ("emu --irq msix --wait poll", "--irq needs"),
        ("emu --spin 5us --wait irq", "--wait irq does not poll"),
        ("emu emu:null=true --verify", "emu:null=true moves none"),
        ("emu --rw read --mix 50", "--mix needs --rw randrw"),
        ("emu --rw trim --fua", "--fua needs reads or writes"),
        ("emu --rw write --random zipf:1.1", "--rw write takes the blocks in order"),
        ("emu --verify --block-size 4k:50,8k:50", "one --block-size"),
        ("emu --verify --random zipf:1.1", "--random uniform"),
        ("emu --verify --latency-breakdown", "can't be used with --verify"),
        ("emu --verify --rw trim", "any data after --rw trim"),
        ("emu --destructive", "--rw randread does not"),
        ("emu --plot x.png", "SVG"),
        ("emu --interval 1ms", "the shortest is 10ms"),
        ("emu vfio-user:/x emu vfio-user:/x", "vfio-user:/x is given twice"),
    ] {
        let conflict = parse(text).unwrap().conflict().unwrap_or_default();
        assert!(conflict.contains(part), "{text}: {conflict}");
    }
    for text in [
        "emu emu",
        "emu --irq msi",
        "emu --rw write --yes",
        "emu --verify --destructive",
        "emu --rw randrw --mix 3 --random zipf:1 --rate 5 --warmup 1",
        "emu --rw rw --mix 3 --fua",
    ] {
        assert_eq!(parse(text).unwrap().conflict(), None, "{text}");
    }
}

#[test]
fn invalid_values_are_usage_errors() {
    for text in [
        "",
        "emu --rate 0",
        "emu --cores 0 --threads 2",
        "emu --cpumask 0x1 --threads 2",
        "emu --cpumask 0x1 --cores 0",
        "emu --cpumask 0",
        "emu --length 0%",
        "emu --length 101%",
        "emu --threads 0",
        "emu --block-size 4k:50",
        "emu --random often",
        "emu --warmup 0",
        "emu --time 1 --count 1",
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn fio_s_option_names_are_aliases() {
    let fio = parse("emu --bs 512 --iodepth 7 --runtime 3").unwrap();
    let ours = parse("emu --block-size 512 --depth 7 --time 3").unwrap();
    assert_eq!(format!("{fio:?}"), format!("{ours:?}"));
    assert_eq!((fio.depth, fio.time), (Some(7), Some(Duration::from_secs(3))));
    for (theirs, ours) in [
        ("--rw rw --rwmixread 30", "--rw rw --mix 30"),
        ("--rw readwrite", "--rw rw"),
        ("--bssplit 4k/60:64k/40", "--block-size 4k:60,64k:40"),
        ("--qdepth 4 --iosize 512", "--depth 4 --block-size 512"),
        ("--size 50%", "--length 50%"),
        ("--force-unit-access", "--fua"),
    ] {
        let [theirs, ours] = [theirs, ours].map(|options| parse(&format!("emu {options}")).unwrap());
        assert_eq!(format!("{theirs:?}"), format!("{ours:?}"));
    }
}

#[test]
fn threads_are_pinned_if_cores_are_given() {
    assert_eq!(parse("emu --threads 2").unwrap().threads(), [None, None]);
    assert_eq!(parse("emu --cores 3,1").unwrap().threads(), [Some(3), Some(1)]);
    assert_eq!(parse("emu --cpumask 0x5").unwrap().threads(), [Some(0), Some(2)]);
}
