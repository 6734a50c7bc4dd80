//! `devbind` in the guest: functions change drivers and keep their data, functions in use are refused, and a
//! failed binding is undone.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::{
        fs::{FileExt, MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};
use upcie_core::{
    device::Address,
    pci::{Bdf, Binder, Binding, Function},
    vfio::VfioDevice,
};
use upcie_tests::{deadline, process::programs};

/// Controller B, which no other program in the guest uses.
const BDF: &str = "0000:02:00.0";
const OTHER: &str = "0000:01:00.0";
const STATE: &str = "/run/upcie/devbind";
const LEN: usize = 3 << 20;

fn function(bdf: &str) -> Function {
    Function::at(bdf.parse::<Bdf>().unwrap()).unwrap()
}

fn driver() -> Option<String> {
    function(BDF).driver
}

/// Binds both functions to vfio-pci when a test begins and when it ends.
struct Guard;

impl Guard {
    fn new() -> Self {
        assert!(upcie_tests::in_guest(), "guest_ suites run in the guest only");
        for bdf in [BDF, OTHER] {
            assert_eq!(function(bdf).driver.as_deref(), Some("vfio-pci"), "{bdf}");
        }
        assert!(!Path::new(STATE).join(format!("{BDF}.json")).exists(), "a record of another test");
        Self
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let to = Binding { driver: Some("vfio-pci".into()), driver_override: Some("vfio-pci".into()) };
        for bdf in [BDF, OTHER] {
            if let Err(error) = Binder::new().force(true).restore(&function(bdf), &to) {
                eprintln!("{bdf} can't be put back: {error}");
            }
        }
        let _ = fs::remove_dir_all(STATE);
    }
}

fn run(arguments: &str) -> Output {
    let words = arguments.split_whitespace();
    let output = Command::new(programs().join("devbind")).args(words).output().unwrap();
    println!("devbind {arguments}: {}", output.status);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

#[track_caller]
fn devbind(arguments: &str) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "devbind {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Checks that devbind refuses; returns its message.
#[track_caller]
fn refused(arguments: &str) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(1), "devbind {arguments}");
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {:?}", deadline());
        sleep(Duration::from_millis(5));
    }
}

/// Waits for the node of the kernel's disk for namespace 1 of controller B.
fn disk() -> PathBuf {
    let is_it = |path: &Path| {
        let has = |file: &str, value: &str| {
            fs::read_to_string(path.join(file)).is_ok_and(|text| text.trim() == value)
        };
        // With multipath, the kernel hides the disk of a single path.
        has("nsid", "1") && has("device/serial", "LABB") && !has("hidden", "1")
    };
    wait_for("the kernel's disk", || {
        let mut disks = fs::read_dir("/sys/class/block").unwrap().map(|entry| entry.unwrap().path());
        let node = Path::new("/dev").join(disks.find(|path| is_it(path))?.file_name()?);
        (driver().as_deref() == Some("nvme") && node.exists()).then_some(node)
    })
}

