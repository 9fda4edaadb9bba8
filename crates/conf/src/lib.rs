//! The configuration language: lexer, includes, directive tables, values, diagnostics.
#![forbid(unsafe_code)]
