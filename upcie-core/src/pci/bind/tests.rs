use super::*;
use crate::testing::FakeSysfs;
use std::{cell::RefCell, fs, os::unix::fs::symlink};

const BDF: &str = "0000:01:00.0";

/// A fake kernel that executes the writes: drivers accept the function or not.
struct FakeKernel {
    sysfs: FakeSysfs,
    /// Drivers whose probe fails, with the error number.
    rejects: RefCell<Vec<(&'static str, i32)>>,
    /// The driver whose unbinding has no effect, or does not end.
    keeps: Option<(&'static str, io::ErrorKind)>,
    writes: RefCell<Vec<String>>,
}

impl FakeKernel {
    fn new(name: &str, driver: Option<&str>, group: Option<u32>) -> Self {
        let sysfs = FakeSysfs::new(name);
        let path = sysfs.add(BDF, "0x010802\n", driver, group);
        fs::write(path.join("driver_override"), "(null)\n").unwrap();
        for driver in ["nvme", "vfio-pci", "uio_pci_generic", "pcieport"] {
            fs::create_dir_all(sysfs.0.join("bus/pci/drivers").join(driver)).unwrap();
        }
        Self { sysfs, rejects: RefCell::default(), keeps: None, writes: RefCell::default() }
    }

    fn function(&self) -> Function {
        self.sysfs.function(BDF).unwrap()
    }

    fn binding(&self) -> (Option<String>, Option<String>) {
        let binding = self.function().binding().unwrap();
        (binding.driver, binding.driver_override)
    }

    fn binder(&self) -> Binder<'_> {
        let mut binder = Binder::new().observer(|path, value| {
            let path = path.strip_prefix(self.sysfs.0.join("bus/pci")).unwrap().display();
            self.writes.borrow_mut().push(format!("{path} <- {value}"));
        });
        binder.kernel = Box::new(|path, value, _| self.write(path, value));
        binder
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        let function = self.function();
        let link = function.path.join("driver");
        match path.file_name().unwrap().to_str().unwrap() {
            "driver_override" => fs::write(path, if value == "\n" { "(null)" } else { value }),
            "unbind" => {
                assert_eq!(value, BDF);
                match self.keeps {
                    Some((driver, kind)) if function.driver.as_deref() == Some(driver) => {
                        if kind == io::ErrorKind::Other { Ok(()) } else { Err(kind.into()) }
                    }
                    _ => fs::remove_file(link),
                }
            }
            last @ ("drivers_probe" | "bind") => {
                assert_eq!(value, BDF);
                let driver = function.driver_override().unwrap().unwrap_or("nvme".into());
                let rejected = self.rejects.borrow().iter().find(|(name, _)| *name == driver).copied();
                match rejected {
                    Some((_, errno)) if last == "bind" => Err(io::Error::from_raw_os_error(errno)),
                    Some(_) => Ok(()),
                    None if function.driver.is_none() => {
                        symlink(format!("../../../bus/pci/drivers/{driver}"), link)
                    }
                    None => Ok(()),
                }
            }
            other => panic!("a write to {other}"),
        }
    }
}

fn text(error: &Error) -> String {
    let source = std::error::Error::source(error).map_or(String::new(), |source| format!(": {source}"));
    format!("{error}{source}")
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn binding_and_restoring_round_trip() {
    let kernel = FakeKernel::new("bind-round", Some("nvme"), Some(3));
    let (function, mut binder) = (kernel.function(), kernel.binder());
    let before = function.binding().unwrap();
    binder.bind(&function, "vfio-pci").unwrap();
    assert_eq!(kernel.binding(), (Some("vfio-pci".into()), Some("vfio-pci".into())));
    let path = format!("devices/{BDF}");
    assert_eq!(
        *kernel.writes.borrow(),
        [
            format!("{path}/driver_override <- vfio-pci"),
            format!("{path}/driver/unbind <- {BDF}"),
            format!("drivers_probe <- {BDF}")
        ]
    );
    binder.bind(&function, "uio_pci_generic").unwrap();
    binder.unbind(&function).unwrap();
    assert_eq!(kernel.binding(), (None, Some("uio_pci_generic".into())));
    binder.unbind(&function).unwrap();
    binder.restore(&function, &before).unwrap();
    assert_eq!(kernel.binding(), (Some("nvme".into()), None));
    kernel.writes.borrow_mut().clear();
    binder.restore(&function, &before).unwrap();
    binder.bind(&function, "nvme").unwrap();
    assert!(kernel.writes.borrow().is_empty(), "no write without a change");
}

#[test]
fn a_function_without_a_driver_is_restored_so() {
    let kernel = FakeKernel::new("bind-none", None, Some(3));
    let (function, mut binder) = (kernel.function(), kernel.binder());
    let before = function.binding().unwrap();
    assert_eq!(before, Binding::default());
    binder.bind(&function, "vfio-pci").unwrap();
    binder.restore(&function, &before).unwrap();
    assert_eq!(kernel.binding(), (None, None));
}

#[test]
fn a_dry_run_reports_writes_without_making_them() {
    let kernel = FakeKernel::new("bind-dry", Some("nvme"), None);
    let function = kernel.function();
    kernel.binder().dry_run(true).bind(&function, "vfio-pci").unwrap();
    assert_eq!(kernel.writes.borrow().len(), 3);
    assert_eq!(kernel.binding(), (Some("nvme".into()), None));
    let to = Binding { driver: None, driver_override: None };
    kernel.binder().dry_run(true).restore(&function, &to).unwrap();
    assert_eq!(kernel.binding(), (Some("nvme".into()), None));
}

#[test]
fn a_failed_binding_restores_driver_and_override() {
    for (former, driver_override) in [(Some("nvme"), None), (Some("nvme"), Some("nvme")), (None, Some("x"))] {
        let kernel = FakeKernel::new("bind-reject", former, Some(3));
        let function = kernel.function();
        kernel.rejects.borrow_mut().push(("pcieport", libc::ENODEV));
        fs::write(function.path.join("driver_override"), driver_override.unwrap_or("(null)")).unwrap();
        let error = kernel.binder().bind(&function, "pcieport").unwrap_err();
        let state = former.map_or("no driver is bound".into(), |driver| format!("bound to {driver}"));
        has(&text(&error), &[BDF, "pcieport", "does not accept it", "as before", &state, "os error 19"]);
        assert_eq!(kernel.binding(), (former.map(str::to_owned), driver_override.map(str::to_owned)));
    }
}

#[test]
fn a_failed_restoration_is_reported() {
    let kernel = FakeKernel::new("bind-lost", Some("nvme"), Some(3));
    kernel.rejects.borrow_mut().extend([("vfio-pci", libc::EINVAL), ("nvme", libc::EIO)]);
    let error = kernel.binder().bind(&kernel.function(), "vfio-pci").unwrap_err();
    has(&text(&error), &["no driver is bound to it now", "nvme could not be restored", "os error 22"]);
}

#[test]
fn an_unbinding_without_effect_is_an_error() {
    let mut kernel = FakeKernel::new("bind-keeps", Some("vfio-pci"), Some(3));
    kernel.keeps = Some(("vfio-pci", io::ErrorKind::Other));
    let error = kernel.binder().unbind(&kernel.function()).unwrap_err();
    has(&text(&error), &["did not unbind it from vfio-pci"]);
    kernel.keeps = Some(("vfio-pci", io::ErrorKind::TimedOut));
    let error = kernel.binder().bind(&kernel.function(), "nvme").unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { .. }), "{error}");
    has(&text(&error), &["driver/unbind", "closes the device", "former driver_override"]);
    assert_eq!(kernel.binding(), (Some("vfio-pci".into()), None));
    kernel.keeps = Some(("vfio-pci", io::ErrorKind::PermissionDenied));
    let error = kernel.binder().unbind(&kernel.function()).unwrap_err();
    has(&text(&error), &["as root"]);
}

