//! The polled path makes no system call; a filter in the kernel checks that.
//!
//! A process of its own runs the test, since a filter can't be removed. In its polling thread every call but
//! the exit traps, and the handler prints the call's number.

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_int, c_void, siginfo_t, sock_filter};
use std::mem;
use upcie_nvme::{Address, Controller, Io};
use upcie_tests::{
    device::namespaces,
    io::create,
    on_each_device,
    process::{Process, again, role},
    scaled, seeded,
};

/// The descriptor of the handler's message, which nothing else uses.
const REPORT: c_int = 900;
/// The exit code of a process that made a call.
const CAUGHT: c_int = 3;
/// The role that makes a system call on purpose.
const ON_PURPOSE: &str = "on purpose:";

#[test]
fn a_million_polled_ios_make_no_system_call() {
    if let Some(address) = role() {
        match address.strip_prefix(ON_PURPOSE) {
            None => poll(&address.parse().unwrap(), false),
            Some(address) => poll(&address.parse().unwrap(), true),
        }
    }
    on_each_device(|device| {
        let run =
            |role: &str| Process::start(again("a_million_polled_ios_make_no_system_call", role)).finish();
        let (status, said) = run(&device.address().to_string());
        assert!(status.success(), "{status}: {said}");
        // The filter works: it catches a call.
        let (status, said) = run(&format!("{ON_PURPOSE}{}", device.address()));
        assert_eq!(status.code(), Some(CAUGHT), "{status}: {said}");
        assert!(said.contains(&format!("system call {}\n", libc::SYS_getppid)), "{said}");
        // The two processes could not close the device; the next user removes their remains.
        device.open();
    });
}

/// Polls a million commands through under the filter; ends the process.
fn poll(address: &Address, on_purpose: bool) -> ! {
    let controller = Controller::open(address).unwrap();
    let (namespace, _) = &namespaces(&controller)[0];
    let mut queue = create::<u64>(controller.queue_pair().depth(33));
    let buffers: Vec<_> = (0..32).map(|_| controller.alloc(4096).unwrap()).collect();
    let held = controller.alloc(8192).unwrap();
    let mut spare = Vec::with_capacity(32);
    let (mut random, wanted, mut done) = (seeded(0), scaled(1_000_000), 0);
    // Ends the process if no completion comes: a signal needs no system call of this thread.
    // SAFETY: the call has no preconditions.
    unsafe { libc::alarm(600) };
    trap_all_system_calls();
    let mut turn = queue.turn().unwrap();
    for buffer in buffers {
        turn.write(namespace, random.within(0..4096), buffer, 0).unwrap();
    }
    drop(turn);
    while done < wanted {
        // Many empty turns would check the controller, by message.
        if !queue.is_ready() {
            std::hint::spin_loop();
            continue;
        }
        let mut turn = queue.turn().unwrap();
        while let Some(completion) = turn.next() {
            let (tag, result, buffer) = completion.into_parts();
            result.unwrap();
            let block = random.within(0..4096);
            let submitted = match block % 8 {
                // Tag 1 belongs to the transfer of held memory; its buffer is used by the next command.
                _ if tag == 1 => turn.read(namespace, block, spare.pop().unwrap(), 0),
                0 | 4 => turn.write(namespace, block, buffer, tag),
                1 if tag == 0 => {
                    spare.push(buffer);
                    let io = Io::read(namespace, block).fua();
                    // SAFETY: the process ends before the memory is freed or read.
                    unsafe { turn.submit_held(io, &held, 512..512 + 4096, 1) }
                }
                _ => turn.read(namespace, block, buffer, tag),
            };
            submitted.unwrap();
            done += 1;
        }
    }
    if on_purpose {
        // SAFETY: the call has no preconditions.
        unsafe { libc::getppid() };
    }
    // SAFETY: the process ends at once; the kernel takes its resources back.
    unsafe { libc::_exit(0) }
}

/// Traps every system call of this thread but exit, and write to [`REPORT`].
fn trap_all_system_calls() {
    // SAFETY: the call has no preconditions; standard error stays open.
    assert_eq!(unsafe { libc::dup2(2, REPORT) }, REPORT);
    let handler: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = report;
    // SAFETY: all zeroes is a valid, empty action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the action is valid, and its handler is async-signal-safe.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()) }, 0);
    let statement = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |k: u32, jt, jf| sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt, jf, k };
    let mut filter = [
        // The number of the call; later, for `write`, the low half of its first argument.
        statement(BPF_LD | BPF_W | BPF_ABS, 0),
        jump(libc::SYS_exit_group as u32, 3, 0),
        jump(libc::SYS_write as u32, 0, 3),
        statement(BPF_LD | BPF_W | BPF_ABS, 16),
        jump(REPORT as u32, 0, 1),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, libc::SECCOMP_RET_TRAP),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the call takes no pointers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program lives during the call, which copies it. The filter holds for this thread only.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    assert_eq!(installed, 0, "{}", std::io::Error::last_os_error());
}

/// Prints the number of the call, by the one call that is allowed.
extern "C" fn report(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
    // `si_syscall` of the SIGSYS variant: three ints, then on the next multiple of 8 the address, then the
    // number.
    let at = info.cast::<c_int>().wrapping_add(6);
    // SAFETY: the kernel passes a whole `siginfo_t`, in which this field is aligned and initialised.
    let number = unsafe { at.read() };
    let mut text = *b"a system call on the polled path: system call    \n";
    let mut at = text.len() - 2;
    let mut rest = number.unsigned_abs();
    let mut digits = [0_u8; 3];
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    for digit in digits.iter().rev() {
        text[at] = *digit;
        at -= 1;
    }
    // SAFETY: the bytes are those of `text`, and the filter allows the descriptor.
    unsafe { libc::write(REPORT, text.as_ptr().cast(), text.len()) };
    // SAFETY: the process ends at once.
    unsafe { libc::_exit(CAUGHT) }
}
