//! Devices through the kernel's VFIO.
