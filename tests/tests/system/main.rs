//! Tests of the program as a whole: processes, upgrades, certificates, other people's programs, hostile input. Each runs
//! once, with the default event method.
#![forbid(unsafe_code)]

mod attacks;
mod cache;
mod certbot;
mod front_door;
mod handover_tls;
mod health;
mod mail;
mod mutations;
mod mutations_http2;
mod mutations_tls;
mod nothing_lost;
mod ocsp;
mod panic;
mod processes;
mod products;
mod reload;
mod sandbox;
mod sites;
mod ssl_refresh;
mod ssl_reload;
mod ssl_tickets;
mod stream;
mod stream_udp;
mod systemd;
mod upgrade;
mod upgrade_state;
mod zones;
