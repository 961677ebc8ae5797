//! What the caller may choose.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

/// Measure fastpubsub against a plain INSERT and against pgmq through the same Postgres.
#[derive(Debug, Parser)]
#[command(name = "make bench", max_term_width = 100)]
pub(crate) struct Flags {
    /// Rounds of every measurement, whose median is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Seconds of one round (5, with --quick 2)
    #[arg(long)]
    seconds: Option<f64>,
    /// Only scenarios whose name contains this; several are allowed
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,
    /// Smaller states and shorter rounds: some eight minutes in all
    #[arg(long)]
    pub(crate) quick: bool,
    /// Seconds of each of the two runs of the pinned horizon (600, with --quick 60)
    #[arg(long)]
    horizon_seconds: Option<u64>,
    /// Database connections of each server
    #[arg(long, default_value_t = 16)]
    pub(crate) pool_size: u32,
    /// Another release binary of fastpubsub, whose throughput is measured in the same rounds
    #[arg(long, value_name = "FILE")]
    pub(crate) against: Option<PathBuf>,
    /// Write the results to a file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Flags {
    /// Whether a scenario is wanted.
    pub(crate) fn want(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }

    /// How long a round is.
    pub(crate) fn round(&self) -> Duration {
        let default = if self.quick { 2.0 } else { 5.0 };
        Duration::from_secs_f64(self.seconds.unwrap_or(default))
    }

    /// What is not measured at the start of a round: connecting, first plans, cold pages.
    pub(crate) fn warm_up(&self) -> Duration {
        self.round() / 8
    }

    /// How long each run of the pinned horizon is.
    pub(crate) fn horizon(&self) -> Duration {
        let default = if self.quick { 60 } else { 600 };
        Duration::from_secs(self.horizon_seconds.unwrap_or(default))
    }

    /// A size of a state: the full one, or the one for --quick.
    pub(crate) fn size(&self, full: u64, quick: u64) -> u64 {
        if self.quick { quick } else { full }
    }
}
