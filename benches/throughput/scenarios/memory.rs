//! Memory of a server that idles, and of one with very many connections.

use std::time::{Duration, Instant};

use crate::cluster::Bench;
use crate::crowd::Crowd;
use crate::http::Client;
use crate::meter::resident_mib;
use crate::report::{Row, Target};
use crate::server::Server;
use crate::{fill, loads};

const CONNECTIONS: usize = 2000;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    let server = Server::start(bench, &database).await;
    // past its first maintenance
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = resident_mib(server.pid);

    let mut crowd = Crowd::default();
    for number in 1..=CONNECTIONS {
        let address = server.address;
        crowd.spawn(|progress| loads::publish(address, "main", 1, progress));
        // not more at once than a listening socket queues
        if number % 100 == 0 {
            Client::connect(address).await.get("/liveness").await;
        }
    }
    let mut most = 0.0_f64;
    let deadline = Instant::now() + bench.flags.round() * 2;
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(resident_mib(server.pid));
    }
    let requests = crowd.progress().done();
    assert!(
        requests > 2 * CONNECTIONS as u64,
        "only {requests} requests"
    );
    crowd.stop().await;
    server.stop().await;
    bench.cluster.drop(database).await;
    vec![
        Row {
            target: Some(Target::at_most(idle, 40.0, "MiB")),
            ..Row::new("memory of a server, idle", idle, "MiB")
        },
        Row {
            target: Some(Target::at_most(most, 150.0, "MiB")),
            note: format!("{requests} publishes"),
            ..Row::new("memory of a server, 2,000 busy connections", most, "MiB")
        },
    ]
}
