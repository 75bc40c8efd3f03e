//! A deviation as people write it: `50ms`, `5%`, `10MB`, `0.05`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::config::{ByteSize, Duration};

/// A deviation as it is written; [`Amount::read`] tells what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount(String);

/// A number in the unit of the series that it is compared with, or a time, a size or a share in a unit of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Meant {
    /// In the series' own unit.
    Plain(f64),
    /// Seconds.
    Time(f64),
    /// Bytes.
    Size(f64),
    /// A share: 0.05 for `5%`.
    Share(f64),
}

impl Amount {
    /// What it means, or a sentence why it means nothing.
    pub(super) fn read(&self) -> Result<Meant, String> {
        Meant::parse(&self.0)
    }
}

impl Meant {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!(
                "`{text}` is not an amount: expected a number in the series' own unit, or one with a unit, such as `50ms`, `10MB` or `5%`"
            )
        };
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|n| n.is_finite());
        let amount = if let Some(share) = text.strip_suffix('%') {
            Self::Share(number(share).ok_or_else(wrong)? / 100.0)
        } else if let Some(plain) = number(text) {
            Self::Plain(plain)
        } else if let Ok(time) = text.parse::<Duration>() {
            Self::Time(time.get().as_secs_f64())
        } else {
            Self::Size(text.parse::<ByteSize>().map_err(|_| wrong())?.bytes() as f64)
        };
        let (Self::Plain(n) | Self::Share(n) | Self::Time(n) | Self::Size(n)) = amount;
        if n < 0.0 {
            Err(format!("`{text}` is below 0: expected how far a value must be away, without a sign"))
        } else {
            Ok(amount)
        }
    }

    /// In `unit` (UCUM); `None` where the two do not go together, such as a time and a series of bytes.
    pub(super) fn within(self, unit: &str) -> Option<f64> {
        match self {
            Self::Plain(n) => Some(n),
            Self::Share(n) => match unit {
                "1" | "" => Some(n),
                "%" => Some(n * 100.0),
                _ => None,
            },
            Self::Time(seconds) => {
                let (_, per) =
                    [("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("min", 60.0), ("h", 3600.0), ("d", 86_400.0)]
                        .into_iter()
                        .find(|(name, _)| *name == unit)?;
                Some(seconds / per)
            }
            Self::Size(bytes) => {
                let (_, per) = [("By", 1.0), ("By/s", 1.0), ("KiBy", 1024.0), ("MiBy", 1_048_576.0)]
                    .into_iter()
                    .find(|(name, _)| *name == unit)?;
                Some(bytes / per)
            }
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written<'a> {
            Number(f64),
            Text(#[serde(borrow)] Cow<'a, str>),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text.into_owned(),
        }))
    }
}

impl JsonSchema for Amount {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["number", "string"], "examples": [0.05, "50ms", "10MB", "5%"] })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        for (text, amount) in [
            ("0.05", Meant::Plain(0.05)),
            ("50ms", Meant::Time(0.05)),
            ("1h 30m", Meant::Time(5400.0)),
            ("5%", Meant::Share(0.05)),
            ("10MB", Meant::Size(1e7)),
        ] {
            assert_eq!(Meant::parse(text), Ok(amount), "{text}");
        }
        let refused: Vec<String> = ["soon", "-5", "-5%", "5 parsecs", ""].map(|t| Meant::parse(t).unwrap_err()).into();
        insta::assert_snapshot!(refused.join("\n"));
    }

    #[test]
    fn an_amount_counts_only_where_its_unit_fits() {
        assert_eq!(Meant::Time(0.05).within("s"), Some(0.05));
        assert_eq!(Meant::Time(0.05).within("ms"), Some(50.0));
        assert_eq!(Meant::Time(0.05).within("By"), None);
        assert_eq!(Meant::Share(0.05).within("%"), Some(5.0));
        assert_eq!(Meant::Size(2048.0).within("KiBy"), Some(2.0));
        assert_eq!(Meant::Plain(3.0).within("{request}/s"), Some(3.0));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange_to_refuse(text: String) {
            let _ = Meant::parse(&text);
        }
    }
}
