//! Cycles, listeners, master, workers, logs.
#![forbid(unsafe_code)]
