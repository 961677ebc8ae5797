//! What checking a token costs.

use crate::cluster::{Bench, Database};
use crate::crowd::{Crowd, median};
use crate::http::Client;
use crate::meter::Meter;
use crate::report::{Row, Target};
use crate::server::Server;
use crate::{fill, loads};

const CONNECTIONS: usize = 16;

/// Pairs of rounds, one without and one with tokens; the median of their ratios, since a twentieth is
/// less than the speed of a machine drifts.
pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let database = bench.cluster.database().await;
    fill::create(&database, "main").await;
    let key = database.program(&["generate_secret_key"]).await;
    let key = key.trim().strip_prefix("new_secret=").unwrap();
    let settings = ["--auth-enabled", "true", "--auth-secret-key", key];
    let open = Server::start(bench, &database).await;
    let closed = Server::start_with(bench, &database, &settings).await;
    let token = token(&database, &closed).await;

    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    for pair in 0..=2 * bench.flags.rounds {
        let mut pair_rates = [0.0; 2];
        // by turns the first
        for turn in 0..2 {
            let at = ((pair + turn) % 2) as usize;
            let (server, token) = [(&open, None), (&closed, Some(token.as_str()))][at];
            pair_rates[at] = rate(bench, server, token).await;
        }
        ratios.push(pair_rates[1] / pair_rates[0]);
        rates.push(pair_rates[1]);
    }
    open.stop().await;
    closed.stop().await;
    bench.cluster.drop(database).await;
    let ratio = median(ratios);
    vec![Row {
        of_reference: Some(ratio),
        target: Some(Target::at_least(ratio, 0.95, "x")),
        note: "of the same without authentication".to_owned(),
        ..Row::new(
            "publish + consume + ack, 16 connections, with tokens",
            median(rates),
            "msg/s",
        )
    }]
}

/// The access token of a new client.
async fn token(database: &Database, server: &Server) -> String {
    let created = database.program(&["create_client", "bench", "*"]).await;
    let value = |key: &str| {
        let line = created.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().to_owned()
    };
    let credentials = serde_json::json!({
        "client_id": value("client_id="),
        "client_secret": value("client_secret="),
    });
    let mut client = Client::connect(server.address).await;
    let body = credentials.to_string();
    let answer = client.post("/oauth/token", body.as_bytes()).await;
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

async fn rate(bench: &Bench, server: &Server, token: Option<&str>) -> f64 {
    let mut meter = Meter::new(&bench.cluster, &[server]).await;
    let mut crowd = Crowd::default();
    for _ in 0..CONNECTIONS {
        let (address, token) = (server.address, token.map(str::to_owned));
        crowd.spawn(|progress| loads::cycle(address, "main", token, progress));
    }
    let (warm_up, length) = (bench.flags.warm_up(), bench.flags.round() / 2);
    crowd.measure(&mut meter, warm_up, length).await.rate
}