#[test]
fn impossible_bindings_are_refused_before_any_change() {
    let kernel = FakeKernel::new("bind-refused", Some("nvme"), None);
    let function = kernel.function();
    let refusal = |driver: &str| text(&kernel.binder().bind(&function, driver).unwrap_err());
    has(&refusal("vfio-pci"), &["no IOMMU", "intel_iommu=on", "--unsafe-noiommu", "uio_pci_generic"]);
    has(&refusal("e1000"), &["no PCI driver e1000", "modprobe e1000"]);
    // The kernel's modules have underscores where some drivers have hyphens.
    has(&refusal("vfio_pci"), &["did you mean vfio-pci?"]);
    has(&refusal("uio-pci-generic"), &["did you mean uio_pci_generic?"]);
    for name in ["", "../nvme", "-x", "a b", "nvme\n", "."] {
        has(&refusal(name), &["a name like vfio-pci"]);
    }
    assert!(kernel.writes.borrow().is_empty());
    let parameters = kernel.sysfs.0.join("module/vfio/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("enable_unsafe_noiommu_mode"), "N\n").unwrap();
    refusal("vfio-pci");
    fs::write(parameters.join("enable_unsafe_noiommu_mode"), "Y\n").unwrap();
    kernel.binder().bind(&function, "vfio-pci").unwrap();
    fs::remove_dir_all(&function.path).unwrap();
    let error = kernel.binder().bind(&function, "nvme").unwrap_err();
    assert!(matches!(error.failure(), Failure::NotFound { .. }), "{error}");
}

#[test]
fn users_of_configuration_space_are_found() {
    let kernel = FakeKernel::new("bind-users", None, None);
    let function = kernel.function();
    let config = function.path.join("config");
    fs::write(&config, "").unwrap();
    let own = fs::File::open(&config).unwrap();
    assert_eq!(function.users(), [0; 0]);
    // This process may have the configuration space open while it binds; a child that has it open is a user.
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .stdin(fs::File::open(&config).unwrap())
        .spawn()
        .unwrap();
    let refused = kernel.binder().bind(&function, "nvme").unwrap_err();
    let users = function.users();
    let forced = kernel.binder().force(true).bind(&function, "nvme");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(users, [child.id()]);
    has(&text(&refused), &["in use by process", &child.id().to_string()]);
    forced.unwrap();
    drop(own);
}

#[test]
fn virtual_functions_are_made_and_removed() {
    let sysfs = FakeSysfs::new("bind-virtual");
    let path = sysfs.add(BDF, "0x010802\n", Some("vfio-pci"), Some(3));
    let enable = sysfs.0.join("module/vfio_pci/parameters/enable_sriov");
    fs::create_dir_all(enable.parent().unwrap()).unwrap();
    fs::write(&enable, "N\n").unwrap();
    let function = sysfs.function(BDF).unwrap();
    let writes = RefCell::new(Vec::new());
    let mut binder = Binder::new();
    // The kernel's `sriov_numvfs`.
    binder.kernel = Box::new(|file, value, _| {
        assert_eq!(file, path.join("sriov_numvfs"));
        writes.borrow_mut().push(value.to_owned());
        if fs::read_to_string(&enable).unwrap() == "N\n" {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        for number in 0..4 {
            let _ = fs::remove_file(path.join(format!("virtfn{number}")));
        }
        for number in 0..value.parse().unwrap() {
            let bdf = format!("0000:01:00.{}", number + 1);
            if !path.with_file_name(&bdf).exists() {
                sysfs.add(&bdf, "0x010802\n", Some("vfio-pci"), Some(10 + number));
            }
            symlink(format!("../{bdf}"), path.join(format!("virtfn{number}"))).unwrap();
        }
        Ok(())
    });
    let error = binder.set_virtual_functions(&function, 2).unwrap_err().to_string();
    has(&error, &[BDF, "no SR-IOV"]);
    fs::write(path.join("sriov_totalvfs"), "4\n").unwrap();
    let error = binder.set_virtual_functions(&function, 5).unwrap_err().to_string();
    has(&error, &[BDF, "it can have 4"]);
    assert!(writes.borrow().is_empty(), "nothing was changed");
    let error = binder.set_virtual_functions(&function, 2).unwrap_err().to_string();
    has(&error, &[BDF, "echo 1 >", "enable_sriov"]);
    fs::write(&enable, "Y\n").unwrap();
    let mut set = |count| binder.set_virtual_functions(&function, count).unwrap();
    writes.borrow_mut().clear();
    assert_eq!(set(2).iter().map(ToString::to_string).collect::<Vec<_>>(), ["0000:01:00.1", "0000:01:00.2"]);
    assert_eq!(set(3).len(), 3);
    assert_eq!((set(0), set(0)), (vec![], vec![]));
    assert_eq!(*writes.borrow(), ["2", "0", "3", "0"], "the kernel changes no number but from and to 0");
}
