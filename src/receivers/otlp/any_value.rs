//! OTLP's `AnyValue`: what one holds, and how nested ones become JSON text.

use std::fmt::Write as _;

/// How deep arrays and maps may nest in a value.
pub(super) const MAX_DEPTH: u32 = 24;

/// A value while it is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Any<'a> {
    /// Nothing.
    Empty,
    /// Text.
    Str(&'a str),
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Double(f64),
    /// An array, a map or bytes, as JSON text.
    Json(&'a str),
}

/// A JSON string.
pub(super) fn write_text(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(text.get(plain..i).unwrap_or_default());
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain = i + 1;
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}

/// A JSON number; what JSON cannot say becomes a string, as protobuf's JSON mapping does it.
pub(super) fn write_double(value: f64, out: &mut String) {
    let _ = if value.is_finite() {
        write!(out, "{value:?}")
    } else if value.is_nan() {
        write!(out, "\"NaN\"")
    } else {
        write!(out, "\"{}Infinity\"", if value < 0.0 { "-" } else { "" })
    };
}

/// Bytes as a JSON string of base64.
pub(super) fn write_bytes(bytes: &[u8], out: &mut String) {
    out.push('"');
    data_encoding::BASE64.encode_append(bytes, out);
    out.push('"');
}

/// A value that is not nested.
pub(super) fn write_scalar(value: Any<'_>, out: &mut String) {
    let _ = match value {
        Any::Empty => write!(out, "null"),
        Any::Bool(v) => write!(out, "{v}"),
        Any::Int(v) => write!(out, "{v}"),
        Any::Double(v) => {
            write_double(v, out);
            Ok(())
        }
        Any::Str(v) => {
            write_text(v, out);
            Ok(())
        }
        Any::Json(v) => write!(out, "{v}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_and_number_becomes_the_json_that_reads_back_as_it(text in any::<String>(), number in any::<f64>()) {
            let mut out = String::new();
            write_text(&text, &mut out);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
            out.clear();
            write_double(number, &mut out);
            if number.is_finite() {
                prop_assert_eq!(serde_json::from_str::<f64>(&out).unwrap(), number);
            }
        }
    }
}
