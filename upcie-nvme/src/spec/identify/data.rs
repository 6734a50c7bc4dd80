//! What all structures that Identify returns have in common.

use super::super::fields::Structure;
use super::{Cns, Csi};

/// A structure that Identify returns: 4096 bytes.
pub trait IdentifyData: Structure + Sized {
    /// The code of the structure.
    const CNS: Cns;
    /// The command set that defines it, where the code alone doesn't tell.
    const CSI: Csi = Csi::NVM;
    /// Identify takes a namespace.
    const OF_NAMESPACE: bool = false;

    /// Makes the structure of the bytes that Identify returned.
    fn from_page(page: &[u8; 4096]) -> Self;
}

/// Structures of 4096 bytes.
macro_rules! identify_data {
    ($($type:ty: $cns:ident $(, csi = $csi:ident)? $([$namespace:ident])?;)*) => {
        $(
            impl $crate::spec::identify::data::IdentifyData for $type {
                const CNS: Cns = Cns::$cns;
                $( const CSI: Csi = Csi::$csi; )?
                $( const OF_NAMESPACE: bool = stringify!($namespace).len() != 0; )?

                fn from_page(page: &[u8; 4096]) -> Self {
                    zerocopy::transmute!(*page)
                }
            }
        )*
    };
}
pub(super) use identify_data;
