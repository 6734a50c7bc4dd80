//! The native part of the Python package `upcie`: the driver's controllers, namespaces and buffers as Python objects.
//!
//! No call holds the interpreter's lock while it waits. Nothing that a Python program does can crash the process: a buffer
//! with views can't be freed, its memory outlives the controller, and every use after a close raises.

mod batch;
mod buffer;
mod controller;
mod failure;
mod keys;
mod namespace;
mod open;
mod perf;
mod placement;
mod protection;
mod reservations;
mod zones;

/// The native part of `upcie`.
#[pyo3::pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use crate::{
        buffer::Buffer,
        controller::Controller,
        keys::KeyValue,
        namespace::Namespace,
        perf::PerfResult,
        perf::perf,
        placement::{Placement, PlacementHandle},
        protection::Protect,
        reservations::{Registrant, ReservationReport, Reservations},
        zones::{Zone, Zones},
    };
}
