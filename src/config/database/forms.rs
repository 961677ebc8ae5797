//! The two forms of an address as libpq's parameters: a URL, `keyword=value`.

use percent_encoding::percent_decode_str;

use super::{FORM, SEVERAL};

type Given = Vec<(String, String)>;

/// The parameters of an address, in their order.
pub(super) fn parameters(address: &str) -> Result<Given, String> {
    match address.split_once("://") {
        Some((scheme, rest)) if is_ours(scheme) => of_url(rest),
        None if address.contains('=') => of_keywords(address),
        _ => Err(FORM.to_owned()),
    }
}

/// `postgresql+psycopg` and its like name a driver of Python.
fn is_ours(scheme: &str) -> bool {
    let name = scheme.split_once('+').map_or(scheme, |(name, _)| name);
    ["postgresql", "postgres"]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
}

fn of_url(rest: &str) -> Result<Given, String> {
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
    // else the rest of a password is taken for a database or a parameter, and may be shown
    if rest.contains('#') || path.contains('@') {
        return Err(
            "has a # or an @ after the host; in a password, write %23 for #, %40 for @, %2F for /"
                .to_owned(),
        );
    }
    let mut given = Given::new();
    let mut add = |name: &str, value: &str| -> Result<(), String> {
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| FORM.to_owned())?;
        if !value.is_empty() {
            given.push((name.to_owned(), value.into_owned()));
        }
        Ok(())
    };
    let (userinfo, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if host.contains(',') {
        return Err(SEVERAL.to_owned());
    }
    let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((host, port)) => (host, port.trim_start_matches(':')),
        None => host.rsplit_once(':').unwrap_or((host, "")),
    };
    add("user", user)?;
    add("password", password)?;
    add("host", host)?;
    add("port", port)?;
    add("dbname", path.trim_start_matches('/'))?;
    let parameters: Given = serde_urlencoded::from_str(query).map_err(|_| FORM.to_owned())?;
    given.extend(parameters);
    Ok(given)
}

/// `name=value name='value with a space, a \' or a \\'`.
fn of_keywords(text: &str) -> Result<Given, String> {
    let mut given = Given::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, value) = rest.split_once('=').ok_or_else(|| FORM.to_owned())?;
        let (value, after) = keyword_value(value.trim_start())?;
        given.push((name.trim().to_owned(), value));
        rest = after.trim_start();
    }
    Ok(given)
}

fn keyword_value(text: &str) -> Result<(String, &str), String> {
    let (quoted, text) = match text.strip_prefix('\'') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {
                value.push(character);
                escaped = false;
            }
            '\\' => escaped = true,
            '\'' if quoted => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            _ if !quoted && character.is_whitespace() => {
                return Ok((value, text.get(at..).unwrap_or_default()));
            }
            _ => value.push(character),
        }
    }
    if quoted {
        return Err("has a quote that is not closed".to_owned());
    }
    Ok((value, ""))
}
