//! System calls and nothing else.
