//! upcie-nvme
