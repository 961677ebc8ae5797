//! What streams have in common: [`super::events`] and [`super::frames`], on which the client settles. They ride on
//! pulls that wait; a client that does not take what it was sent is sent no more, and soon given up.

use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use tokio::time::{Instant, sleep_until};

use super::feed::Feed;
use crate::db::messages::{Delivery, Handle};
use crate::engine::Claimed;
use crate::error::Error;

/// How long a stream is silent at most.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a pull waits: at its end it is asked whether the client still may.
pub const WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether a client that holds all it may has settled something elsewhere: soon at first, then
/// more and more seldom.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// A WebSocket, if the request asks for one.
pub type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Where the messages of a stream come from, and in which words they are told.
pub trait Source: Send + Sync + 'static {
    /// Pull up to so many, and wait for [`WAIT`].
    fn pull(&self, room: i32) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Whether the client still may.
    fn allowed(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Whose the messages are, where they do not say.
    fn subscription_id(&self) -> &str;

    /// The id and the data of a delivery as an event, which have no line breaks.
    ///
    /// # Errors
    /// 500 when it is no JSON.
    fn event(&self, delivery: Delivery) -> Result<(String, String), Error>;

    /// A delivery as a frame.
    ///
    /// # Errors
    /// 500 when it is no JSON.
    fn frame(&self, delivery: Delivery) -> Result<String, Error>;

    /// The data of the event, or the frame, that tells why a stream ends.
    fn failure(&self, error: &Error, is_frame: bool) -> String;

    /// Answer a frame of a client.
    fn reply(&self, frame: String) -> impl Future<Output = Reply> + Send;
}

/// What became of a frame of a client.
#[derive(Debug)]
pub struct Reply {
    /// What it is told.
    pub text: String,
    /// What it changed.
    pub change: Change,
}

/// What a frame of a client changed.
#[derive(Debug)]
pub enum Change {
    /// Nothing of what it holds.
    Nothing,
    /// It holds this delivery of a subscription no more.
    Settled(String, Handle),
    /// So many more messages may be sent.
    Credit(usize),
}

/// Why a stream ends.
#[derive(Debug)]
pub enum End {
    /// Its client is gone.
    Gone,
    /// Its client takes nothing of what it is sent.
    Behind,
    /// Its client says nothing.
    Silent,
    /// Its client sent what is no frame.
    Unreadable,
    /// The server ends.
    Drained,
    /// The client may no more, or something failed.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// When to look again.
#[derive(Debug)]
pub struct Looks {
    at: Instant,
    pause: Duration,
}

impl Looks {
    /// Of a client that holds all it may from now on.
    #[must_use]
    pub fn begin() -> Self {
        Self {
            at: Instant::now() + FIRST_LOOK,
            pause: FIRST_LOOK,
        }
    }

    /// Look, once it is time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn next(&mut self, feed: &mut Feed) -> Result<(), Error> {
        sleep_until(self.at).await;
        // also where it fails or is given up
        self.pause = WAIT.min(self.pause * 3 / 2);
        self.at = Instant::now() + self.pause;
        feed.look().await
    }
}
