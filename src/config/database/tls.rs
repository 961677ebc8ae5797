//! TLS to the database: modes as libpq has them, and files that are looked at before the driver
//! reads them, since its errors do not name them.

use std::fs;

use super::Parameters;

const MODES: &[&str] = &[
    "disable",
    "allow",
    "prefer",
    "require",
    "verify-ca",
    "verify-full",
];

/// Check the TLS parameters and fill in what libpq would take them for.
pub(super) fn check(parameters: &mut Parameters) -> Result<(), String> {
    let mut mode = parameters.get("sslmode").map(String::as_str);
    if mode.is_some_and(|mode| !MODES.contains(&mode)) {
        return Err(format!(
            "has an sslmode (or PGSSLMODE) that is none of {}",
            MODES.join(", ")
        ));
    }
    if parameters
        .get("host")
        .is_some_and(|host| host.starts_with('/'))
    {
        // a socket has no TLS, whatever is asked for
        mode = Some("disable");
    }
    match (
        parameters.contains_key("sslcert"),
        parameters.contains_key("sslkey"),
    ) {
        (true, false) => return Err("has an sslcert without an sslkey".to_owned()),
        (false, true) => return Err("has an sslkey without an sslcert".to_owned()),
        _ => {}
    }
    let roots = parameters.get("sslrootcert").map(String::as_str);
    let mode = match (mode, roots) {
        (None | Some("verify-full"), Some("system")) => "verify-full",
        (Some(other), Some("system")) if other != "disable" => {
            return Err(format!(
                "has sslrootcert=system, which needs sslmode=verify-full, not {other}"
            ));
        }
        // a file of roots is there to be used
        (Some("require"), Some(_)) => "verify-ca",
        // the driver has no allow: TLS where there is some suits who allows both
        (None | Some("allow"), _) => "prefer",
        (Some(mode), _) => mode,
    }
    .to_owned();
    if mode == "disable" {
        parameters.retain(|name, _| !name.starts_with("ssl"));
    }
    if roots_are_used(&mode) {
        if parameters
            .get("sslrootcert")
            .is_some_and(|roots| roots == "system")
        {
            parameters.remove("sslrootcert");
        }
        check_roots(parameters)?;
    } else {
        parameters.remove("sslrootcert");
    }
    if let Some(file) = parameters.get("sslcert") {
        check_file("sslcert", file, "CERTIFICATE-----")?;
    }
    if let Some(file) = parameters.get("sslkey") {
        check_file("sslkey", file, "PRIVATE KEY-----")?;
    }
    parameters.insert("sslmode".to_owned(), mode);
    Ok(())
}

fn roots_are_used(mode: &str) -> bool {
    matches!(mode, "verify-ca" | "verify-full")
}

/// The file that was given, else the one that stands for the system's.
fn check_roots(parameters: &Parameters) -> Result<(), String> {
    let variable = std::env::var("SSL_CERT_FILE").ok();
    match (parameters.get("sslrootcert"), variable) {
        (Some(file), _) => check_file("sslrootcert", file, "-----BEGIN CERTIFICATE-----"),
        (None, Some(file)) if !file.is_empty() => {
            check_file("SSL_CERT_FILE", &file, "-----BEGIN CERTIFICATE-----")
        }
        _ => Ok(()),
    }
}

fn check_file(what: &str, file: &str, marker: &str) -> Result<(), String> {
    // the text itself instead of a file
    if file.contains("-----BEGIN") {
        return Ok(());
    }
    let text = fs::read(file)
        .map_err(|error| format!("needs {what} {file}, which cannot be read: {error}"))?;
    let text = String::from_utf8_lossy(&text);
    if !text.contains(marker) {
        let kind = marker.trim_matches('-').trim_start_matches("BEGIN ");
        return Err(format!(
            "needs {what} {file} to hold a {} in PEM form",
            kind.to_lowercase()
        ));
    }
    if text.contains("ENCRYPTED") {
        return Err(format!(
            "needs {what} {file} without a passphrase: openssl pkey -in {file} -out NEW_FILE"
        ));
    }
    Ok(())
}
