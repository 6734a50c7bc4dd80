//! Output of `upcie perf`: intervals, histogram logs and plots; `upcie plot`.

mod program;

use hdrhistogram::{
    Histogram,
    serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    },
};
use nix::pty::{Winsize, openpty};
use program::{Dir, complains, fails, measuring, number, perf, run_upcie as run, succeeds, upcie};
use std::{
    fs::{self, File},
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

/// Reads the histograms of a log with their tags; checks that the log starts after `least`.
fn histograms_since(path: &str, least: SystemTime) -> Vec<(Option<String>, Histogram<u64>)> {
    let text = fs::read(path).unwrap();
    let mut deserializer = Deserializer::new();
    let mut all = Vec::new();
    let mut times = 0;
    let least = least.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    for entry in IntervalLogIterator::new(&text) {
        match entry.unwrap() {
            LogEntry::Interval(interval) => {
                // Decodes as other readers of such logs do: base64, then the compressed V2 format.
                let encoded =
                    Command::new("base64").arg("-d").stdin(pipe(interval.encoded_histogram())).output();
                let latency = deserializer.deserialize(&mut encoded.unwrap().stdout.as_slice()).unwrap();
                all.push((interval.tag().map(|tag| tag.as_str().to_owned()), latency));
            }
            LogEntry::BaseTime(time) | LogEntry::StartTime(time) => {
                // The log has times in milliseconds.
                assert!(time.as_secs_f64() > least - 0.001, "{time:?} is not after {least}");
                times += 1;
            }
        }
    }
    assert_eq!(times, 2);
    all
}

fn histograms(path: &str) -> Vec<(Option<String>, Histogram<u64>)> {
    histograms_since(path, SystemTime::UNIX_EPOCH)
}

#[test]
fn a_histogram_log_starts_with_the_measurement() {
    let dir = Dir::made("hlogstart");
    let path = dir.path("run.hlog");
    let warm = SystemTime::now() + Duration::from_secs(1);
    perf(&format!("emu --warmup 1 --time 100ms --histogram {path}"));
    assert!(!histograms_since(&path, warm).is_empty());
}

/// Makes a file with `text`, for stdin.
fn pipe(text: &str) -> File {
    use std::{
        io::{Seek, Write},
        sync::atomic::{AtomicU32, Ordering},
    };
    // Tests run in parallel.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("upcie-tools-base64-{}-{number}", std::process::id()));
    let mut file =
        fs::OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    fs::remove_file(path).unwrap();
    file
}

#[test]
fn a_histogram_log_holds_every_io_of_every_interval() {
    let dir = Dir::made("hlog");
    let path = dir.path("run.hlog");
    let report = perf(&format!("emu emu --rw randrw --time 300ms --interval 100ms --histogram {path}"));
    let all = histograms(&path);
    let of = |tag: Option<&'static str>| all.iter().filter(move |(found, _)| found.as_deref() == tag);
    assert_eq!(of(None).count(), report["intervals"].as_array().unwrap().len());
    for (tag, field) in [(None, "/ios"), (Some("read"), "/read/ios"), (Some("write"), "/write/ios")] {
        let ios: u64 = of(tag).map(|(_, latency)| latency.len()).sum();
        assert_eq!(ios as f64, number(&report, field), "{field}");
    }
    let mut sum = of(None).next().unwrap().1.clone();
    for (_, latency) in of(None).skip(1) {
        sum.add(latency).unwrap();
    }
    for (quantile, field) in [(0.5, "p50"), (0.999, "p99_9"), (1.0, "max")] {
        let ns = number(&report, &format!("/latency_ns/{field}"));
        let logged = sum.value_at_quantile(quantile) as f64;
        assert!((logged / ns - 1.0).abs() < 0.002, "{field}: {logged}, not {ns}");
    }
}

#[test]
fn intervals_are_printed_as_lines() {
    let text = String::from_utf8(succeeds(run("perf emu --time 500ms --interval 100ms"))).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("p50 ") && line.contains("p99 ")).collect();
    // A thread that gets no core for a while makes fewer and longer intervals.
    assert!((2..=5).contains(&lines.len()), "{text}");
    assert!(lines[0].contains(" s ") && lines[0].contains("IOPS") && lines[0].contains("MiB/s"), "{text}");
}

#[test]
fn intervals_of_json_are_lines_on_stderr() {
    let output = run("perf emu --time 500ms --interval 100ms --json");
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&succeeds(output)).unwrap();
    let lines = error.lines().filter(|line| line.contains(" IOPS ") && line.contains("p99 ")).count();
    let intervals = report["intervals"].as_array().unwrap().len();
    // An empty interval behind the end is left out of the report.
    assert!(lines >= 1 && lines.abs_diff(intervals) <= 1, "{lines} of {intervals}: {error}");
    let output = run("perf emu --count 100 --json");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_text_has_the_fifth_nine() {
    let text = String::from_utf8(succeeds(run("perf emu --count 1000 --rw rw --fua"))).unwrap();
    let names = ["p99.99 ", "p99.999 ", "max "].map(|name| text.find(&format!("  {name}")).unwrap());
    assert!(names.is_sorted(), "{text}");
    assert!(text.contains("rw (70 % reads), 4 KiB, to the media (FUA) at depth 32"), "{text}");
}