fn data(seed: u64) -> Vec<u8> {
    (0..LEN as u64).map(|i| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn kernel_writes(data: &[u8]) {
    let file = OpenOptions::new().write(true).open(disk()).unwrap();
    file.write_all_at(data, 1 << 20).unwrap();
    file.sync_all().unwrap();
}

/// Reads through the kernel's driver. Each binding makes a new disk, so nothing is cached.
fn kernel_reads() -> Vec<u8> {
    let mut data = vec![0; LEN];
    File::open(disk()).unwrap().read_exact_at(&mut data, 1 << 20).unwrap();
    data
}

/// Reads or writes the same bytes with `upcie read` or `upcie write`.
fn upcie(what: &str, file: &Path) {
    let range = ["--namespace", "1", "--offset", "1M", "--length", "3M"];
    let consent = if what == "write" { &["--destructive"][..] } else { &[] };
    let mut command = Command::new(programs().join("upcie"));
    let output = command.args([what, BDF]).arg(file).args(range).args(consent).output().unwrap();
    assert!(output.status.success(), "upcie {what}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_kernel_reads_the_same_data_after_a_round_trip() {
    let _guard = Guard::new();
    has(&devbind(&format!("bind nvme {BDF}")), &[&format!("{BDF}: vfio-pci -> nvme")]);
    let written = data(1);
    kernel_writes(&written);
    for driver in ["vfio-pci", "uio_pci_generic"] {
        devbind(&format!("bind {driver} 02:00.0"));
        assert_eq!(self::driver().as_deref(), Some(driver));
        assert_eq!(function(BDF).driver_override().unwrap().as_deref(), Some(driver));
    }
    assert!(Path::new("/dev/uio0").exists());
    devbind(&format!("bind nvme {BDF}"));
    assert!(kernel_reads() == written, "the data is another one");
    // `restore` returns to the first state, after four bindings.
    has(&devbind("restore"), &[&format!("{BDF}: nvme -> vfio-pci")]);
    assert_eq!(driver().as_deref(), Some("vfio-pci"));
    assert_eq!(function(BDF).driver_override().unwrap().as_deref(), Some("vfio-pci"));
    has(&devbind("restore"), &["nothing to restore"]);
}

#[test]
fn the_kernel_and_upcie_read_each_others_data() {
    let _guard = Guard::new();
    let file = Path::new("/tmp/devbind-data");
    let ours = data(2);
    fs::write(file, &ours).unwrap();
    upcie("write", file);
    devbind(&format!("bind nvme {BDF}"));
    assert!(kernel_reads() == ours, "the kernel reads what we did not write");
    let kernels = data(3);
    kernel_writes(&kernels);
    devbind(&format!("bind vfio-pci {BDF}"));
    upcie("read", Path::new("/tmp/devbind-read"));
    assert!(fs::read("/tmp/devbind-read").unwrap() == kernels, "we read what the kernel did not write");
    for file in [file, Path::new("/tmp/devbind-read")] {
        fs::remove_file(file).unwrap();
    }
}

#[test]
fn verbose_prints_each_write_and_a_dry_run_makes_none() {
    let _guard = Guard::new();
    let path = format!("/sys/bus/pci/devices/{BDF}");
    let writes = [
        format!("{path}/driver_override <- nvme"),
        format!("{path}/driver/unbind <- {BDF}"),
        format!("/sys/bus/pci/drivers_probe <- {BDF}"),
    ];
    let in_order = |text: &str| {
        let lines: Vec<_> = text.lines().filter(|line| line.contains(" <- ")).collect();
        assert_eq!(lines, writes);
    };
    let text = devbind(&format!("bind nvme {BDF} --dry-run"));
    in_order(&text);
    has(&text, &["vfio-pci -> nvme", "nothing was changed"]);
    assert_eq!(driver().as_deref(), Some("vfio-pci"));
    assert!(!Path::new(STATE).join(format!("{BDF}.json")).exists());
    in_order(&devbind(&format!("-v bind nvme {BDF}")));
    assert_eq!(driver().as_deref(), Some("nvme"));
    assert!(devbind("restore -n").contains(" <- vfio-pci"));
    assert_eq!(driver().as_deref(), Some("nvme"));
    devbind("restore");
}

#[test]
fn restore_recovers_no_driver_and_no_override() {
    let _guard = Guard::new();
    let function = function(BDF);
    Binder::new().unbind(&function).unwrap();
    Binder::new().set_driver_override(&function, None).unwrap();
    let before = function.binding().unwrap();
    assert_eq!(before, Binding::default());
    devbind(&format!("bind vfio-pci {BDF} {OTHER}"));
    devbind(&format!("unbind {BDF} {OTHER}"));
    devbind(&format!("bind uio_pci_generic {BDF}"));
    // One function by name, then all others.
    has(&devbind(&format!("restore {OTHER}")), &["no driver -> vfio-pci"]);
    has(&refused(&format!("restore {OTHER}")), &["no record"]);
    has(&devbind("restore"), &["uio_pci_generic -> no driver"]);
    assert_eq!(function.binding().unwrap(), before);
}

#[test]
fn a_failed_bind_leaves_the_former_driver_and_override() {
    let _guard = Guard::new();
    devbind(&format!("bind nvme {BDF}"));
    let before = function(BDF).binding().unwrap();
    // pcieport is for bridges: its probe rejects a controller.
    let text = refused(&format!("bind pcieport {BDF}"));
    has(&text, &[BDF, "pcieport", "does not accept it", "bound to nvme, as before", "os error 19"]);
    assert_eq!(function(BDF).binding().unwrap(), before);
    has(&refused(&format!("bind no-such-driver {BDF}")), &["no PCI driver no-such-driver"]);
    assert_eq!(function(BDF).binding().unwrap(), before);
    let text = refused(&format!("bind pcieport {BDF} {OTHER}"));
    has(&text, &[&format!("{BDF}: binding it"), &format!("{OTHER}: binding it")]);
    assert_eq!(function(OTHER).driver.as_deref(), Some("vfio-pci"));
    assert!(!Path::new(STATE).join(format!("{OTHER}.json")).exists(), "nothing to put back");
}

#[test]
fn swap_keeps_a_function_from_being_taken() {
    struct Swap(PathBuf);
    impl Drop for Swap {
        fn drop(&mut self) {
            let _ = Command::new("swapoff").arg(&self.0).status();
        }
    }
    let _guard = Guard::new();
    devbind(&format!("bind nvme {BDF}"));
    let disk = disk();
    for program in ["mkswap", "swapon"] {
        let output = Command::new(program).arg(&disk).output().unwrap();
        assert!(output.status.success(), "{program}: {output:?}");
    }
    let swap = Swap(disk.clone());
    let name = disk.file_name().unwrap().to_str().unwrap();
    has(&devbind("list"), &[&format!("{name} is swap"), "QEMU NVMe Ctrl", "512 MiB"]);
    // The error does not advise to bind the function: that would take the swap away.
    for address in [BDF.to_owned(), format!("sysfs:{BDF}"), format!("noiommu:{BDF}")] {
        let output = Command::new(programs().join("upcie")).args(["info", &address]).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        has(&error, &[&address, "class 0108", "bound to nvme", &format!("{name} is swap")]);
        assert!(!error.contains("devbind"), "{error}");
    }
    let list = Command::new(programs().join("upcie")).arg("list").output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    has(&list, &["transports: none while it is in use", &format!("{name} is swap")]);
    let text = refused(&format!("bind vfio-pci {OTHER} {BDF}"));
    has(&text, &[&format!("{BDF} is in use: {name} is swap"), "--force"]);
    // The file system is unmounted in this mount namespace; the kernel still knows it from another one.
    let mount = |program: &str, words: &[&str]| {
        assert!(Command::new(program).args(words).status().unwrap().success(), "{program} {words:?}");
    };
    mount("mount", &["-o", "bind", "/dev/null", "/proc/swaps"]);
    let output = run(&format!("bind vfio-pci {BDF}"));
    mount("umount", &["/proc/swaps"]);
    has(&String::from_utf8_lossy(&output.stderr), &[&format!("{name} is claimed in the kernel"), "--force"]);
    assert_eq!(driver().as_deref(), Some("nvme"));
    drop(swap);
    let text = devbind("list --json");
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entry = &list.as_array().unwrap()[1];
    assert_eq!((&entry["address"], &entry["in_use"]), (&BDF.into(), &serde_json::json!([])));
    assert_eq!(entry["before"]["driver"], "vfio-pci");
    // The disk's name stands for the function.
    let text = devbind(&format!("bind vfio-pci {} --dry-run", disk.display()));
    has(&text, &[&format!("{name} is {BDF}"), "nothing was changed"]);
    let by_kernel = listed("");
    devbind(&format!("bind vfio-pci {BDF}"));
    assert!(listed("")["controller"].is_null(), "vfio-pci tells nothing, and nothing is opened");
    let by_itself = listed("--open");
    for key in ["model", "serial", "firmware"] {
        assert_eq!(by_kernel["controller"][key], by_itself["controller"][key], "{key}");
    }
    for listed in [by_kernel, by_itself] {
        assert!(listed["controller"]["size_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{listed}");
    }
}

/// Returns the entry of controller B in `upcie list`.
fn listed(options: &str) -> serde_json::Value {
    let words = ["list", "--json", BDF].into_iter().chain(options.split_whitespace());
    let output = Command::new(programs().join("upcie")).args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    list[0].clone()
}

#[test]
fn an_open_disk_keeps_a_function_from_being_taken() {
    let _guard = Guard::new();
    devbind(&format!("bind nvme {BDF}"));
    let disk = File::open(disk()).unwrap();
    let text = refused(&format!("unbind {BDF}"));
    has(&text, &[BDF, "is in use", &format!("open by process {}", std::process::id()), "--force"]);
    assert_eq!(driver().as_deref(), Some("nvme"));
    drop(disk);
    devbind(&format!("unbind {BDF}"));
    assert_eq!(driver(), None);
}

#[test]
fn an_open_device_is_refused_or_forced_in_time() {
    let _guard = Guard::new();
    let device = VfioDevice::open(&Address::Pci(BDF.parse().unwrap())).unwrap();
    let me = format!("process {}", std::process::id());
    for command in [format!("unbind {BDF}"), format!("bind nvme {BDF}")] {
        has(&refused(&command), &[&format!("{BDF} is in use"), &me, "--force"]);
    }
    let error = Binder::new().bind(&function(BDF), "nvme").unwrap_err().to_string();
    has(&error, &["this process has it open"]);
    has(&devbind("list"), &["open by process"]);
    assert_eq!(driver().as_deref(), Some("vfio-pci"));
    // The kernel waits for the holder; devbind does not.
    let start = Instant::now();
    let text = refused(&format!("unbind {BDF} --force --timeout 2"));
    assert!(start.elapsed() < Duration::from_secs(25), "{:?}", start.elapsed());
    has(&text, &["has not finished", &me, "no answer within 2s"]);
    // From the start of an unbinding on, sysfs shows no driver. The end is waited for, so that lists still
    // work.
    assert_eq!(driver(), None);
    devbind("list -v");
    drop(device);
    has(&devbind("restore"), &["no driver -> vfio-pci"]);
}

#[test]
fn an_owner_opens_a_function_without_root() {
    let _guard = Guard::new();
    devbind(&format!("unbind {BDF}"));
    let text = devbind(&format!("bind vfio-pci {BDF} --owner user"));
    has(&text, &["user - memlock unlimited", "type1", "iommufd"]);
    let nodes = function(BDF).nodes();
    assert_eq!(nodes.len(), 2, "group and device: {nodes:?}");
    let all = nodes.iter().map(PathBuf::as_path).chain([Path::new("/dev/iommu")]);
    for node in all.clone() {
        let meta = fs::metadata(node).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1000, 1000), "{}", node.display());
    }
    assert_eq!(fs::metadata("/dev/vfio/vfio").unwrap().uid(), 0, "everybody may open it");
    let info =
        Command::new(programs().join("upcie")).args(["info", BDF]).uid(1000).gid(1000).output().unwrap();
    let error = String::from_utf8_lossy(&info.stderr).into_owned();
    // The user can't write the configuration, either.
    let mut user = Command::new(programs().join("devbind"));
    let unbind = user.args(["unbind", BDF]).uid(1000).gid(1000).output().unwrap();
    for node in all {
        chown(node, Some(0), Some(0)).unwrap();
    }
    assert!(info.status.success(), "{error}");
    assert_eq!(unbind.status.code(), Some(1));
    has(&String::from_utf8_lossy(&unbind.stderr), &["as root"]);
}

#[test]
fn with_an_iommu_nothing_is_made_unsafe() {
    let _guard = Guard::new();
    let parameter = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    let mut before = String::new();
    File::open(parameter).unwrap().read_to_string(&mut before).unwrap();
    assert_eq!(before, "N\n");
    devbind(&format!("bind nvme {BDF}"));
    devbind(&format!("bind vfio-pci {BDF} --unsafe-noiommu"));
    assert_eq!(fs::read_to_string(parameter).unwrap(), before);
    assert!(!function(BDF).iommu_group.unwrap().is_noiommu);
}
