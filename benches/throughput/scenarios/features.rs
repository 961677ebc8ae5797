//! What a subscription pays for what it uses: a backlog is drained by four consumers, beside that of a
//! subscription that uses nothing.

use crate::cluster::Bench;
use crate::crowd::{Crowd, Sample, median_sample};
use crate::meter::Meter;
use crate::report::Row;
use crate::server::Server;
use crate::{fill, loads};

/// A subscription's settings, and what its messages carry.
struct Feature {
    name: &'static str,
    /// Fields of its settings.
    settings: &'static str,
    /// More arguments of `publish_messages`, over `$3` messages.
    messages: &'static str,
}

const ONE_OF_A_THOUSAND: &str =
    "p_ordering_keys => array(select 'key ' || n % 1000 from generate_series(1, $3) n)";

const FEATURES: [Feature; 9] = [
    Feature {
        name: "none",
        settings: "",
        messages: "null",
    },
    Feature {
        name: "attributes",
        settings: "",
        messages: "array_fill('{\"tenant\": \"a\", \"trace\": \"0123456789\"}'::jsonb, array[$3])",
    },
    Feature {
        name: "ordering, messages without a key",
        settings: "\"enable_ordering\": true",
        messages: "null",
    },
    Feature {
        name: "ordering, 1,000 keys",
        settings: "\"enable_ordering\": true",
        messages: ONE_OF_A_THOUSAND,
    },
    Feature {
        name: "ordering keys that the subscription ignores",
        settings: "",
        messages: ONE_OF_A_THOUSAND,
    },
    Feature {
        name: "priorities, one message in ten",
        settings: "",
        messages: "p_priorities => array(select case when n % 10 = 0 then 1 + n / 10 % 9 else 0 end::smallint \
                   from generate_series(1, $3) n)",
    },
    Feature {
        name: "fairness, ten tenants",
        settings: "\"fairness_key\": \"tenant\"",
        messages: "array(select jsonb_build_object('tenant', (n % 10)::text) from generate_series(1, $3) n)",
    },
    Feature {
        name: "max_in_flight, never reached",
        settings: "\"max_in_flight\": 1000000",
        messages: "null",
    },
    Feature {
        name: "max_rate, never reached",
        settings: "\"max_rate\": 1000000",
        messages: "null",
    },
];

const CONSUMERS: usize = 4;
const BATCH: usize = 100;

pub(crate) async fn measure(bench: &Bench) -> Vec<Row> {
    let mut samples: Vec<Vec<Sample>> = FEATURES.iter().map(|_| Vec::new()).collect();
    for _ in 0..bench.flags.rounds {
        for (feature, samples) in FEATURES.iter().zip(&mut samples) {
            samples.push(drain(bench, feature).await);
        }
    }
    let plain = samples
        .first()
        .map_or(f64::NAN, |plain| median_sample(plain).rate);
    let row = |(feature, samples): (&Feature, &Vec<Sample>)| {
        let sample = median_sample(samples);
        Row {
            of_reference: Some(sample.rate / plain),
            cost: Some(sample.cost),
            ..Row::new(
                format!("consume + ack {BATCH}, {}", feature.name),
                sample.rate,
                "msg/s",
            )
        }
    };
    FEATURES.iter().zip(&samples).map(row).collect()
}

async fn drain(bench: &Bench, feature: &Feature) -> Sample {
    let messages = bench.flags.size(200_000, 50_000);
    let database = bench.cluster.database().await;
    fill::create_topic(&database, "main").await;
    fill::create_subscription_with(&database, "main", "main", feature.settings).await;
    fill::publish_with(&database, "main", messages, feature.messages).await;
    fill::settle(&database).await;
    let server = Server::start(bench, &database).await;
    let mut meter = Meter::new(&bench.cluster, &[&server]).await;
    let mut crowd = Crowd::default();
    for _ in 0..CONSUMERS {
        let address = server.address;
        crowd.spawn(|progress| loads::consume(address, "main", BATCH, progress));
    }
    let sample = crowd.finish(&mut meter, messages).await;
    server.stop().await;
    bench.cluster.drop(database).await;
    sample
}
