//! The assert files of tests/sql.
