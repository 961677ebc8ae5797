//! Answers that come in chunks (RFC 9112, section 7.1), for the clients of both benches.

/// The chunks of a body as one, if all of them are there.
pub(crate) fn joined(mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(sent.len());
    loop {
        let (chunk, rest) = first(sent)?;
        body.extend(chunk);
        if chunk.is_empty() {
            return Some(body);
        }
        sent = rest;
    }
}

/// The first chunk, if all of it is there, and what comes after it; the last one is empty.
pub(crate) fn first(sent: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = sent.windows(2).position(|window| window == b"\r\n")?;
    let size = std::str::from_utf8(&sent[..line]).unwrap();
    let size = usize::from_str_radix(size, 16).unwrap();
    let chunk = sent.get(line + 2..line + 2 + size)?;
    let rest = sent.get(line + 2 + size + 2..)?;
    Some((chunk, rest))
}
