//! Positions that consumers hold: cursors of the watch and continue tokens of the list.
//!
//! Owns: their text, opaque to consumers. A cursor is `epoch.sequence`; a continue token carries
//! the cursor from before page one, the filter and the last key: `epoch.sequence.type.key` with
//! the key in hex.
//!
//! Never here: a position of another epoch taken for one of ours.

use super::problem::Problem;
use crate::api::{EntityKey, NotificationType};
use crate::state::{Epoch, Sequence};

const AS_GIVEN: &str = "send a cursor as the feed gave it, or `latest`, or leave it out";
const TOKEN_AS_GIVEN: &str = "send `continue` as the page before gave it, or begin a new list";

/// The text of a cursor.
pub(super) fn cursor(epoch: &Epoch, sequence: Sequence) -> String {
    format!("{}.{sequence}", epoch.0)
}

/// Reads a cursor; `name` is where it stood.
pub(super) fn parse_cursor(name: &str, text: &str, epoch: &Epoch) -> Result<Sequence, Problem> {
    let wrong = || Problem::parameter(name, "this is no cursor of a feed", AS_GIVEN);
    let (of, sequence) = text.split_once('.').ok_or_else(wrong)?;
    let sequence = parse_sequence(sequence).ok_or_else(wrong)?;
    if of.is_empty() || !of.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(wrong());
    }
    if of == epoch.0 {
        Ok(sequence)
    } else {
        Err(Problem::other_epoch())
    }
}

/// Digits only: `u64::from_str` would take a plus sign. Stores count in signed 64 bits.
fn parse_sequence(text: &str) -> Option<Sequence> {
    let number = text
        .parse()
        .ok()
        .filter(|number| i64::try_from(*number).is_ok())?;
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then_some(number)
}

/// The text of a continue token.
pub(super) fn continue_token(
    epoch: &Epoch,
    sequence: Sequence,
    kind: Option<NotificationType>,
    after: &EntityKey,
) -> String {
    let kind = kind.map_or("all", NotificationType::segment);
    let after = hex::encode(after.as_str());
    format!("{}.{sequence}.{kind}.{after}", epoch.0)
}

/// Reads a continue token of a list with the same filter.
pub(super) fn parse_continue(
    text: &str,
    epoch: &Epoch,
    kind: Option<NotificationType>,
) -> Result<(Sequence, EntityKey), Problem> {
    let wrong = || {
        Problem::parameter(
            "continue",
            "this is no continue token of a feed",
            TOKEN_AS_GIVEN,
        )
    };
    let parts: Vec<&str> = text.split('.').collect();
    let [of, sequence, filter, after] = parts[..] else {
        return Err(wrong());
    };
    let sequence = parse_cursor("continue", &format!("{of}.{sequence}"), epoch)?;
    let after = hex::decode(after)
        .ok()
        .and_then(|key| String::from_utf8(key).ok());
    let after = after.and_then(|key| key.parse().ok()).ok_or_else(wrong)?;
    if filter != kind.map_or("all", NotificationType::segment) {
        return Err(Problem::parameter(
            "continue",
            "it belongs to a list with another `type`",
            TOKEN_AS_GIVEN,
        ));
    }
    Ok((sequence, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_position_is_refused_and_another_epoch_is_gone() {
        let epoch = Epoch("00000000000000ab".into());
        assert_eq!(
            parse_cursor("after", &cursor(&epoch, 12), &epoch).unwrap(),
            12
        );
        for text in [
            "",
            "12",
            ".12",
            "00000000000000ab.",
            "00000000000000ab.+1",
            "a b.1",
            "00000000000000ab.-1",
            "00000000000000ab.18446744073709551615",
            "00000000000000ab.1.2",
        ] {
            let problem = parse_cursor("after", text, &epoch).unwrap_err();
            assert_eq!(problem.status.as_u16(), 400, "{text}");
        }
        let problem = parse_cursor("after", "00000000000000ac.12", &epoch).unwrap_err();
        assert_eq!(
            (problem.status.as_u16(), problem.code),
            (410, "EpochChanged")
        );

        let key: EntityKey = "booking/b.1 é".parse().unwrap();
        let kind = Some(NotificationType::Booking);
        let token = continue_token(&epoch, 9, kind, &key);
        assert_eq!(parse_continue(&token, &epoch, kind).unwrap(), (9, key));
        assert!(parse_continue(&token, &epoch, None).is_err());
        assert!(parse_continue("00000000000000ab.9.all.zz", &epoch, None).is_err());
    }
}
