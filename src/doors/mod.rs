//! The front doors: which there are, and where each is.

pub mod activity;
pub mod answers;
pub mod attributes;
pub mod body;
pub mod broker;
pub mod caller;
pub mod connection;
pub mod cors;
pub mod docs;
pub mod envelope;
pub mod events;
pub mod extract;
pub mod fastapi;
pub mod feed;
pub mod fields;
pub mod first;
pub mod frames;
pub mod given;
pub mod mount;
pub mod native;
pub mod peer;
pub mod prometheus;
pub mod pulsar;
pub mod pushed;
pub mod pyqueue;
pub mod rate;
pub mod reapply;
pub mod receipts;
pub mod requests;
pub mod schemas;
pub mod sent;
pub mod serve;
pub mod socket;
pub mod stream;
pub mod tree;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::budget::Budget;
use crate::config::Settings;
use crate::config::drop_in::DropIn;
use crate::db::messages::Delivery;
use crate::db::push::PushEndpoint;
use crate::error::Error;
use envelope::Envelope;
use mount::Mount;
use pushed::Names;
use serve::Listening;

/// Every door of the service, side by side.
#[must_use]
pub fn mounts(app: &App) -> Vec<Mount> {
    vec![
        native::mount(app.clone()),
        pyqueue::mount(app, pyqueue::MOUNT),
        broker::mount(app, broker::MOUNT),
        pulsar::mount(app, pulsar::MOUNT),
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
    /// The Message Broker door alone, at the root.
    Broker,
    /// The Pulsar Proxy door alone, at the root.
    Pulsar,
}

impl Which {
    /// Let clients in.
    #[must_use]
    pub fn open(self, listener: TcpListener, app: &App) -> Listening {
        let (mounts, envelope): (_, Envelope) = match self {
            Self::All => (mounts(app), fastapi::envelope),
            Self::Pyqueue => (vec![pyqueue::mount(app, "")], pyqueue::envelope),
            Self::Broker => (vec![broker::mount(app, "")], broker::envelope),
            Self::Pulsar => (vec![pulsar::mount(app, "")], pulsar::envelope),
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
    let own = |address: Option<SocketAddr>, settings, which| {
        address.map(|address| Entrance {
            address,
            settings,
            which,
        })
    };
    let (pyqueue, broker) = (&settings.pyqueue, &settings.broker);
    let (pulsar, pulsar_setting) = settings.pulsar.address().unzip();
    let own = [
        own(pyqueue.listen, "FASTPUBSUB_PYQUEUE_LISTEN", Which::Pyqueue),
        own(broker.listen, "FASTPUBSUB_BROKER_LISTEN", Which::Broker),
        own(pulsar, pulsar_setting.unwrap_or_default(), Which::Pulsar),
    ];
    let stands_in = settings.drop_in.map(|system| match system {
        DropIn::Pyqueue => Which::Pyqueue,
        DropIn::Broker => Which::Broker,
        DropIn::Pulsar => Which::Pulsar,
    });
    let is_replaced = settings.api_port != 0
        && own
            .iter()
            .flatten()
            .any(|own| Some(own.which) == stands_in && own.address.port() == settings.api_port);
    let all = (!is_replaced).then_some(all);
    all.into_iter().chain(own.into_iter().flatten()).collect()
}

/// A message as the receiver of an endpoint gets it, in the names of the door that the endpoint is of.
#[must_use]
pub fn shown(endpoint: &PushEndpoint, delivery: &Delivery) -> Vec<u8> {
    let names = broker::pushed_names(endpoint, delivery).unwrap_or(Names {
        subscription_id: &endpoint.subscription_id,
        topic_id: Some(&endpoint.topic_id),
        topic: None,
        routing_key: None,
    });
    pushed::body(names, delivery)
}

/// Push to endpoints until `shutdown`, with as much time at the end as requests have.
pub async fn push(app: App, shutdown: CancellationToken) {
    let drain = Duration::from_secs(app.settings.api_shutdown_timeout_seconds);
    // what waits for receivers must not take the memory of answers
    let engine = app.engine.beside(Budget::new(&app.settings));
    let database = app.database.clone();
    let pushing = app.push.run(database, engine, shown, shutdown, drain);
    pushing.await;
}

/// What doors have to do before they open.
///
/// # Errors
/// When the database fails.
pub async fn prepare(app: &App) -> Result<(), Error> {
    pyqueue::start::apply_settings(app).await?;
    broker::start::apply_settings(app).await?;
    pulsar::start::apply_settings(app).await
}
