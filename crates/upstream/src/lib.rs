//! Servers of an upstream, balancers, keep-alive pools, the decision to retry.
#![forbid(unsafe_code)]
