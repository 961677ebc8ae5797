//! `/clients`.
