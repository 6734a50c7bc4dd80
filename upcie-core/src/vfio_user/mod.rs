//! The vfio-user protocol over a Unix socket: the client, which is a [`Device`](crate::transport::Device), and the
//! server, behind which any device can be written in software.

pub mod server;
