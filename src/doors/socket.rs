//! The client of a WebSocket: what it is sent, as far as it takes it.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use tokio::time::timeout;

use super::feed::{Feed, Held};
use super::stream::{End, Source};
use crate::engine::Claimed;

/// Longest frame of a client, in bytes.
pub const FRAME_MAX_BYTES: usize = 16 * 1024;
/// For a client that says nothing, not even that it is there.
pub const SILENT: Duration = Duration::from_secs(60);
/// A client has so much longer for a large frame: these bytes a second, at least.
const LEAST_PACE: usize = 32 * 1024;
/// Longest reason of a close, in bytes.
const REASON_MAX_BYTES: usize = 123;
/// About so many bytes of messages are noted as handed over at a time.
const GROUP_BYTES: usize = 64 * 1024;

/// The connection that takes what is sent.
pub struct To {
    /// From which its frames are read.
    pub socket: WebSocket,
    behind: Duration,
    /// It did not take something: no more is tried, but for the close.
    is_deaf: bool,
}

impl To {
    /// Of a client that is given up where it takes nothing for so long.
    #[must_use]
    pub fn new(socket: WebSocket, behind: Duration) -> Self {
        Self {
            socket,
            behind,
            is_deaf: false,
        }
    }

    /// Send a frame.
    ///
    /// # Errors
    /// When the client is gone or behind.
    pub async fn tell(&mut self, frame: Message) -> Result<(), End> {
        let length = match &frame {
            Message::Text(text) => text.len(),
            _ => 0,
        };
        let seconds = u64::try_from(length / LEAST_PACE).unwrap_or_default();
        let patience = self.behind + Duration::from_secs(seconds);
        let told = match timeout(patience, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone),
            Err(_) => Err(End::Behind),
        };
        self.is_deaf |= told.is_err();
        told
    }

    /// Send a text.
    ///
    /// # Errors
    /// When the client is gone or behind.
    pub async fn text(&mut self, text: String) -> Result<(), End> {
        self.tell(Message::Text(text.into())).await
    }

    /// Send texts, as far as they are taken soon.
    pub async fn tell_all(&mut self, texts: Vec<String>) {
        if self.is_deaf {
            return;
        }
        let behind = self.behind;
        let telling = timeout(behind, async {
            for text in texts {
                self.text(text).await?;
            }
            Ok::<_, End>(())
        });
        let is_told = telling.await.is_ok();
        self.is_deaf |= !is_told;
    }

    /// Tell why it ends; none where nobody is there to hear it.
    pub async fn close<S: Source>(&mut self, source: &S, end: End) -> Option<u16> {
        let (code, reason) = match end {
            End::Gone => return None,
            End::Drained => (close_code::AWAY, "the server ends".to_owned()),
            End::Behind => (
                close_code::AGAIN,
                "what was sent is not taken fast enough".to_owned(),
            ),
            End::Silent => (
                close_code::AGAIN,
                format!("nothing was heard for {} seconds", SILENT.as_secs()),
            ),
            End::Unreadable => (
                close_code::PROTOCOL,
                format!("that is no frame, or it has more than {FRAME_MAX_BYTES} bytes"),
            ),
            End::Failed(error) => {
                let code = match error.status() {
                    503 => close_code::AGAIN,
                    500.. => close_code::ERROR,
                    _ => close_code::POLICY,
                };
                self.tell_all(vec![source.failure(&error, true)]).await;
                (code, error.to_string())
            }
        };
        let reason = Utf8Bytes::from(shortened(reason));
        let _told = self
            .tell(Message::Close(Some(CloseFrame { code, reason })))
            .await;
        Some(code)
    }

    /// Send what was claimed.
    ///
    /// # Errors
    /// When the client does not take it, or what it took cannot be noted.
    pub async fn deliver<S: Source>(
        &mut self,
        feed: &mut Feed,
        source: &S,
        claimed: Claimed,
    ) -> Result<(), End> {
        // held until all is sent
        let Claimed {
            deliveries,
            share: _share,
            ..
        } = claimed;
        feed.hold(source.subscription_id(), &deliveries);
        let (mut group, mut bytes) = (Held::default(), 0);
        for delivery in deliveries {
            let (named, handle) = (delivery.subscription_id.clone(), delivery.handle());
            let text = source.frame(delivery)?;
            let length = text.len();
            let told = self.text(text).await;
            if told.is_ok() {
                group.add(named.as_deref().unwrap_or(source.subscription_id()), handle);
                bytes += length;
            }
            // what came before is noted also where this one is not taken
            if told.is_err() || bytes >= GROUP_BYTES {
                feed.handed(std::mem::take(&mut group)).await?;
                bytes = 0;
            }
            told?;
        }
        Ok(feed.handed(group).await?)
    }
}

fn shortened(mut reason: String) -> String {
    while reason.len() > REASON_MAX_BYTES {
        reason.pop();
    }
    reason
}