#[test]
fn a_reader_that_leaves_ends_a_run_on_a_hung_device() {
    let (child, lines) = measuring("emu:latency=60s --time 60 --interval 10ms");
    let left = Instant::now();
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(left.elapsed() < Duration::from_secs(30), "{:?}", left.elapsed());
}

/// A full disk.
const FULL: &str = "/dev/full";

#[test]
fn a_failed_output_does_not_stop_the_others() {
    let dir = Dir::made("full");
    let svg = dir.path("run.svg");
    // A log that is larger than a buffer fails during the run.
    for load in ["--count 100", "--time 400ms --interval 10ms"] {
        let output = run(&format!("perf emu {load} --json --histogram {FULL} --plot {svg}"));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let error = complains(1, output);
        assert!(number(&report, "/ios") >= 100.0 && report["interrupted"] == false, "{report}");
        assert!(number(&report, "/elapsed_ns") >= 0.4e9 || load.contains("count"), "the run was complete");
        assert!(error.contains("writing /dev/full: No space left"), "{error}");
        check_svg(&svg, &["Latency by percentile"]);
        fs::remove_file(&svg).unwrap();
    }
    for load in ["--count 100", "--count 100 --json", "--time 60 --interval 10ms"] {
        let full = File::options().write(true).open(FULL).unwrap();
        let hlog = dir.path("run.hlog");
        let arguments = format!("perf emu {load} --histogram {hlog} --plot {svg}");
        let error = complains(1, upcie(&arguments).stdout(full).output().unwrap());
        assert!(error.contains("writing to stdout: No space left"), "{error}");
        // Without --json the device is printed first; if that fails, the run does not start.
        if load.contains("json") {
            check_svg(&svg, &["Latency by percentile"]);
            assert!(!histograms(&hlog).is_empty());
        }
    }
    let output = run(&format!("perf emu --count 100 --histogram {FULL} --plot {FULL}/x"));
    assert!(complains(1, output).contains("/dev/full/x"));
}

#[test]
fn files_are_written_though_the_reader_leaves() {
    let dir = Dir::made("leaves");
    let svg = dir.path("run.svg");
    let (child, lines) = measuring(&format!("emu --time 60 --interval 10ms --plot {svg}"));
    drop(lines);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    check_svg(&svg, &["IOPS over time"]);
}

#[test]
fn a_run_that_does_not_begin_leaves_files_as_they_are() {
    let dir = Dir::made("kept");
    let (svg, hlog) = (dir.path("run.svg"), dir.path("run.hlog"));
    for path in [&svg, &hlog] {
        fs::write(path, "of an hour").unwrap();
    }
    fails(1, run(&format!("perf vfio-user:/absent --plot {svg} --histogram {hlog}")));
    for path in [&svg, &hlog] {
        assert_eq!(fs::read_to_string(path).unwrap(), "of an hour");
    }
}

/// Checks that an SVG image is well formed and contains the parts.
#[track_caller]
fn check_svg(path: &str, parts: &[&str]) {
    let svg = fs::read_to_string(path).unwrap();
    well_formed(&svg);
    for part in parts {
        assert!(svg.contains(part), "{part} in {svg}");
    }
}

/// Checks that every element is closed in order, and that every `&` and `<` is escaped.
#[track_caller]
fn well_formed(svg: &str) {
    let mut open = Vec::new();
    let mut rest = svg;
    while let Some((text, tag)) = rest.split_once('<') {
        let references = text.split('&').skip(1);
        assert!(
            references.clone().all(|name| name.split(';').next().is_some_and(|name| name.len() < 6)),
            "{text}"
        );
        let (tag, after) = tag.split_once('>').expect("a tag ends");
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
        } else if !tag.ends_with('/') && !tag.starts_with(['?', '!']) {
            open.push(tag.split_whitespace().next().unwrap().to_owned());
        }
    }
    assert!(open.is_empty() && svg.contains("<svg"), "{open:?}");
}

#[test]
fn a_run_is_drawn_with_its_series() {
    let dir = Dir::made("draw");
    let svg = dir.path("a<&>b.svg");
    for (arguments, parts) in [
        ("emu --count 5000", &["Latency by percentile", "IOPS over time", "p99 over time", "99.9"][..]),
        ("emu --rw randrw --time 200ms", &["reads", "writes", "randrw (70 % reads)"]),
        ("emu emu:serial=A&lt;B --count 2000", &["1: emu", "2: emu:serial=A&amp;lt;B"]),
        ("emu --count 1", &["Latency by percentile"]),
    ] {
        perf(&format!("{arguments} --plot {svg}"));
        check_svg(&svg, parts);
    }
    let output = run(&format!("perf emu:latency=60s --timeout 200ms --count 1 --plot {svg}"));
    assert_eq!(output.status.code(), Some(1));
    check_svg(&svg, &["No I/O succeeded"]);
}

