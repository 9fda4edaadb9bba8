//! Shared memory: mappings, counters, locks.
