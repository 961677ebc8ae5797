//! Signals: SIGTERM or ^C ends a subcommand at once. A server first drains: one token is cancelled, which
//! every loop watches, and a second signal ends it at once.

use std::io;
use std::process::exit;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What asks a process to end.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// From an orchestrator.
    Terminate,
    /// ^C.
    Interrupt,
}

impl Signal {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
        }
    }

    /// What a shell reports of a process that it killed: 128 and the number of the signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Terminate => 143,
            Self::Interrupt => 130,
        }
    }
}

/// The signals to come. While this exists they do nothing else, also to process 1 of a container,
/// which would not even end.
#[derive(Debug)]
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// Take signals from now on.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Wait for one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
        }
    }
}

/// A token that is cancelled by the first signal; the second ends the process.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut signals = Signals::new()?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        tracing::info!("stopping on {}", first.name());
        cancelled.cancel();
        let again = signals.next().await;
        tracing::warn!("ended by a second signal, {}", again.name());
        exit(again.exit_code().into());
    });
    Ok(token)
}
