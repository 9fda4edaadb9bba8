//! The event loop: executor, timers, clock, drivers, connections, file threads.
