//! The `fastpubsub` command: results on stdout, logs and errors on stderr.

use std::process::ExitCode;

/// A request allocates some hundred times, which costs less than with that of glibc, the more the longer
/// the server runs.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fastpubsub::cli::main()
}
