//! HTTP: locations, requests, responses, sessions, proxying, modules.
#![forbid(unsafe_code)]
