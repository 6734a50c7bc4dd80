//! Macros for the numbers that travel between host and controller.

/// A newtype over the raw number, with a constant and a name per value that the specification assigns.
///
/// Not an enum: the controller may send any number, and a vendor or a later revision may assign more of them.
macro_rules! named_values {
    (
        $(#[$meta:meta])*
        $type:ident($repr:ty) {
            $( $(#[$value_meta:meta])* $constant:ident = $value:literal, $name:literal; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(
            /// The number as it travels.
            pub $repr,
        );

        impl $type {
            $(
                #[doc = concat!($name, ": ", stringify!($value), ".")]
                $(#[$value_meta])*
                pub const $constant: Self = Self($value);
            )*

            /// Returns the specification's name for this value, if it assigns one.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $( $value => Some($name), )*
                    _ => None,
                }
            }

            /// Makes the value from a register or command field.
            #[must_use]
            pub const fn from_bits(bits: $repr) -> Self {
                Self(bits)
            }

            /// Returns the number for a register or command field.
            #[must_use]
            pub const fn into_bits(self) -> $repr {
                self.0
            }
        }

        /// The name and the number: `Identify (06h)`.
        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{} ({:02X}h)", self.name().unwrap_or("unknown"), self.0)
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    };
}

/// Checks a structure's size at compile time.
macro_rules! assert_size {
    ($type:ty, $bytes:expr) => {
        const _: () = assert!(size_of::<$type>() == $bytes);
    };
}

pub(super) use {assert_size, named_values};
