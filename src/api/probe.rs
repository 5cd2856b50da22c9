//! The probe of the public URL: the question that the operator sends through the internet, and the
//! answer that only our receiver can give.
//!
//! Owns: both texts and their proofs. Both are HMAC-SHA256 under the *probe key*, which is random,
//! belongs to one subscription and is used for nothing else: it is never a rule's key, so whoever
//! answers at the URL gains no signature that could pass for a notification's.
//!
//! | text | form |
//! |---|---|
//! | question | header `bellhop-probe: v1 NONCE PROOF PLACE`; `PLACE` is host and path as asked |
//! | answer | body `bellhop-probe v1 WORD PROOF`, one line |
//! | an answer that proves nothing | body `bellhop-probe v1 WORD`, one line |
//!
//! The question is proven too: a receiver signs nothing for a stranger, and whoever has no key
//! cannot use up the probe's share of its time.
//!
//! Never here: IO, randomness, a word of an answer that could not be written down here before.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::secrets::Secret;

/// The probe key's file, beside those of the rules' keys.
pub const KEY_FILE: &str = "probe";

/// The header that makes a request a probe.
pub const HEADER: &str = "bellhop-probe";

/// The longest answer that is read.
pub const MAX_ANSWER: usize = 4096;

/// The longest header value that is looked at: a place is a `url` and a bit.
const MAX_QUESTION: usize = 4096;

const VERSION: &str = "v1";

/// Random bytes of one question.
pub type Nonce = [u8; 32];

/// What is asked: "does a request to this place reach you?"
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    nonce: Nonce,
    place: String,
}

/// What a receiver says to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// Proven: it came to me, and a notification on this way would find its rule.
    Routed,
    /// Proven: it came to me under a path that names no rule.
    Unrouted,
    /// I have no probe key yet.
    NoKey,
    /// The question is not proven by a key that I have.
    OtherKey,
    /// Too many probes.
    Busy,
}

impl Answer {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Routed,
        Self::Unrouted,
        Self::NoKey,
        Self::OtherKey,
        Self::Busy,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Unrouted => "unrouted",
            Self::NoKey => "no-key",
            Self::OtherKey => "other-key",
            Self::Busy => "busy",
        }
    }

    const fn is_proven(self) -> bool {
        matches!(self, Self::Routed | Self::Unrouted)
    }

    /// The body that says so. Unproven ones need no key.
    pub fn body(self, question: &Question, key: Option<&Secret>) -> String {
        let word = self.as_str();
        match key.filter(|_| self.is_proven()) {
            Some(key) => {
                let proof = hex::encode(question.mac(key, word).finalize().into_bytes());
                format!("{HEADER} {VERSION} {word} {proof}\n")
            }
            None => format!("{HEADER} {VERSION} {word}\n"),
        }
    }

    /// Reads an answer to `question`. `None`: not our receiver's, as far as can be told.
    pub fn read(body: &[u8], question: &Question, key: &Secret) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim_ascii_end();
        let mut words = text.split(' ');
        if words.next()? != HEADER || words.next()? != VERSION {
            return None;
        }
        let word = words.next()?;
        let answer = Self::ALL.into_iter().find(|one| one.as_str() == word)?;
        let proof = words.next();
        let fits = match proof {
            Some(proof) => answer.is_proven() && question.is_proof(key, word, proof),
            None => !answer.is_proven(),
        };
        (fits && words.next().is_none()).then_some(answer)
    }
}

/// What the proof of a question is over, in the place of an answer's word.
const ASKED: &str = "asked";

impl Question {
    /// Asks about a place: host, port if it is not 443, and path, as in the URL.
    pub const fn new(nonce: Nonce, place: String) -> Self {
        Self { nonce, place }
    }

    /// Host and path as asked.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The value of [`HEADER`].
    pub fn header(&self, key: &Secret) -> String {
        let proof = hex::encode(self.mac(key, ASKED).finalize().into_bytes());
        format!(
            "{VERSION} {} {proof} {}",
            hex::encode(self.nonce),
            self.place
        )
    }

    /// Reads a header's value: the question and its proof, which [`Question::is_asked_by`] takes.
    /// `None`: no probe.
    pub fn read(header: &[u8]) -> Option<(Self, String)> {
        if header.len() > MAX_QUESTION {
            return None;
        }
        let text = std::str::from_utf8(header).ok()?;
        let mut words = text.splitn(4, ' ');
        if words.next()? != VERSION {
            return None;
        }
        let mut nonce = Nonce::default();
        hex::decode_to_slice(words.next()?, &mut nonce).ok()?;
        let proof = words.next()?.to_owned();
        let place = words.next()?.to_owned();
        Some((Self { nonce, place }, proof))
    }

