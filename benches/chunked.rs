//! Answers that come in chunks (RFC 9112, section 7.1), for the clients of both benches.

/// The chunks of a body as one, if all of them are there.
pub(crate) fn joined(mut sent: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::with_capacity(sent.len());
    loop {
        let line = sent.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&sent[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        let chunk = sent.get(line + 2..line + 2 + size)?;
        sent = sent.get(line + 2 + size + 2..)?;
        body.extend(chunk);
        if size == 0 {
            return Some(body);
        }
    }
}
