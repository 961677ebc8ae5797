//! The results: a table for people, JSON for machines.

use serde_json::{Value, json};

use crate::meter::Cost;

/// One figure.
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// How many times the figure it is compared to.
    pub(crate) of_reference: Option<f64>,
    pub(crate) target: Option<Target>,
    pub(crate) note: String,
    /// Of one message.
    pub(crate) cost: Option<Cost>,
}

/// What a figure should be, and whether it is.
pub(crate) struct Target {
    text: String,
    holds: bool,
}

impl Target {
    pub(crate) fn at_least(actual: f64, limit: f64, unit: &str) -> Self {
        Self {
            text: format!(">= {limit} {unit}"),
            holds: actual >= limit,
        }
    }

    pub(crate) fn at_most(actual: f64, limit: f64, unit: &str) -> Self {
        Self {
            text: format!("<= {limit} {unit}"),
            holds: actual <= limit,
        }
    }
}

impl Row {
    pub(crate) fn new(scenario: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            scenario: scenario.into(),
            value,
            unit,
            of_reference: None,
            target: None,
            note: String::new(),
            cost: None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "scenario": self.scenario,
            "value": self.value,
            "unit": self.unit,
            "of_reference": self.of_reference,
            "target": self.target.as_ref().map(|target| &target.text),
            "holds": self.target.as_ref().map(|target| target.holds),
            "note": self.note,
            "wal_bytes_per_message": self.cost.map(|cost| cost.wal_bytes),
            "cpu_microseconds_per_message": self.cost.map(|cost| json!({
                "postgres": cost.postgres,
                "servers": cost.servers,
                "client": cost.client,
            })),
        })
    }
}

/// Everything that is known of a run.
pub(crate) struct Report {
    /// Name and value of what describes machine and versions.
    pub(crate) facts: Vec<(&'static str, String)>,
    pub(crate) rows: Vec<Row>,
    /// Scenarios that could not be measured.
    pub(crate) failed: Vec<String>,
}

impl Report {
    pub(crate) fn print(&self) {
        for (name, value) in &self.facts {
            println!("{name}: {value}");
        }
        println!("\n| scenario | value | of reference | target | holds | note |");
        println!("|---|---|---|---|---|---|");
        for row in &self.rows {
            let of_reference = row.of_reference.map(|ratio| format!("{ratio:.2}"));
            let (target, holds) = match &row.target {
                Some(target) if target.holds => (target.text.as_str(), "yes"),
                Some(target) => (target.text.as_str(), "NO"),
                None => ("", ""),
            };
            println!(
                "| {} | {} {} | {} | {target} | {holds} | {} |",
                row.scenario,
                number(row.value),
                row.unit,
                of_reference.unwrap_or_default(),
                row.note
            );
        }
        self.print_costs();
        for failed in &self.failed {
            println!("\nNOT MEASURED: {failed}");
        }
    }

    fn print_costs(&self) {
        let rows = self.rows.iter();
        let mut costs = rows
            .filter_map(|row| Some((&row.scenario, row.cost?)))
            .peekable();
        if costs.peek().is_none() {
            return;
        }
        println!(
            "\n| per message | WAL bytes | Postgres, µs of CPU | servers | client |\n|---|---|---|---|---|"
        );
        for (scenario, cost) in costs {
            println!(
                "| {scenario} | {:.0} | {:.1} | {:.1} | {:.1} |",
                cost.wal_bytes, cost.postgres, cost.servers, cost.client
            );
        }
    }

    pub(crate) fn json(&self) -> Value {
        let facts = self.facts.iter();
        json!({
            "facts": facts
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect::<serde_json::Map<_, _>>(),
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
            "failed": self.failed,
        })
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.0}")
    }
}
