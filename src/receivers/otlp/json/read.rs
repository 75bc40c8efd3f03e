//! The few shapes that OTLP/JSON is made of, for serde.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};

/// A JSON object whose keys are handled one by one.
pub(super) trait Object {
    /// It begins.
    fn begin<E: Error>(&mut self) -> Result<(), E> {
        Ok(())
    }
    /// One key; its value must be taken from `map`.
    fn field<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error>;
    /// It ends.
    fn end<E: Error>(&mut self) -> Result<(), E> {
        Ok(())
    }
}

/// Passes over the value of a key that is not known.
pub(super) fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// One object, or `null` for an empty one.
pub(super) struct One<'o, T>(pub(super) &'o mut T);

impl<'de, T: Object> DeserializeSeed<'de> for One<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for One<'_, T> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.0.begin()?;
        self.0.end()
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.begin()?;
        while let Some(Key(key)) = map.next_key()? {
            self.0.field(&key, &mut map)?;
        }
        self.0.end()
    }
}

/// An array of objects, or `null` for none.
pub(super) struct Many<'o, T>(pub(super) &'o mut T);

impl<'de, T: Object> DeserializeSeed<'de> for Many<'_, T> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, T: Object> Visitor<'de> for Many<'_, T> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of objects")
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(One(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// An array of plain values, or `null` for none.
pub(super) struct Each<F, V>(F, std::marker::PhantomData<V>);

/// An array of plain values, each of which `take` is given.
pub(super) const fn each<V, F: FnMut(V)>(take: F) -> Each<F, V> {
    Each(take, std::marker::PhantomData)
}

impl<'de, V: Deserialize<'de>, F: FnMut(V)> DeserializeSeed<'de> for Each<F, V> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de, V: Deserialize<'de>, F: FnMut(V)> Visitor<'de> for Each<F, V> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element()? {
            (self.0)(value);
        }
        Ok(())
    }
}

/// A key, borrowed from the body where it has no escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E: Error>(self, v: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(v)))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(v.to_owned())))
            }
        }
        d.deserialize_str(Read)
    }
}

/// A string that is looked at once, without being copied; `None` for `null`.
pub(super) struct Text<F>(pub(super) F);

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Text<F> {
    type Value = Option<T>;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Text<F> {
    type Value = Option<T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Self::Value, E> {
        Ok(Some((self.0)(v)))
    }
}

/// An id of `N` bytes in hex; empty or `null` is zeros. Holds the key's name.
pub(super) struct Hex<const N: usize>(pub(super) &'static str);

impl<'de, const N: usize> DeserializeSeed<'de> for Hex<N> {
    type Value = [u8; N];
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<[u8; N], D::Error> {
        let read = |text: &str| {
            let mut id = [0; N];
            let wanted = text.len() == 2 * N;
            let good = wanted && data_encoding::HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut id).is_ok();
            if good || text.is_empty() {
                return Ok(id);
            }
            Err(D::Error::custom(format_args!(
                "`{}` has {} characters, expected {} hex digits or none",
                self.0,
                text.len(),
                2 * N
            )))
        };
        Text(read).deserialize(d)?.unwrap_or(Ok([0; N]))
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($type:ty), $expecting:literal, $from_u64:expr, $from_i64:expr, $from_f64:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        pub(super) struct $name(pub(super) $type);

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Self::default())
            }
        }

        impl Visitor<'_> for $name {
            type Value = Self;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }
            fn visit_u64<E: Error>(self, v: u64) -> Result<Self, E> {
                $from_u64(v).map(Self).ok_or_else(|| E::invalid_value(Unexpected::Unsigned(v), &self))
            }
            fn visit_i64<E: Error>(self, v: i64) -> Result<Self, E> {
                $from_i64(v).map(Self).ok_or_else(|| E::invalid_value(Unexpected::Signed(v), &self))
            }
            fn visit_f64<E: Error>(self, v: f64) -> Result<Self, E> {
                $from_f64(v).map(Self).ok_or_else(|| E::invalid_value(Unexpected::Float(v), &self))
            }
            fn visit_str<E: Error>(self, v: &str) -> Result<Self, E> {
                v.parse().map(Self).map_err(|_| E::invalid_value(Unexpected::Str(v), &self))
            }
        }
    };
}

/// The whole number that a float is, as writers that know only floats send them.
fn exact(v: f64) -> Option<i64> {
    // Above 2^53 a float does not hold every whole number.
    (v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0).then_some(v as i64)
}

number!(
    /// An int64, int32 or enum: a number, or a string of digits.
    Int(i64),
    "a whole number (names of enum values are not allowed in OTLP/JSON)",
    |v: u64| i64::try_from(v).ok(),
    Some,
    exact
);
number!(
    /// A uint64 or fixed64: a number, or a string of digits.
    Whole(u64),
    "a whole number from 0 on, or a string of its digits",
    Some,
    |v: i64| u64::try_from(v).ok(),
    |v: f64| exact(v).and_then(|v| u64::try_from(v).ok())
);
number!(
    /// A double: a number, a string of one, or `NaN`, `Infinity`, `-Infinity`.
    Double(f64),
    "a number, or one of \"NaN\", \"Infinity\" and \"-Infinity\"",
    |v: u64| Some(v as f64),
    |v: i64| Some(v as f64),
    Some
);

/// Bytes in base64, with the usual or the URL alphabet, padded or not.
#[derive(Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let read = |text: &str| {
            let plain: String = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
            data_encoding::BASE64_NOPAD
                .decode(plain.as_bytes())
                .map(Bytes)
                .map_err(|e| D::Error::custom(format_args!("`bytesValue` is not base64: {e}")))
        };
        Text(read).deserialize(d)?.unwrap_or_else(|| Ok(Self::default()))
    }
}
