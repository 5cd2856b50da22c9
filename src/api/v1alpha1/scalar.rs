//! Texts with a meaning of their own: durations, percentages, sizes.
//!
//! Owns: how they are written, read and described in the schema. Each keeps the text that was
//! given, right or wrong, so that an object with a bad one can still be decoded, listed and
//! reported (`validate` says what is wrong); the value comes out as an `Option`.
//!
//! Never here: an error while decoding an object.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A text that keeps its spelling: `Serialize`, `Deserialize` and `Display` are the text itself.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// From its text, which may be wrong: the value is then `None`.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// A duration as in Go: `90s`, `24h`, `1h30m`, `500ms`. One to four parts of a whole number
    /// of up to five digits and a unit of h, m, s or ms (the subset that the Gateway API chose).
    GoDuration
}

impl GoDuration {
    /// What the schema says of every duration.
    pub const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

    /// The duration; `None` when the text is none.
    pub fn get(&self) -> Option<Duration> {
        let mut rest = self.0.as_str();
        let mut total = Duration::ZERO;
        for part in 0.. {
            if rest.is_empty() {
                return (part > 0).then_some(total);
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if part == 4 || !(1..=5).contains(&digits) {
                return None;
            }
            let number: u64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let (unit, millis) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))?;
            rest = &rest[unit.len()..];
            total += Duration::from_millis(number * millis);
        }
        None
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "GoDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 2, "maxLength": 28, "pattern": Self::PATTERN })
    }
}

text! {
    /// A whole percentage with its sign: `10%`.
    Percent
}

impl Percent {
    /// What the schema says of every percentage.
    pub const PATTERN: &str = "^(100|[1-9]?[0-9])%$";

    /// 0 to 100; `None` when the text is no percentage.
    pub fn get(&self) -> Option<u32> {
        let digits = self.0.strip_suffix('%')?;
        if digits.starts_with('+') || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        digits.parse().ok().filter(|percent| *percent <= 100)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 4, "pattern": Self::PATTERN })
    }
}

text! {
    /// A size in bytes as a Kubernetes quantity: `1Gi`, `500Mi`, `20G`.
    Size
}

impl Size {
    /// What the schema says of every size.
    pub const PATTERN: &str = "^[1-9][0-9]{0,5}(Mi|Gi|Ti|M|G|T)$";

    /// Bytes; `None` when the text is no size.
    pub fn get(&self) -> Option<u64> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = self.0.split_at(digits);
        if !(1..=6).contains(&digits) || number.starts_with('0') {
            return None;
        }
        let factor: u64 = match unit {
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            _ => return None,
        };
        number.parse::<u64>().ok().map(|number| number * factor)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 8, "pattern": Self::PATTERN })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        // Oracle: Go's time.ParseDuration, by hand.
        for (text, millis) in [
            ("90s", 90_000),
            ("24h", 86_400_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("0s", 0),
            ("1m1ms", 60_001),
            ("1s1s", 2_000),
            ("99999h99999h99999h99999h", 1_439_985_600_000),
        ] {
            assert_eq!(
                GoDuration::new(text).get(),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "1",
            "s",
            "1d",
            "1.5h",
            "-1s",
            "+1s",
            " 1s",
            "1s ",
            "1 s",
            "100000s",
            "1h1m1s1ms1ms",
            "1us",
            "1H",
        ] {
            assert_eq!(GoDuration::new(text).get(), None, "{text}");
        }
    }

    #[test]
    fn percentages_and_sizes() {
        for (text, value) in [("0%", Some(0)), ("10%", Some(10)), ("100%", Some(100))] {
            assert_eq!(Percent::new(text).get(), value, "{text}");
        }
        for text in ["", "%", "10", "101%", "010%", "+1%", "-1%", "1.5%", "00%"] {
            assert_eq!(Percent::new(text).get(), None, "{text}");
        }
        for (text, value) in [
            ("1Gi", 1_073_741_824),
            ("500Mi", 524_288_000),
            ("20G", 20_000_000_000),
            ("2Ti", 2_199_023_255_552),
        ] {
            assert_eq!(Size::new(text).get(), Some(value), "{text}");
        }
        for text in [
            "",
            "1",
            "0Gi",
            "01Gi",
            "1gi",
            "1Ki",
            "1.5Gi",
            "1 Gi",
            "Gi",
            "1000000Mi",
        ] {
            assert_eq!(Size::new(text).get(), None, "{text}");
        }
    }
}
