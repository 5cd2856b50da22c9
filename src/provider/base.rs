//! Base URLs of the provider, and paths below them.
//!
//! Owns: what a base URL may be, and the percent-encoding of identifiers.
//! Never here: an identifier that changes the structure of a path.

use std::fmt;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::api::entity::{InvalidIdentifier, check_identifier};

/// All but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why a text is no base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// Not a URL at all, or without a host.
    #[error("it is not a URL; write it as https://host/path")]
    NotAUrl,
    /// Neither http nor https.
    #[error("its scheme is neither https nor http; write https://…")]
    Scheme,
    /// With user name or password.
    #[error("it holds a user name or password; the provider's keys belong in the Secret")]
    UserInfo,
    /// With query or fragment.
    #[error("it has a query or a fragment; write scheme, host and path only")]
    Extra,
    /// Plain http to another machine.
    #[error(
        "it is plain http to another machine, which would send the API keys in clear text; use https, or allow plain http on purpose"
    )]
    Plain,
}

/// A checked base URL, without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BaseUrl(String);

impl BaseUrl {
    /// Checks a base URL. Plain http is taken for this machine (`localhost`, `127.0.0.0/8`, `[::1]`),
    /// or for any if `allow_plain_http`.
    ///
    /// # Errors
    /// What is wrong and what to write instead; never repeats the text, which may hold a password.
    pub fn parse(text: &str, allow_plain_http: bool) -> Result<Self, InvalidBaseUrl> {
        let url = reqwest::Url::parse(text).map_err(|_| InvalidBaseUrl::NotAUrl)?;
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            _ => return Err(InvalidBaseUrl::Scheme),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidBaseUrl::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidBaseUrl::Extra);
        }
        let host = url.host_str().ok_or(InvalidBaseUrl::NotAUrl)?;
        if plain && !allow_plain_http && !is_this_machine(host) {
            return Err(InvalidBaseUrl::Plain);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Appends `/` and an identifier as one path segment.
pub(super) fn push_segment(url: &mut String, id: &str) -> Result<(), InvalidIdentifier> {
    check_identifier(id)?;
    url.push('/');
    url.extend(utf8_percent_encode(id, ENCODED));
    Ok(())
}

/// Appends an identifier as the value of a query parameter.
pub(super) fn push_value(url: &mut String, id: &str) -> Result<(), InvalidIdentifier> {
    check_identifier(id)?;
    url.extend(utf8_percent_encode(id, ENCODED));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_anywhere_and_http_on_this_machine() {
        for (text, expected) in [
            (
                "https://booking.redeam.io/v1.3",
                "https://booking.redeam.io/v1.3",
            ),
            (
                "https://booking.redeam.io/v1.3/",
                "https://booking.redeam.io/v1.3",
            ),
            ("http://127.0.0.1:9000/v1.3", "http://127.0.0.1:9000/v1.3"),
            ("http://localhost", "http://localhost"),
            ("http://[::1]:1/", "http://[::1]:1"),
        ] {
            assert_eq!(BaseUrl::parse(text, false).unwrap().as_str(), expected);
        }
        for (text, error) in [
            ("", InvalidBaseUrl::NotAUrl),
            ("booking.redeam.io", InvalidBaseUrl::NotAUrl),
            ("ftp://host/", InvalidBaseUrl::Scheme),
            ("https://user:pw@host/", InvalidBaseUrl::UserInfo),
            ("https://host/?a=b", InvalidBaseUrl::Extra),
            ("https://host/#a", InvalidBaseUrl::Extra),
            ("http://provider.example/v1.3", InvalidBaseUrl::Plain),
            ("http://127.0.0.1.example/", InvalidBaseUrl::Plain),
            ("http://10.0.0.1/", InvalidBaseUrl::Plain),
        ] {
            assert_eq!(BaseUrl::parse(text, false), Err(error), "{text}");
        }
        assert!(BaseUrl::parse("http://simulator:9000/v1.3", true).is_ok());
    }

    #[test]
    fn an_identifier_stays_one_segment() {
        for (id, expected) in [
            ("a-b_c.d~e", "/a-b_c.d~e"),
            ("a b", "/a%20b"),
            ("%2e%2e", "/%252e%252e"),
            ("a?b#c&d=e;f+g", "/a%3Fb%23c%26d%3De%3Bf%2Bg"),
            ("a\\b", "/a%5Cb"),
            ("é", "/%C3%A9"),
        ] {
            let mut path = String::new();
            push_segment(&mut path, id).unwrap();
            assert_eq!(path, expected);
            let url = reqwest::Url::parse(&format!("http://h/x{path}/y")).unwrap();
            assert_eq!(url.path(), format!("/x{expected}/y"));
            assert!(url.query().is_none() && url.fragment().is_none());
        }
        for id in ["", ".", "..", "a/b", "a\nb"] {
            assert!(push_segment(&mut String::new(), id).is_err(), "{id:?}");
        }
    }
}
