//! The form of a setting's declaration, which holds everything about the setting.
//!
//! ```text
//! pub struct PoolSettings in "pool", "Pools" {
//!     /// Most connections of one pool.          what it means: for rustdoc, the guide and the example file
//!     ///
//!     /// A server of 4 to 8 cores …             the reason of its default: for rustdoc and the guide
//!     pub max_size: u32 = 10, in 1..=10_000;     key, type, default, and the values that are accepted
//! }
//! ```
//!
//! A field after `@nested` is a schedule whose parts are another group, because a `Backoff` is checked as a whole.
//!
//! The group is a plain struct with these fields and defaults. Its `visit` passes each field to a
//! [`Reader`](super::reader::Reader), which reads the value, checks it, and records the declaration.

use super::reader::Reader;

/// A group of settings, which is one table of the file.
pub(super) trait Group: Default {
    /// Passes each setting to `reader`, in the order of declaration.
    fn visit(&mut self, reader: &mut Reader);
}

/// The declaration of one setting, apart from its type, default and bounds.
pub(super) struct Declaration {
    /// The heading in the guide.
    pub(super) heading: &'static str,
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    /// The lines of the setting's documentation.
    pub(super) doc: &'static [&'static str],
    /// A value for a setting that has no default.
    pub(super) example: Option<&'static str>,
}

macro_rules! settings {
    (@bounds) => { .. };
    (@bounds $bounds:expr) => { $bounds };
    ($(
        $(#[doc = $about:literal])*
        $vis:vis struct $Group:ident in $table:literal, $heading:literal {
            $(
                $(#[doc = $doc:literal])*
                $of_field:vis $field:ident: $Type:ty = $default:expr
                    $(, in $bounds:expr)? $(, example $example:literal)?;
            )*
            $(
                @nested $(#[doc = $of_nested:literal])*
                $vis_nested:vis $nested:ident: $Backoff:ty as $Parts:ident;
            )*
        }
    )*) => { $(
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        $vis struct $Group {
            $($(#[doc = $doc])* $of_field $field: $Type,)*
            $($(#[doc = $of_nested])* $vis_nested $nested: $Backoff,)*
        }

        impl Default for $Group {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($nested: $Parts::default().schedule(None).expect("a valid default"),)*
                }
            }
        }

        impl $crate::config::declare::Group for $Group {
            fn visit(&mut self, reader: &mut $crate::config::reader::Reader) {
                $(reader.setting(
                    &$crate::config::declare::Declaration {
                        heading: $heading,
                        table: $table,
                        key: stringify!($field),
                        doc: &[$($doc),*],
                        example: None$(.or(Some($example)))?,
                    },
                    &mut self.$field,
                    $crate::config::declare::settings!(@bounds $($bounds)?),
                );)*
                $($Parts::visit_backoff(&mut self.$nested, reader);)*
            }
        }
    )* };
}

pub(super) use settings;
