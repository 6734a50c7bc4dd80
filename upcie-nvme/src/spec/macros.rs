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

        impl $crate::spec::fields::Code for $type {
            fn code(self) -> (u64, Option<&'static str>) {
                (self.0.into(), self.name())
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

/// A structure as a table: the offset of each field in bytes, its name, its type and, unless it is reserved, how it is
/// shown, by a function of [`show`](super::fields::show) or a method of the structure that returns the value.
///
/// The offsets and the size are checked at compile time.
macro_rules! structure {
    (
        $(#[$meta:meta])*
        $type:ident[$size:expr], $title:literal {
            $(
                $(#[$field_meta:meta])*
                $at:literal $name:ident: $field:ty
                    $(=> $format:ident $(($($argument:expr),*))?)?
                    $(= $method:ident)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable)]
        #[repr(C)]
        pub struct $type {
            $(
                $(#[$field_meta])*
                #[doc = concat!("\n\nAt byte ", stringify!($at), ".")]
                pub $name: $field,
            )*
        }
        $crate::spec::macros::assert_size!($type, $size);
        const _: () = {
            $( assert!(core::mem::offset_of!($type, $name) == $at, stringify!($name)); )*
        };

        $crate::spec::macros::shown! {
            $type, $title {
                $( $(($name) $name => $format $(($($argument),*))?;)? $(($name) $name = $method;)? )*
            }
        }

        impl $crate::spec::fields::Places for $type {
            fn places() -> Vec<$crate::spec::fields::FieldPlace> {
                let all = [$( (
                    stringify!($name),
                    $crate::spec::macros::format_name!($($format)? $(= $method)?),
                    $at,
                    size_of::<$field>() as u32,
                ), )*];
                let shown = all.into_iter().filter(|place| !place.1.is_empty());
                shown
                    .map(|(name, format, at, size)| {
                        $crate::spec::fields::FieldPlace::new(name, format, at * 8, size * 8)
                    })
                    .collect()
            }
        }

        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                use $crate::spec::fields::Structure;
                $crate::spec::fields::debug(f, stringify!($type), &self.fields())
            }
        }
    };
}

/// Shows the fields of a structure: the expression of a field, the name that it is shown by, and the function of
/// [`show`](super::fields::show).
macro_rules! shown {
    (
        $type:ty, $title:literal {
            $(
                $field:tt $name:ident
                    $(=> $format:ident $(($($argument:expr),*))?)?
                    $(= $method:ident)?;
            )*
        }
    ) => {
        impl $crate::spec::fields::Structure for $type {
            const TITLE: &'static str = $title;

            fn fields(&self) -> Vec<$crate::spec::fields::Field> {
                let all = self;
                vec![$(
                    $crate::spec::fields::Field::new(
                        stringify!($name),
                        $crate::spec::macros::shown_value! {
                            all, $field $(=> $format $(($($argument),*))?)? $(= $method)?
                        },
                    ),
                )*]
            }
        }

        $crate::spec::macros::printed!($type);
    };
}

/// Makes the value of a field of [`shown`].
macro_rules! shown_value {
    ($all:ident, ($($field:tt)+) => $format:ident $(($($argument:expr),*))?) => {
        $crate::spec::fields::show::$format(&$all.$($field)+ $($(, $argument)*)?)
    };
    ($all:ident, $field:tt = $method:ident) => {
        $all.$method()
    };
}

/// Prints and serializes a structure by its fields.
macro_rules! printed {
    ($type:ty) => {
        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                use $crate::spec::fields::Structure;
                $crate::spec::fields::display(f, &self.fields())
            }
        }

        #[cfg(feature = "serde")]
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use $crate::spec::fields::Structure;
                $crate::spec::serialize::serialize_fields(&self.fields(), serializer)
            }
        }
    };
}

// Lints look into code that derives make within these macros, and not into the same code elsewhere: the modules that use the
// macros allow helper types of zerocopy without Debug, and the setters of bitfield-struct that return `Result<_, ()>`.

/// A number of several fields as a table: the name of each field, the name that it is shown by if that is another, its type,
/// its width in bits and, unless it is reserved, how it is shown.
macro_rules! bits {
    (
        $(#[$meta:meta])*
        $type:ident($repr:ident), $title:literal {
            $(
                $(#[$field_meta:meta])*
                $name:ident $(as $shown:ident)?: $field:ident[$width:literal]
                    $(=> $format:ident $(($($argument:expr),*))?)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[bitfield_struct::bitfield($repr)]
        #[derive(
            PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout
        )]
        pub struct $type {
            $(
                $(#[$field_meta])*
                #[bits($width)]
                pub $name: $field,
            )*
        }

        impl $crate::spec::fields::Structure for $type {
            const TITLE: &'static str = $title;

            #[allow(clippy::vec_init_then_push, reason = "reserved fields push nothing")]
            fn fields(&self) -> Vec<$crate::spec::fields::Field> {
                let mut all = Vec::new();
                $( $crate::spec::macros::shown_bits! {
                    all, self.$name(), [$($shown)? $name] $(=> $format $(($($argument),*))?)?
                } )*
                all
            }
        }

        impl $crate::spec::fields::Places for $type {
            fn places() -> Vec<$crate::spec::fields::FieldPlace> {
                let all = [$( (
                    $crate::spec::macros::bits_name!($($shown)? $name),
                    $crate::spec::macros::format_name!($($format)?),
                    $width,
                ), )*];
                let mut bit = 0;
                let mut places = Vec::new();
                for (name, format, width) in all {
                    if !format.is_empty() {
                        places.push($crate::spec::fields::FieldPlace::new(name, format, bit, width));
                    }
                    bit += width;
                }
                places
            }
        }

        $crate::spec::macros::printed!($type);
    };
}

/// The name by which a field of [`bits`] is shown.
macro_rules! bits_name {
    ($name:ident $($other:ident)?) => {
        stringify!($name)
    };
}

/// The function that shows a field, as text; empty for a reserved field.
macro_rules! format_name {
    () => {
        ""
    };
    ($format:ident) => {
        stringify!($format)
    };
    (= $method:ident) => {
        stringify!($method)
    };
}

/// Adds a field of [`bits`], unless it is reserved.
macro_rules! shown_bits {
    ($all:ident, $value:expr, [$($names:ident)+]) => {};
    ($all:ident, $value:expr, [$name:ident $($other:ident)?] => $format:ident $(($($argument:expr),*))?) => {
        $all.push($crate::spec::fields::Field::new(
            stringify!($name),
            $crate::spec::fields::show::$format(&$value $($(, $argument)*)?),
        ));
    };
}

pub(super) use {
    assert_size, bits, bits_name, format_name, named_values, printed, shown, shown_bits, shown_value,
    structure,
};
