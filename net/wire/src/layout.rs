//! The macro that declares a command by its fields in wire order.
//!
//! One list of fields gives the struct, its decoding, its encoding and its length, so that they
//! cannot disagree. A field followed by `= value` is optional at the end of a payload: when the
//! payload ends before it, it is that value. It is always written.

macro_rules! layout {
    (
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$field_meta:meta])* $field:ident: $type:ty $(= $default:expr)?,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)+
        }

        impl $crate::field::Field for $name {
            const BYTES_MIN: usize = 0 $(+ $crate::layout::bytes_min!($type $(, $default)?))+;

            // The fields of a struct expression are evaluated in the order written, which is the
            // wire order.
            fn decode(
                reader: &mut $crate::field::Reader<'_>,
            ) -> Result<Self, $crate::field::PayloadError> {
                Ok(Self {
                    $($field: $crate::layout::decode_field!(reader, $type $(, $default)?),)+
                })
            }

            fn encode(&self, out: &mut bytes::BytesMut) {
                $($crate::field::Field::encode(&self.$field, out);)+
            }

            fn encoded_len(&self) -> usize {
                0 $(+ $crate::field::Field::encoded_len(&self.$field))+
            }
        }

        #[cfg(test)]
        impl $crate::property::Sample for $name {
            fn strategy() -> proptest::strategy::BoxedStrategy<Self> {
                use proptest::strategy::Strategy;
                ($(<$type as $crate::property::Sample>::strategy(),)+)
                    .prop_map(|($($field,)+)| Self { $($field),+ })
                    .boxed()
            }
        }
    };
}

macro_rules! bytes_min {
    ($type:ty) => {
        <$type as $crate::field::Field>::BYTES_MIN
    };
    ($type:ty, $default:expr) => {
        0
    };
}

macro_rules! decode_field {
    ($reader:ident, $type:ty) => {
        <$type as $crate::field::Field>::decode($reader)?
    };
    ($reader:ident, $type:ty, $default:expr) => {
        if <$type as $crate::field::Field>::is_absent($reader.remaining()) {
            $default
        } else {
            <$type as $crate::field::Field>::decode($reader)?
        }
    };
}

pub(crate) use {bytes_min, decode_field, layout};
