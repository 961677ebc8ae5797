//! The front doors: which there are, and where each is.

pub mod activity;
pub mod answers;
pub mod body;
pub mod caller;
pub mod connection;
pub mod cors;
pub mod docs;
pub mod envelope;
pub mod extract;
pub mod fastapi;
pub mod fields;
pub mod given;
pub mod mount;
pub mod native;
pub mod prometheus;
pub mod pyqueue;
pub mod receipts;
pub mod requests;
pub mod schemas;
pub mod sent;
pub mod serve;
pub mod tree;

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::app::App;
use crate::config::Settings;
use crate::error::Error;
use envelope::Envelope;
use mount::Mount;
use serve::Listening;

/// Every door of the service, side by side.
#[must_use]
pub fn mounts(app: &App) -> Vec<Mount> {
    vec![
        native::mount(app.clone()),
        pyqueue::mount(app, pyqueue::MOUNT),
    ]
}

/// Every door on one listener.
#[must_use]
pub fn listening(listener: TcpListener, app: &App) -> Listening {
    Which::All.open(listener, app)
}

/// An address where clients connect.
#[derive(Clone, Copy, Debug)]
pub struct Entrance {
    /// Where.
    pub address: SocketAddr,
    /// The settings that say so.
    pub settings: &'static str,
    /// What is there.
    pub which: Which,
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every door, each behind its prefix.
    All,
    /// The PyQueue door alone, at the root.
    Pyqueue,
}

impl Which {
    /// Let clients in.
    #[must_use]
    pub fn open(self, listener: TcpListener, app: &App) -> Listening {
        let (mounts, envelope): (_, Envelope) = match self {
            Self::All => (mounts(app), fastapi::envelope),
            Self::Pyqueue => (vec![pyqueue::mount(app, "")], pyqueue::envelope),
        };
        Listening {
            listener,
            router: mount::router(mounts),
            envelope,
        }
    }
}

/// Where clients connect, as the settings say. What stands in for another system at the port of the
/// native API takes its place.
#[must_use]
pub fn entrances(settings: &Settings) -> Vec<Entrance> {
    let all = Entrance {
        address: (settings.api_host, settings.api_port).into(),
        settings: "FASTPUBSUB_API_HOST, FASTPUBSUB_API_PORT",
        which: Which::All,
    };
    let own = settings.pyqueue.listen.map(|address| Entrance {
        address,
        settings: "FASTPUBSUB_PYQUEUE_LISTEN",
        which: Which::Pyqueue,
    });
    let is_replaced = settings.drop_in.is_some()
        && own.is_some_and(|own| own.address.port() == settings.api_port && settings.api_port != 0);
    let all = (!is_replaced).then_some(all);
    all.into_iter().chain(own).collect()
}

/// What doors have to do before they open.
///
/// # Errors
/// When the database fails.
pub async fn prepare(app: &App) -> Result<(), Error> {
    pyqueue::start::apply_settings(app).await
}
