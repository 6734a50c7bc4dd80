//! Base, "Discovery Log Page Entry": numbers of fabrics that several structures have.

/// Names of transports (TRTYPE).
pub(super) const TRANSPORTS: &[(u64, &str)] =
    &[(1, "RDMA"), (2, "Fibre Channel"), (3, "TCP"), (254, "intra-host")];

/// Names of address families (ADRFAM).
pub(super) const ADDRESS_FAMILIES: &[(u64, &str)] =
    &[(1, "IPv4"), (2, "IPv6"), (3, "InfiniBand"), (4, "Fibre Channel"), (254, "intra-host")];