    /// Whether somebody with this key asks.
    pub fn is_asked_by(&self, key: &Secret, proof: &str) -> bool {
        self.is_proof(key, ASKED, proof)
    }

    fn is_proof(&self, key: &Secret, word: &str, proof: &str) -> bool {
        hex::decode(proof).is_ok_and(|proof| self.mac(key, word).verify_slice(&proof).is_ok())
    }

    /// Over what it is for, nonce, place and word, each after its length, so that no two say the
    /// same by their joints. A notification's signature is over digits first: never over this.
    fn mac(&self, key: &Secret, word: &str) -> Hmac<Sha256> {
        let key = key.expose().as_bytes();
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
        for part in [
            HEADER.as_bytes(),
            VERSION.as_bytes(),
            &self.nonce,
            self.place.as_bytes(),
            word.as_bytes(),
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question::new(
            [7; 32],
            "hooks.example.com/redeam/booking/0123456789".to_owned(),
        )
    }

    /// Oracle: Python's hmac over the same length-prefixed parts.
    #[test]
    fn both_texts_are_the_documented_ones() {
        let key = Secret::new("probe key");
        assert_eq!(
            question().header(&key),
            "v1 0707070707070707070707070707070707070707070707070707070707070707 a000fef1c198e532567b4004b3d0b70729f6b86f05dd6563ff65bfceb1b0200c hooks.example.com/redeam/booking/0123456789"
        );
        assert_eq!(
            Answer::Routed.body(&question(), Some(&key)),
            "bellhop-probe v1 routed 19f9d68c9228aaec926504227f14040e387cf487f90ee9b0db0897065a528442\n"
        );
    }

    #[test]
    fn an_answer_is_believed_only_from_who_has_the_key_and_to_this_question() {
        let (key, other) = (Secret::new("probe key"), Secret::new("other key"));
        let again = Question::new([8; 32], question().place().to_owned());
        let elsewhere = Question::new([7; 32], "hooks.example.com/redeam".to_owned());
        for answer in [Answer::Routed, Answer::Unrouted] {
            let body = answer.body(&question(), Some(&key));
            assert_eq!(
                Answer::read(body.as_bytes(), &question(), &key),
                Some(answer)
            );
            assert_eq!(Answer::read(body.as_bytes(), &question(), &other), None);
            assert_eq!(Answer::read(body.as_bytes(), &again, &key), None);
            assert_eq!(Answer::read(body.as_bytes(), &elsewhere, &key), None);
        }
        let turned = Answer::Unrouted
            .body(&question(), Some(&key))
            .replace("unrouted", "routed");
        assert_eq!(Answer::read(turned.as_bytes(), &question(), &key), None);
        let unproven = Answer::Routed.body(&question(), None);
        assert_eq!(Answer::read(unproven.as_bytes(), &question(), &key), None);
        for (body, answer) in [
            ("bellhop-probe v1 no-key\n", Some(Answer::NoKey)),
            ("bellhop-probe v1 other-key", Some(Answer::OtherKey)),
            ("bellhop-probe v1 busy\r\n", Some(Answer::Busy)),
            ("bellhop-probe v2 busy\n", None),
            ("bellhop-probe v1 busy more\n", None),
            ("<html>bellhop-probe v1 busy</html>", None),
            ("", None),
        ] {
            assert_eq!(
                Answer::read(body.as_bytes(), &question(), &key),
                answer,
                "{body}"
            );
        }
    }

    #[test]
    fn a_question_is_read_back_and_its_proof_checked() {
        let (key, other) = (Secret::new("probe key"), Secret::new("other key"));
        let header = question().header(&key);
        let (read, proof) = Question::read(header.as_bytes()).unwrap();
        assert_eq!(read, question());
        assert!(read.is_asked_by(&key, &proof));
        assert!(!read.is_asked_by(&other, &proof));
        // The proof of an answer is none of a question: nothing can be reflected.
        let answer = Answer::Routed.body(&question(), Some(&key));
        let reflected = answer.trim_end().rsplit(' ').next().unwrap();
        assert!(!read.is_asked_by(&key, reflected));
        for bad in ["", "v1", "v1 00 00 x", "v2 07 00 x", &header[..70]] {
            assert_eq!(Question::read(bad.as_bytes()), None, "{bad}");
        }
    }
}
