//! A reader of protobuf's wire format over borrowed bytes: nothing is copied, nothing is allocated.
//!
//! Source: "Encoding" of the protobuf documentation. Fields that are not known are skipped by their wire type,
//! groups included. Known fields of another wire type than declared are an error, as in Go's and prost's readers.

use super::build::DecodeError;

/// How deep unknown groups may nest; no OTLP message has one.
const MAX_GROUPS: u32 = 32;

/// One message, read field by field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Where `rest` begins in the request, for error messages.
    at: usize,
}

/// The value of one field, not yet looked into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    value: Wire<'a>,
    /// Where its bytes begin; of other wire types, where its tag begins.
    at: usize,
}

#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32,
    Bytes(&'a [u8]),
}

impl Wire<'_> {
    const fn name(self) -> &'static str {
        match self {
            Self::Varint(_) => "a varint",
            Self::Fixed64(_) => "8 fixed bytes",
            Self::Fixed32 => "4 fixed bytes",
            Self::Bytes(_) => "a length and bytes",
        }
    }
}

fn malformed(at: usize, what: impl std::fmt::Display) -> DecodeError {
    DecodeError::Malformed(format!("at byte {at}: {what}"))
}

impl<'a> Reader<'a> {
    /// Reads a whole request.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, at: 0 }
    }

    fn take(&mut self, n: usize, what: &str) -> Result<&'a [u8], DecodeError> {
        let Some((head, tail)) = self.rest.split_at_checked(n) else {
            return Err(malformed(
                self.at,
                format_args!("the protobuf message is cut off: {what} needs {n} bytes, {} are left", self.rest.len()),
            ));
        };
        self.rest = tail;
        self.at += n;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N, what)?);
        Ok(value)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds the 64th bit only.
            if i == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = self.rest.get(i + 1..).unwrap_or(&[]);
                self.at += i + 1;
                return Ok(value);
            }
        }
        let what =
            if self.rest.len() < 10 { "the protobuf message is cut off in a varint" } else { "a varint has more than 64 bits" };
        Err(malformed(self.at, what))
    }

    fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let at = self.at;
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
        let number = number.ok_or_else(|| malformed(at, format_args!("{key:#x} is not a protobuf field tag")))?;
        Ok((number, (key & 7) as u8))
    }

    /// The number and value of the next field, `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Field<'a>)>, DecodeError> {
        let mut groups: u32 = 0;
        while !self.rest.is_empty() {
            let at = self.at;
            let (number, kind) = self.tag()?;
            let value = match kind {
                0 => Wire::Varint(self.varint()?),
                1 => Wire::Fixed64(self.fixed("a fixed64 field")?),
                2 => {
                    let length = self.varint()?;
                    let length = usize::try_from(length).unwrap_or(usize::MAX);
                    Wire::Bytes(self.take(length, "a length-delimited field")?)
                }
                3 if groups < MAX_GROUPS => {
                    groups += 1;
                    continue;
                }
                4 if groups > 0 => {
                    groups -= 1;
                    continue;
                }
                5 => {
                    self.take(4, "a fixed32 field")?;
                    Wire::Fixed32
                }
                _ => return Err(malformed(at, format_args!("wire type {kind} of field {number} is not protobuf"))),
            };
            if groups == 0 {
                let at = if let Wire::Bytes(bytes) = value { self.at - bytes.len() } else { at };
                return Ok(Some((number, Field { value, at })));
            }
        }
        if groups > 0 { Err(malformed(self.at, "the protobuf message is cut off in a group")) } else { Ok(None) }
    }
}

impl<'a> Field<'a> {
    fn wrong<T>(&self, name: &str, expected: &str) -> Result<T, DecodeError> {
        Err(malformed(self.at, format_args!("`{name}` is {}, expected {expected}", self.value.name())))
    }

    /// A varint: uint64, int64, int32, enum.
    pub(super) fn varint(&self, name: &str) -> Result<u64, DecodeError> {
        match self.value {
            Wire::Varint(v) => Ok(v),
            _ => self.wrong(name, "a varint"),
        }
    }

