//! Answers that are lists: item after item as the client takes them, so that a large one is in memory
//! once and holds up nobody while it becomes text.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::Frame;
use serde::Serialize;

use crate::app::App;
use crate::budget::Share;
use crate::error::Error;

/// Least bytes of a piece that is followed by another.
const PIECE: usize = 64 * 1024;

/// A share for an answer of as many bytes as any may have, to be taken before the database is asked for
/// what it shows.
///
/// # Errors
/// 503 when others have taken too much for too long.
pub async fn share(app: &App) -> Result<Share, Error> {
    app.budget.answer(app.settings.api_max_answer_bytes).await
}

/// The begin of an object whose last field is the list of this name.
///
/// # Errors
/// 500 when the other fields are no JSON.
pub fn begin(others: &impl Serialize, name: &str) -> Result<String, Error> {
    let mut text = serde_json::to_string(others)
        .map_err(|error| Error::Internal(std::sync::Arc::new(error)))?;
    text.pop();
    Ok(format!("{text},\"{name}\":["))
}

/// `BEGIN...]}` with what is shown of each item, of about so many bytes in all; its share of the budget is
/// free when all is handed over.
///
/// # Errors
/// 500 when an item is no JSON.
pub fn list<T, S>(
    begin: impl Into<String>,
    items: Vec<T>,
    (bytes, share): (usize, Option<Share>),
    shown: impl FnMut(T) -> S + Send + Unpin + 'static,
) -> Result<Response, Error>
where
    T: Send + Unpin + 'static,
    S: Serialize + 'static,
{
    let mut list = List {
        begin: Some(begin.into()),
        items: items.into_iter(),
        shown,
        ended: false,
        share,
    };
    let body = if bytes < PIECE {
        let mut whole = Vec::with_capacity(bytes);
        while list.piece(&mut whole)? {}
        Body::from(whole)
    } else {
        Body::new(list)
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A [`list`] whose share was taken before its size was known.
///
/// # Errors
/// 500 when an item is no JSON.
pub fn page<T, S>(
    begin: impl Into<String>,
    items: Vec<T>,
    (mut share, size): (Share, fn(&T) -> usize),
    shown: impl FnMut(T) -> S + Send + Unpin + 'static,
) -> Result<Response, Error>
where
    T: Send + Unpin + 'static,
    S: Serialize + 'static,
{
    let bytes = items.iter().map(size).sum();
    share.fit(bytes);
    list(begin, items, (bytes, Some(share)), shown)
}

/// One thing, whose share of the budget is free when it is handed over.
///
/// # Errors
/// 500 when it is no JSON.
pub fn one(shown: &impl Serialize, share: Option<Share>) -> Result<Response, Error> {
    let bytes =
        serde_json::to_vec(shown).map_err(|error| Error::Internal(std::sync::Arc::new(error)))?;
    let held = Bytes::from_owner(Held {
        bytes,
        _share: share,
    });
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from(held),
    )
        .into_response())
}

struct Held {
    bytes: Vec<u8>,
    _share: Option<Share>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

struct List<T, F> {
    begin: Option<String>,
    items: IntoIter<T>,
    shown: F,
    ended: bool,
    share: Option<Share>,
}

impl<T, S: Serialize, F: FnMut(T) -> S> List<T, F> {
    /// Add a piece to a text; false when there is no more.
    fn piece(&mut self, text: &mut Vec<u8>) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        let end = text.len() + PIECE;
        let mut separator = ",";
        if let Some(begin) = self.begin.take() {
            text.extend(begin.as_bytes());
            separator = "";
        }
        while text.len() < end {
            let Some(item) = self.items.next() else {
                text.extend(b"]}");
                self.ended = true;
                self.share = None;
                break;
            };
            text.extend(separator.as_bytes());
            separator = ",";
            serde_json::to_writer(&mut *text, &(self.shown)(item))
                .map_err(|error| Error::Internal(std::sync::Arc::new(error)))?;
        }
        Ok(true)
    }
}

impl<T: Unpin, S: Serialize, F: FnMut(T) -> S + Unpin> HttpBody for List<T, F> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut text = Vec::new();
        Poll::Ready(match self.piece(&mut text) {
            Ok(true) => Some(Ok(Frame::data(text.into()))),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
