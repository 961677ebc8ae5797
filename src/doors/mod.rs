//! The front doors: which there are, and where each is.

pub mod activity;
pub mod answers;
pub mod body;
pub mod caller;
pub mod connection;
pub mod cors;
pub mod envelope;
pub mod given;
pub mod mount;
pub mod native;
pub mod receipts;
pub mod requests;
pub mod sent;
pub mod serve;
pub mod tree;

use tokio::net::TcpListener;

use crate::app::App;
use mount::Mount;
use serve::Listening;

/// Every door of the service.
#[must_use]
pub fn mounts(app: &App) -> Vec<Mount> {
    vec![native::mount(app.clone())]
}

/// Every door on one listener.
#[must_use]
pub fn listening(listener: TcpListener, app: &App) -> Listening {
    Listening {
        listener,
        router: mount::router(mounts(app), &app.settings),
        envelope: native::envelope::envelope,
    }
}