    /// An int32 or enum: as other readers do, only the low 32 bits count.
    pub(super) fn int32(&self, name: &str) -> Result<i32, DecodeError> {
        self.varint(name).map(|v| v as i32)
    }

    /// A sint32 (zigzag).
    pub(super) fn sint32(&self, name: &str) -> Result<i32, DecodeError> {
        self.varint(name).map(|v| {
            let v = v as u32;
            (v >> 1) as i32 ^ -((v & 1) as i32)
        })
    }

    /// A fixed64.
    pub(super) fn fixed64(&self, name: &str) -> Result<u64, DecodeError> {
        match self.value {
            Wire::Fixed64(v) => Ok(u64::from_le_bytes(v)),
            _ => self.wrong(name, "8 fixed bytes"),
        }
    }

    /// A double.
    pub(super) fn double(&self, name: &str) -> Result<f64, DecodeError> {
        self.fixed64(name).map(f64::from_bits)
    }

    /// Bytes.
    pub(super) fn bytes(&self, name: &str) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Wire::Bytes(v) => Ok(v),
            _ => self.wrong(name, "a length and bytes"),
        }
    }

    /// A string, which protobuf wants to be UTF-8.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(name)?)
            .map_err(|e| malformed(self.at, format_args!("`{name}` is not valid UTF-8 (after {} good bytes)", e.valid_up_to())))
    }

    /// A message.
    pub(super) fn message(&self, name: &str) -> Result<Reader<'a>, DecodeError> {
        self.bytes(name).map(|rest| Reader { rest, at: self.at })
    }

    /// An id of `N` bytes; absent or empty is zeros.
    pub(super) fn id<const N: usize>(&self, name: &str) -> Result<[u8; N], DecodeError> {
        let bytes = self.bytes(name)?;
        match bytes.try_into() {
            Ok(id) => Ok(id),
            Err(_) if bytes.is_empty() => Ok([0; N]),
            Err(_) => Err(malformed(self.at, format_args!("`{name}` has {} bytes, expected {N} or none", bytes.len()))),
        }
    }

    /// All of a repeated fixed64 (or double, as bits), packed or not.
    pub(super) fn each_fixed64(
        &self,
        name: &str,
        mut each: impl FnMut(u64) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let Wire::Bytes(bytes) = self.value else { return each(self.fixed64(name)?) };
        let (values, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(malformed(self.at, format_args!("`{name}` has {} bytes, expected a multiple of 8", bytes.len())));
        }
        values.iter().try_for_each(|v| each(u64::from_le_bytes(*v)))
    }

    /// All of a repeated varint, packed or not.
    pub(super) fn each_varint(
        &self,
        name: &str,
        mut each: impl FnMut(u64) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let Wire::Bytes(rest) = self.value else { return each(self.varint(name)?) };
        let mut reader = Reader { rest, at: self.at };
        while !reader.rest.is_empty() {
            each(reader.varint()?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn walk(bytes: &[u8]) -> Result<Vec<u32>, String> {
        let mut reader = Reader::new(bytes);
        let mut numbers = Vec::new();
        while let Some((number, _)) = reader.next().map_err(|e| e.to_string())? {
            numbers.push(number);
        }
        Ok(numbers)
    }

    #[test]
    fn fields_of_every_wire_type_are_passed_and_unknown_groups_skipped() {
        let bytes = [0x08, 0x96, 0x01, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x1a, 1, b'x', 0x23, 0x08, 1, 0x24, 0x2d, 1, 2, 3, 4];
        assert_eq!(walk(&bytes).unwrap(), [1, 2, 3, 5]);
    }

    #[test]
    fn broken_messages_are_errors_that_say_where() {
        let messages: Vec<String> = [
            &[0x08][..],
            &[0x0a, 5, b'x'],
            &[0x00],
            &[0x0c],
            &[0x0b, 0x08, 1],
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
        ]
        .iter()
        .map(|b| walk(b).unwrap_err())
        .collect();
        insta::assert_snapshot!(messages.join("\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = walk(&bytes);
        }
    }
}
