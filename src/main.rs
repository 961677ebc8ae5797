//! The `fastpubsub` command: results on stdout, logs and errors on stderr.

use std::process::ExitCode;

/// A request allocates some hundred times: with that of glibc it costs 1.4 times as much, and the process
/// keeps twice the memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    fastpubsub::cli::main()
}
