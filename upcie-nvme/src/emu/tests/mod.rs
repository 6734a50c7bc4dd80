//! The emulator as a client sees it, over a real vfio-user connection, or step by step in the test's own thread.

mod admin;
mod admin_bounds;
mod arbitration;
mod bringup;
mod cancel;
mod data;
mod doorbell_buffers;
mod faults;
mod files;
mod fused;
mod host;
mod host_buffer;
mod interrupts;
mod key_value;
mod manage;
mod messages;
mod metadata;
mod planned;
mod recorder;
mod reservations;
mod sgl;
mod stepped;
mod strict;
mod struck;
mod uncorrectable;
mod zones;
