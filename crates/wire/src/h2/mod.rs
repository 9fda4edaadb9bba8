//! HTTP/2 without input and output (RFC 9113), for servers and clients.
//!
//! A [`Connection`] is fed what arrives and asked what to send:
//!
//! - [`Connection::handle`] takes bytes, cut anywhere, and gives one [`Event`] at a time: a request, a part of a body, the
//!   end of a stream. The head of a request or response lies in [`Connection::head_mut`] until the next call.
//! - Commands ([`Connection::send_head`], [`Connection::send_data`], …) queue what shall go out.
//! - [`Connection::poll_transmit`] gives the next bytes as a chain: bodies in memory and ranges of files are not copied,
//!   only the nine bytes before each DATA are new. It obeys both windows, the peer's frame size and the priorities.
//!
//! [`Client`] is what speaks to backends: one exchange at a time, as nginx does, so without a table of streams.
//!
//! Time comes in as a number, for the one thing that needs it: a peer that makes us work for nothing has a budget
//! ([`budget`]), which is refilled slowly. Deadlines are the caller's.
//!
//! Life of a stream: HEADERS make it ([`Event::Request`]); it is open, then half-closed, then gone from the table; its
//! [`StreamKey`] then finds nothing, for ever. What arrives for a stream that is gone is discarded.
//!
//! ```
//! use std::rc::Rc;
//! use buf::{Bytes, Chain};
//! use wire::h2::{Config, Connection, Event, PREFACE};
//! use wire::hpack::Indexing;
//!
//! let mut connection = Connection::server(Rc::new(Config::default()));
//! let request = b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a";
//! let mut input = Bytes::from([PREFACE, &request[..]].concat());
//! while let Some(event) = connection.handle(0, &mut input)? {
//!     if let Event::Request { stream, .. } = event {
//!         let head = std::mem::take(connection.head_mut());
//!         assert_eq!(head.path.unwrap_or_default().of(&head.text), b"/");
//!         let _ = connection.send_head(stream, false, |head| {
//!             head.status(200);
//!             head.field(b"Server", b"tidegate", Indexing::Incremental);
//!         });
//!         let _ = connection.send_data(stream, Chain::from(Bytes::from_static(b"body")), true);
//!     }
//! }
//! while let Some(chain) = connection.poll_transmit(65_536) {
//!     assert!(chain.len() > 0); // To be sent.
//! }
//! while let Some(stream) = connection.poll_drained() {
//!     assert!(!connection.is_open(stream)); // Its owner may go on, or is done.
//! }
//! # Ok::<(), wire::h2::ConnectionError>(())
//! ```
//!
//! What differs from nginx: request trailers are accepted; priorities of RFC 9218 are obeyed beside those of old.

mod block;
pub mod budget;
mod client;
mod command;
mod connection;
mod error;
pub mod frame;
mod head;
mod priority;
mod reader;
mod receive;
mod request;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod transmit;
mod upgrade;

pub use client::{Client, ClientEvent, ClientLimits, ServerFault, ServerFaultKind};
pub use command::{HeadWriter, OpenError, SendError};
pub use connection::{Connection, Event};
pub use error::{Code, ConnectionError, Reason};
pub use frame::PREFACE;
pub use head::{Head, HeadError};
pub use priority::Priority;
pub use reader::{Dependency, Frame, FrameReader};
pub use request::RequestFault;
pub use settings::{Config, PeerSettings};
pub use stream::StreamKey;
