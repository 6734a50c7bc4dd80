//! Controllers of `nvme-emu` and what Linux's driver does with each.

/// A controller that `nvme-emu` serves, or QEMU's own.
#[derive(Debug)]
pub struct Server {
    /// Serial number, by which scripts find the controller.
    pub serial: &'static str,
    /// Options of `nvme-emu`; none for QEMU's own controller.
    pub options: &'static [&'static str],
    /// Fault plan: the text of a file for `--faults`; none if empty.
    pub plan: &'static str,
}

impl Server {
    /// Returns `true` if it is a controller of `nvme-emu`.
    pub const fn is_ours(&self) -> bool {
        !self.options.is_empty()
    }
}

/// A script on one controller.
#[derive(Debug)]
pub struct Case {
    /// Row in the matrix.
    pub name: &'static str,
    pub server: &'static Server,
    pub script: &'static str,
    /// Arguments after the serial number, as a shell reads them.
    pub arguments: &'static str,
}

/// Scripts by their file's name.
pub const SCRIPTS: &[(&str, &str)] = &[
    ("common.sh", include_str!("../../../../../tests/guest/linux/common.sh")),
    ("interrupts.sh", include_str!("../../../../../tests/guest/linux/interrupts.sh")),
    ("doorbells.sh", include_str!("../../../../../tests/guest/linux/doorbells.sh")),
    ("files.sh", include_str!("../../../../../tests/guest/linux/files.sh")),
    ("reset.sh", include_str!("../../../../../tests/guest/linux/reset.sh")),
    ("faults.sh", include_str!("../../../../../tests/guest/linux/faults.sh")),
    ("retries.sh", include_str!("../../../../../tests/guest/linux/retries.sh")),
    ("both.sh", include_str!("../../../../../tests/guest/linux/both.sh")),
    ("json.sh", include_str!("../../../../../tests/guest/linux/json.sh")),
    ("commands.sh", include_str!("../../../../../tests/guest/linux/commands.sh")),
    ("power.sh", include_str!("../../../../../tests/guest/linux/power.sh")),
];

/// Without faults, and large enough for an xfs.
static MSIX: Server = Server { serial: "MSIX", options: &["--vectors", "9", "--size", "512M"], plan: "" };
static MSI: Server =
    Server { serial: "MSI", options: &["--vectors", "0", "--msi", "8", "--size", "64M"], plan: "" };
static INTX: Server =
    Server { serial: "INTX", options: &["--vectors", "0", "--intx", "--size", "64M"], plan: "" };
/// With shadow doorbells.
static DOORBELLS: Server = Server {
    serial: "DOORBELLS",
    options: &["--options", "dbbuf=true", "--vectors", "9", "--size", "64M"],
    plan: "",
};
/// QEMU's own controller, which every boot of this suite has.
static QEMU: Server = Server { serial: "QEMU", options: &[], plan: "" };
/// Each namespace has faults of its own.
static FAULTS: Server = Server {
    serial: "FAULTS",
    options: &["--vectors", "9", "--namespaces", "6", "--size", "64M"],
    plan: "
        [[fault]]   # found by the driver's Abort
        kind = 'drop'
        namespace = 1
        after = 500
        count = 3
        [[fault]]   # an Abort does not find it: the driver resets the controller
        kind = 'lose-completion'
        namespace = 2
        after = 500
        count = 1
        [[fault]]   # the driver finds the completions when it looks after its timeout
        kind = 'lost-interrupt'
        namespace = 3
        after = 500
        count = 50
        [[fault]]
        kind = 'fatal'
        namespace = 4
        after = 500
        [[fault]]   # Data Transfer Error
        kind = 'status'
        status = 0x004
        namespace = 5
        lba = '64'
        opcode = 'read'
        count = 5
        [[fault]]
        kind = 'status'
        status = 0x004
        namespace = 5
        lba = '128'
        opcode = 'read'
        count = 6
        [[fault]]
        kind = 'status'
        status = 0x004
        dnr = true
        namespace = 5
        lba = '192'
        opcode = 'read'
        count = 1
        [[fault]]
        kind = 'forged-id'
        namespace = 6
        after = 500
        count = 1
    ",
};

/// Runs in this order in one boot. The interrupts come first: their cases count what the kernel says.
///
/// Numbers of `interrupts.sh`: several completions may share one interrupt. QEMU takes any register access of the guest for the
/// end of a pin's interrupt, which then repeats while completions wait: at most once for each of an I/O's two doorbells.
pub const CASES: &[Case] = &[
    Case { name: "linux_msix", server: &MSIX, script: "interrupts.sh", arguments: "PCI-MSIX 5 150" },
    Case { name: "linux_msi", server: &MSI, script: "interrupts.sh", arguments: "PCI-MSI- 5 250" },
    Case { name: "linux_intx", server: &INTX, script: "interrupts.sh", arguments: "IO-APIC 5 200" },
    Case { name: "linux_doorbells", server: &DOORBELLS, script: "doorbells.sh", arguments: "" },
    Case { name: "linux_files", server: &MSIX, script: "files.sh", arguments: "" },
    Case { name: "linux_commands", server: &MSIX, script: "commands.sh", arguments: "" },
    Case { name: "linux_both", server: &MSIX, script: "both.sh", arguments: "" },
    Case { name: "linux_json", server: &MSIX, script: "json.sh", arguments: "" },
    Case { name: "linux_json_qemu", server: &QEMU, script: "json.sh", arguments: "" },
    Case { name: "linux_reset", server: &MSIX, script: "reset.sh", arguments: "" },
    Case { name: "linux_retries", server: &FAULTS, script: "retries.sh", arguments: "5" },
    Case {
        name: "linux_dropped",
        server: &FAULTS,
        script: "faults.sh",
        arguments: "1 2 1 'timeout, aborting'",
    },
    Case {
        name: "linux_lost_completion",
        server: &FAULTS,
        script: "faults.sh",
        arguments: "2 2 1 'timeout, reset controller'",
    },
    Case {
        name: "linux_lost_interrupt",
        server: &FAULTS,
        script: "faults.sh",
        arguments: "3 2 1 'completion polled'",
    },
    Case {
        name: "linux_fatal",
        server: &FAULTS,
        script: "faults.sh",
        arguments: "4 2 1 'controller is down; will reset'",
    },
    Case { name: "linux_forged_id", server: &FAULTS, script: "faults.sh", arguments: "6 2 1 'invalid id'" },
];
