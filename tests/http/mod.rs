//! The HTTP surface, over real sockets; mirrors `src/http`.

mod topics;
