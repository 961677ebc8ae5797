//! The layers of the code.
