//! TLS: rustls behind nginx's ssl directives.
