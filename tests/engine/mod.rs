//! The SQL engine, over one or more connections.
