//! The `fastpubsub` command: results on stdout, logs and errors on stderr.

use std::process::ExitCode;

fn main() -> ExitCode {
    fastpubsub::cli::main()
}
