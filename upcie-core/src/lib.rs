//! upcie-core
