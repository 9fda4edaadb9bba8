//! The head of a response in memory: for whoever takes a response that isn't sent to a client.

use buf::Bytes;
use wire::h1::KnownHeader;

use super::head::{self, HeadSink};
use super::{Header, Headers};
use crate::request::Request;

/// The fields of the response in the order in which a head has them, without those that only a sender knows: `Server`
/// and `Date`, unless they are a backend's, and what concerns a connection.
pub fn fields(r: &Request) -> Headers {
    let mut fields = Headers::default();
    head::write(r, &mut Memory(&mut fields));
    fields
}

/// A head as a list.
struct Memory<'f>(&'f mut Headers);

impl HeadSink for Memory<'_> {
    fn begin(&mut self, _: &Request) {}

    fn common(&mut self, known: KnownHeader, value: &[u8]) {
        self.field(known, value);
    }

    fn field(&mut self, known: KnownHeader, value: &[u8]) {
        self.0.add(known, Bytes::copy_from(value));
    }

    fn content_type(&mut self, value: &[u8], charset: Option<&[u8]>) {
        let value = match charset {
            Some(charset) => [value, b"; charset=", charset].concat(),
            None => value.to_vec(),
        };
        self.0.add(KnownHeader::ContentType, value);
    }

    fn other(&mut self, field: &Header) {
        self.0.push_known(field.known, field.name.clone(), field.value.clone());
    }
}
