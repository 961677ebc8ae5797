//! The totals of subscriptions in Prometheus' text format. They are counted in the database, over all
//! servers, so each server shows the same: a query takes the `max` of them, not the sum.

use crate::db::subscriptions::{SubscriptionMetrics, Totals};

/// A counter for each total, with a series for each subscription.
pub(super) fn render(subscriptions: &[SubscriptionMetrics]) -> String {
    let mut text = String::new();
    for (at, (name, _)) in Totals::default().named().into_iter().enumerate() {
        let metric = format!("fastpubsub_messages_{name}_total");
        let help = help(name);
        text.push_str(&format!(
            "# HELP {metric} {help}\n# TYPE {metric} counter\n"
        ));
        for counts in subscriptions {
            let id = escaped(&counts.subscription_id);
            let total = counts.totals.named().get(at).map_or(0, |(_, total)| *total);
            text.push_str(&format!("{metric}{{subscription=\"{id}\"}} {total}\n"));
        }
        text.push('\n');
    }
    text
}

fn help(name: &str) -> &'static str {
    match name {
        "published" => "Messages published into a subscription since it was created",
        "delivered" => "Messages leased to a consumer",
        "acked" => "Messages acked",
        "nacked" => "Messages nacked, also those whose attempts that spent",
        "rejected" => "Messages rejected by a consumer",
        "expired" => "Messages never acked because their time was over",
        "dead_lettered" => "Messages given up: dead letters",
        "redelivered" => "Messages leased to a consumer that had been before",
        _ => "Leases extended",
    }
}

/// An id as the value of a label: ids made from SQL may have quotes.
fn escaped(id: &str) -> String {
    id.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_break_out_of_its_label() {
        assert_eq!(escaped("a\"} 1\\"), "a\\\"} 1\\\\");
    }
}
