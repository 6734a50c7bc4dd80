//! What the values of all features have in common.

use super::super::fields::{FieldPlace, Structure};
use super::super::macros::bits;
use super::id::FeatureId;

/// The value of a feature that the library knows.
pub trait Feature: Structure + Sized {
    /// The identifier of the feature.
    const ID: FeatureId;
    /// Bytes of data that Get Features returns beside dword 0.
    const DATA: usize = 0;
    /// Command dword 11 that Get Features takes, unless the caller sets another.
    const DWORD11: u32 = 0;
    /// Each namespace has a value of its own.
    const OF_NAMESPACE: bool = false;

    /// Set Features takes the value in dword 12, and dword 11 names an NVM set or an endurance group.
    const IN_DWORD12: bool = false;
    /// The bits of dword 11 that choose one of several values: a sensor, a vector.
    const SELECTS: u32 = 0;

    /// Makes the value of dword 0 of the completion and the data; `None` if the data is too short.
    fn from_answer(dword0: u32, data: &[u8]) -> Option<Self>;

    /// Returns the value as Set Features takes it: a dword, and the data.
    fn to_command(&self) -> (u32, Vec<u8>);

    /// Returns the places of the fields in the dword, and those in the data.
    fn places() -> (Vec<FieldPlace>, Vec<FieldPlace>);
}

bits! {
    /// Operations on a feature that a controller supports: Get Features with
    /// [`FeatureSelect::SUPPORTED`](super::FeatureSelect::SUPPORTED).
    FeatureCapabilities(u32), "Feature Capabilities" {
        /// A value can be saved over power cycles and resets.
        saveable: bool[1] => flag;
        /// Each namespace has a value of its own.
        namespace_specific: bool[1] => flag;
        /// The value can be changed.
        changeable: bool[1] => flag;
        __: u32[29];
    }
}

/// Features whose value is dword 0 of the completion.
macro_rules! dword_features {
    ($($type:ident: $id:ident $([$($constant:ident: $kind:ty = $value:expr),*])?;)*) => {
        $(
            impl $crate::spec::features::value::Feature for $type {
                const ID: FeatureId = FeatureId::$id;
                $($( const $constant: $kind = $value; )*)?

                fn from_answer(dword0: u32, _: &[u8]) -> Option<Self> {
                    Some(Self::from_bits(dword0))
                }

                fn to_command(&self) -> (u32, Vec<u8>) {
                    (self.into_bits(), Vec::new())
                }

                fn places() -> (Vec<FieldPlace>, Vec<FieldPlace>) {
                    (<Self as Places>::places(), Vec::new())
                }
            }
        )*
    };
}

/// Features with a structure as data; `dword` is the type of dword 0 of the completion, if it has fields.
macro_rules! data_features {
    ($($(#[$meta:meta])* $type:ident: $id:ident, $title:literal, $data:ty
        $(, dword = $dword:ty)? $([$($constant:ident: $kind:ty = $value:expr),*])?;)*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, PartialEq, Eq)]
            pub struct $type {
                $(
                    /// Dword 0 of the completion; dword 11 of Set Features.
                    pub dword: $dword,
                )?
                /// The data.
                pub data: $data,
            }

            impl Structure for $type {
                const TITLE: &'static str = $title;

                fn fields(&self) -> Vec<Field> {
                    #[allow(unused_mut)]
                    let mut all = Vec::new();
                    $( all.extend(<$dword as Structure>::fields(&self.dword)); )?
                    all.extend(self.data.fields());
                    all
                }
            }
            $crate::spec::macros::printed!($type);

            impl core::fmt::Debug for $type {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    $crate::spec::fields::debug(f, stringify!($type), &self.fields())
                }
            }

            impl $crate::spec::features::value::Feature for $type {
                const ID: FeatureId = FeatureId::$id;
                const DATA: usize = size_of::<$data>();
                $($( const $constant: $kind = $value; )*)?

                fn from_answer(dword0: u32, data: &[u8]) -> Option<Self> {
                    use zerocopy::FromBytes;
                    let _ = dword0;
                    let data = <$data>::read_from_prefix(data).ok()?.0;
                    Some(Self { $( dword: <$dword>::from_bits(dword0), )? data })
                }

                fn to_command(&self) -> (u32, Vec<u8>) {
                    use zerocopy::IntoBytes;
                    #[allow(unused_mut)]
                    let mut dword = Self::DWORD11;
                    $( dword |= <$dword>::into_bits(self.dword); )?
                    (dword, self.data.as_bytes().to_vec())
                }

                fn places() -> (Vec<FieldPlace>, Vec<FieldPlace>) {
                    #[allow(unused_mut)]
                    let mut dword = Vec::new();
                    $( dword.extend(<$dword as Places>::places()); )?
                    (dword, <$data as Places>::places())
                }
            }
        )*
    };
}

pub(super) use {data_features, dword_features};
