//! What a text must look like: names, URLs, quantities. The patterns of the schema, in words.

use super::super::v1alpha1::limits::{self, DurationRange};

pub(super) fn not_a_duration(text: &str, range: DurationRange) -> String {
    format!(
        "`{}` is not a duration; write whole numbers of at most five digits with the units h, m, s and ms, such as `90s`, `24h` or `1h30m`, from {} to {}",
        excerpt(text),
        range.min,
        range.max
    )
}

/// At most the first 60 characters, on one line.
pub(super) fn excerpt(text: &str) -> String {
    let cut: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
    if cut.len() < text.len() {
        cut + "…"
    } else {
        cut
    }
}

pub(super) fn object_name(name: &str) -> Result<(), String> {
    if name.len() <= limits::NAME_MAX && is_dns_label(name) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name; {}",
        excerpt(name),
        limits::NAME_RULE.message
    ))
}

/// A DNS label that starts with a letter, as Services need it.
pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text.bytes().all(inner)
        && !text.ends_with('-')
}

pub(super) fn dns_label(text: &str) -> Result<(), String> {
    let rest = text
        .strip_prefix(|c: char| c.is_ascii_digit())
        .map_or_else(|| text.to_owned(), |rest| format!("a{rest}"));
    if is_dns_label(&rest) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name here; write 1 to 63 lowercase letters, digits and dashes, beginning and ending with a letter or digit",
        excerpt(text)
    ))
}

pub(super) fn dns_subdomain(text: &str) -> Result<(), String> {
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty()
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(());
    }
    Err(format!(
        "`{}` cannot be a name of an object; write 1 to 253 lowercase letters, digits, dashes and dots, beginning and ending with a letter or digit",
        excerpt(text)
    ))
}

pub(super) fn dns_subdomain_or_empty(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    dns_subdomain(text)
}

/// Every character that may stand in a path.
fn is_path_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(character)
}

/// Host, perhaps a port: `hooks.example.com:8443`.
fn authority(text: &str) -> Result<(), String> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let end = |c: char| c.is_ascii_alphanumeric();
    if !(host.chars().all(inner) && host.starts_with(end) && host.ends_with(end)) {
        return Err(format!(
            "`{}` is not a host; write a name such as `hooks.example.com`",
            excerpt(host)
        ));
    }
    if let Some(port) = port {
        let number = port.parse::<u16>().ok().filter(|number| *number > 0);
        if number.is_none_or(|number| number.to_string() != port) {
            return Err(format!(
                "`{}` is not a port; write a number from 1 to 65535",
                excerpt(port)
            ));
        }
    }
    Ok(())
}

/// Everything that is wrong with a public URL.
pub(super) fn public_url(url: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if url.len() > limits::URL_MAX {
        wrong.push(format!(
            "{} bytes; write at most {}",
            url.len(),
            limits::URL_MAX
        ));
    }
    let Some(rest) = url.strip_prefix("https://") else {
        wrong.push(limits::URL_HTTPS.message.to_owned());
        return wrong;
    };
    if rest.contains(['?', '#']) {
        wrong.push(limits::URL_QUERY.message.to_owned());
    }
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.contains('@') {
        wrong.push(limits::URL_USERINFO.message.to_owned());
    } else if let Err(problem) = authority(host) {
        wrong.push(problem);
    }
    if !path.chars().all(is_path_character) {
        wrong.push(
            "write a path of letters, digits and -._~!$&'()*+,;=:@% only, other characters percent-encoded"
                .to_owned(),
        );
    }
    if path.contains("//") {
        wrong.push("write the path without empty segments (`//`)".to_owned());
    }
    wrong
}

/// What is wrong with the address of a sink.
pub(super) fn sink_uri(uri: &str) -> Result<(), String> {
    if uri.len() > limits::URI_MAX {
        return Err(format!(
            "{} bytes; write at most {}",
            uri.len(),
            limits::URI_MAX
        ));
    }
    let rest = uri
        .strip_prefix("https://")
        .or_else(|| uri.strip_prefix("http://"))
        .ok_or("write an address that begins with http:// or https://")?;
    if rest.contains('#') {
        return Err("write the address without `#`: a fragment is never sent".into());
    }
    let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if host.contains('@') {
        return Err(
            "write the address without a user or password: put an `authorization` header into a Secret and name it in headersFrom"
                .into(),
        );
    }
    authority(host)?;
    path_and_query(path)
}

pub(super) fn path_and_query(text: &str) -> Result<(), String> {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query_ok = query.chars().all(|c| c == '?' || is_path_character(c));
    if path.chars().all(is_path_character) && query_ok {
        return Ok(());
    }
    Err(
        "write letters, digits and -._~!$&'()*+,;=:@%/ only, other characters percent-encoded"
            .into(),
    )
}

/// A non-negative Kubernetes quantity.
pub(super) fn is_quantity(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number = match number.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part),
        None => digits(number),
    };
    let units = [
        "", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let exponent = unit.strip_prefix(['e', 'E']).is_some_and(digits);
    text.len() <= 32 && number && (units.contains(&unit) || exponent)
}
