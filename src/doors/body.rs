//! Reading request bodies: how long each may be, how long it may take, how many bytes at once.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt;

use crate::app::App;
use crate::budget::{Budget, Share};
use crate::error::Error;

/// Longest body of a token request.
pub const TOKEN: usize = 16 * 1024;
/// Longest body of settings and the like.
pub const SMALL: usize = 64 * 1024;
/// Longest body with a filter.
pub const FILTER: usize = 256 * 1024;
/// Longest body with a list of deliveries: 100,000 ids, or 1000 reasons of 1024 characters.
pub const LIST: usize = 5 * 1024 * 1024;
/// Longest body with messages to publish: as long as the settings say.
pub const PUBLISH: usize = usize::MAX;

/// For a whole body to arrive.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Read a body up to a limit; that of the settings holds too.
///
/// # Errors
/// 415 when it is compressed, 413 when it is longer, 408 when it does not arrive in time, 400 when the
/// client breaks off, 503 when there are too many bytes of others.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    app: &App,
) -> Result<Bytes, Error> {
    let read = tokio::time::timeout(TIMEOUT, collect(headers, body, limit, app));
    read.await.unwrap_or_else(|_| {
        Err(Error::refused(
            408,
            "the request body did not arrive within 60 s",
        ))
    })
}

async fn collect(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    app: &App,
) -> Result<Bytes, Error> {
    let most = limit.min(app.settings.api_max_body_bytes);
    let declared = body.size_hint().exact();
    let declared = declared.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let mut read = begin(headers, declared, most, limit, &app.budget).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Error::refused(400, "the request body could not be read"))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let length = read.bytes.len().saturating_add(data.len());
        if length > most {
            return Err(too_long(most, limit));
        }
        if length > read.share.bytes() {
            // of a length that was not declared
            read.share = app.budget.body(most).await?;
        }
        read.bytes.extend_from_slice(data);
    }
    read.share.shrink(read.bytes.len());
    Ok(Bytes::from_owner(read))
}

/// Make room for a body, if it may be read.
async fn begin(
    headers: &HeaderMap,
    declared: Option<usize>,
    most: usize,
    limit: usize,
    budget: &Budget,
) -> Result<Held, Error> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if encodings.any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Error::refused(
            415,
            "compressed bodies are not taken; send without Content-Encoding",
        ));
    }
    if declared.is_some_and(|bytes| bytes > most) {
        return Err(too_long(most, limit));
    }
    Ok(Held {
        bytes: Vec::with_capacity(declared.unwrap_or_default()),
        share: budget.body(declared.unwrap_or(SMALL.min(most))).await?,
    })
}

fn too_long(most: usize, limit: usize) -> Error {
    let whose = if most < limit {
        "FASTPUBSUB_API_MAX_BODY_BYTES"
    } else {
        "the limit of this route"
    };
    Error::Refused {
        status: 413,
        message: format!("the request body exceeds {most} bytes ({whose})"),
    }
}

/// A body in memory with its share of the budget, which is free when the last part of it is dropped.
struct Held {
    bytes: Vec<u8>,
    share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
