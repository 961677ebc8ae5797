//! Logs, on stderr: JSON, logfmt or text. Never payloads, tokens or secrets. A stderr that nobody reads
//! any more is no reason to stop: what cannot be written is lost.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{LogFormat, LogLevel, Settings};

/// Start logging. A second call does nothing.
pub fn start(settings: &Settings) {
    let level = match settings.log_level {
        _ if settings.api_debug => LevelFilter::DEBUG,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
    };
    // what libraries tell below a warning is for their developers
    let mut targets = Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("fastpubsub", level)
        // a connection that broke: whoever used it tells more
        .with_target("sqlx_core::pool::connection", LevelFilter::ERROR);
    if settings.database_echo {
        targets = targets.with_target("sqlx::query", LevelFilter::INFO);
    }
    let lines = match settings.log_formatter {
        LogFormat::Json => fmt::layer()
            .json()
            .flatten_event(true)
            .log_internal_errors(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Logfmt | LogFormat::Python => tracing_logfmt::builder()
            .layer()
            .log_internal_errors(false)
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            fmt::layer()
                .compact()
                .log_internal_errors(false)
                .with_ansi(colours)
                .with_writer(std::io::stderr)
                .boxed()
        }
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .try_init();
    if started.is_ok() && settings.log_formatter == LogFormat::Python {
        tracing::warn!("FASTPUBSUB_LOG_FORMATTER is a Python format string; logging as logfmt");
    }
}