#[test]
fn results_are_compared_in_one_image() {
    let dir = Dir::made("compare");
    let long = format!("{}.json", "a-very-long-name-of-a-file-that-holds-results".repeat(4));
    let files = [dir.path("qd1.json"), dir.path("qd32.json"), dir.path(&long), dir.path("none.json")];
    for (arguments, path) in ["--depth 1", "--depth 32", "--rw randrw"].iter().zip(&files) {
        fs::write(path, succeeds(run(&format!("perf emu --count 3000 {arguments} --json")))).unwrap();
    }
    let output = run("perf emu:latency=60s --timeout 200ms --count 1 --json");
    fs::write(&files[3], output.stdout).unwrap();
    let svg = dir.path("out.svg");
    succeeds(run(&format!("plot {} --out {svg}", files.join(" "))));
    check_svg(
        &svg,
        &[
            "4 runs",
            "qd1",
            "qd32",
            "a-very-long-name",
            "p99 latency",
            "Latency by percentile",
            "no I/O succeeded",
        ],
    );
    succeeds(run(&format!("plot {} --out {svg}", files[1])));
    check_svg(&svg, &["IOPS over time"]);
    succeeds(run(&format!("plot {} {} --out {svg}", files[3], files[3])));
    check_svg(&svg, &["No I/O succeeded in any", "none.json"]);
}

#[test]
fn invalid_results_are_refused_with_the_file_name() {
    let dir = Dir::made("refuse");
    let good = dir.path("good.json");
    let report = succeeds(run("perf emu --count 100 --json"));
    fs::write(&good, &report).unwrap();
    let text = String::from_utf8(report).unwrap();
    let svg = dir.path("out.svg");
    for (name, content, part) in [
        ("empty", String::new(), "not JSON"),
        ("text", "IOPS 5".into(), "not JSON"),
        ("half", text[..text.len() / 2].into(), "not JSON"),
        ("other", "{\"iops\": 5}".into(), "no schema"),
        ("older", text.replace("\"schema\":2", "\"schema\":1"), "schema 1, this program reads 2"),
        ("fields", text.replace("\"iops\"", "\"speed\""), "iops"),
        (
            "backwards",
            text.replace("\"start_ns\":0", "\"start_ns\":999999999999999"),
            "ends before it starts",
        ),
        (
            "rates",
            text.replace("\"errors\":0,\"iops\":", "\"errors\":0,\"iops\":1.7e308,\"was\":"),
            "impossible number of IOPS",
        ),
    ] {
        let bad = dir.path(name);
        fs::write(&bad, content).unwrap();
        let error = fails(1, run(&format!("plot {good} {bad} --out {svg}")));
        assert!(error.contains(&bad) && error.contains(part), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(!fs::exists(&svg).unwrap(), "no image of the other files");
    }
    assert!(fails(1, run(&format!("plot {} --out {svg}", dir.path("absent")))).contains("absent"));
    assert!(fails(1, run(&format!("plot {good} --out /absent/x.svg"))).contains("/absent/x.svg"));
    assert!(
        fails(1, run(&format!("plot {} --out {svg}", vec![good.as_str(); 17].join(" "))))
            .contains("at most 16")
    );
    assert!(fails(1, run(&format!("plot {good} --out {good}"))).contains("the image is SVG"));
    assert_eq!(fs::read_to_string(good).unwrap(), text);
}

/// Splits the text of a terminal at control sequences and line ends.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            // A control sequence ends with a letter.
            '\x1b' => {
                letters.by_ref().skip(1).find(char::is_ascii_alphabetic);
            }
            '\r' | '\n' => pieces.push(String::new()),
            letter => pieces.last_mut().unwrap().push(letter),
        }
    }
    pieces
}

#[test]
fn the_progress_line_fits_a_narrow_terminal() {
    for columns in [20, 40] {
        let size = Winsize { ws_row: 10, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let mut command = upcie("perf emu --time 700ms --depth 1");
        command.env("TERM", "xterm").stdout(Stdio::null()).stderr(pty.slave);
        let mut child = command.spawn().unwrap();
        // `command` holds a copy of the terminal's slave; the read below ends when the program has the last
        // one.
        drop(command);
        let mut shown = Vec::new();
        // The read fails with EIO once the slave is closed.
        let _ = File::from(pty.master).read_to_end(&mut shown);
        assert!(child.wait().unwrap().success());
        let pieces = pieces(std::str::from_utf8(&shown).unwrap());
        let widest = pieces.iter().map(|piece| piece.chars().count()).max().unwrap();
        assert!(widest <= usize::from(columns), "{columns}: {pieces:?}");
        assert!(pieces.iter().any(|piece| piece.contains(" %  ")), "{columns}: {pieces:?}");
    }
}
