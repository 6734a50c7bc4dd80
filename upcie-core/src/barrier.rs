//! Barriers that order this CPU's memory accesses for a *device*.
//!
//! Rust's fences order accesses for CPUs in the inner-shareable domain. A device is outside of it, so these are inline
//! assembly. Each is a compiler barrier too: memory accesses, volatile or not, do not move across it.

use std::arch::asm;

/// Orders earlier stores to DMA memory before later stores (to DMA memory or to a doorbell).
///
/// Emits no instruction on x86-64, where stores to write-back and uncached memory stay in order; `dmb oshst` on aarch64.
#[inline(always)]
pub fn dma_wmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: emits no instruction, and only restricts the compiler.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb oshst", options(nostack, preserves_flags))
    }
}

/// Orders earlier loads from DMA memory before later loads: later loads see all that the device wrote before the word
/// just read.
///
/// Emits no instruction on x86-64, where loads stay in order; `dmb oshld` on aarch64.
#[inline(always)]
pub fn dma_rmb() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: emits no instruction, and only restricts the compiler.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb oshld", options(nostack, preserves_flags))
    }
}

/// Orders earlier stores, including write-combining ones, before later stores to uncached MMIO.
///
/// Emits `sfence` on x86-64, `dsb st` on aarch64. Either takes tens of nanoseconds: don't use it on a path without
/// write-combining memory.
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

/// Orders earlier loads before later loads from a device's memory, including write-combining memory, which the processor
/// may read speculatively.
///
/// Emits `lfence` on x86-64, `dsb ld` on aarch64: don't use it on a path without such memory.
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

/// Orders earlier loads and stores before later stores: for a doorbell that gives memory back to the device. The device
/// may overwrite an entry or a buffer that was just read as soon as it sees the doorbell.
///
/// Emits no instruction on x86-64, where a store does not pass earlier loads or stores; `dmb osh` on aarch64.
#[inline(always)]
pub fn dma_release() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: emits no instruction, and only restricts the compiler.
    unsafe {
        asm!("", options(nostack, preserves_flags))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier instruction has no other effect.
    unsafe {
        asm!("dmb osh", options(nostack, preserves_flags))
    }
}
