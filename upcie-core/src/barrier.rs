//! Order between this CPU's memory accesses as a *device* sees them.
//!
//! Rust's fences order CPUs in the inner-shareable domain; a device is outside of it, so these are inline assembly.
//! Each is a compiler barrier too: memory accesses, volatile or not, do not move across it.

use std::arch::asm;

/// Orders earlier stores to DMA memory before later stores (to DMA memory or to a doorbell).
///
/// Nothing on x86-64, where stores to write-back and uncached memory stay in order; `dmb oshst` on aarch64.
#[inline(always)]
pub fn dma_wmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction; only the compiler is held back.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb oshst", options(nostack, preserves_flags))
    }
}

/// Orders earlier loads from DMA memory before later loads: what follows sees what the device wrote before the word
/// that was just read.
///
/// Nothing on x86-64, where loads stay in order; `dmb oshld` on aarch64.
#[inline(always)]
pub fn dma_rmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction; only the compiler is held back.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb oshld", options(nostack, preserves_flags))
    }
}

/// Orders earlier stores, write-combining ones included, before later stores to uncached MMIO.
///
/// `sfence` on x86-64, `dsb st` on aarch64: tens of nanoseconds, so not for a path that has no write-combining memory.
#[inline(always)]
pub fn mmio_wmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("sfence", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dsb st", options(nostack, preserves_flags))
    }
}

/// Orders earlier loads before later loads from memory in a device, write-combining too, which the processor may read ahead of
/// time.
///
/// `lfence` on x86-64, `dsb ld` on aarch64: not for a path that has no such memory.
#[inline(always)]
pub fn mmio_rmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("lfence", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dsb ld", options(nostack, preserves_flags))
    }
}

/// Orders earlier loads and stores before later stores: what goes before a doorbell that gives memory back to the device.
/// An entry or a buffer that was just read may be overwritten as soon as the doorbell is seen.
///
/// Nothing on x86-64, where a store passes no earlier load or store; `dmb osh` on aarch64.
#[inline(always)]
pub fn dma_release() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: no instruction; only the compiler is held back.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb osh", options(nostack, preserves_flags))
    }
}
