//! What the peer asks for by SETTINGS, and what this side is configured to.

use super::error::{ConnectionError, Reason};
use super::frame::{DEFAULT_FRAME_SIZE, DEFAULT_WINDOW, MAX_FRAME_SIZE, MAX_WINDOW, setting};

/// The peer's settings (RFC 9113 §6.5.2), at first as the RFC presumes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    /// The table that our header compression may use.
    pub header_table_size: u32,
    /// How many streams we may have open.
    pub max_concurrent_streams: u32,
    /// Window of new streams towards the peer.
    pub initial_window_size: u32,
    /// The largest payload that we may send.
    pub max_frame_size: u32,
    /// The largest list of fields that the peer wants to see; advisory.
    pub max_header_list_size: u32,
    /// Extended CONNECT is served (RFC 8441).
    pub enable_connect_protocol: bool,
    /// The peer doesn't use dependencies and weights (RFC 9218 §2.1).
    pub no_rfc7540_priorities: bool,
}

impl Default for PeerSettings {
    fn default() -> PeerSettings {
        PeerSettings {
            header_table_size: crate::hpack::DEFAULT_TABLE_SIZE,
            max_concurrent_streams: u32::MAX,
            initial_window_size: DEFAULT_WINDOW,
            max_frame_size: DEFAULT_FRAME_SIZE,
            max_header_list_size: u32::MAX,
            enable_connect_protocol: false,
            no_rfc7540_priorities: false,
        }
    }
}

impl PeerSettings {
    /// Takes over one parameter; unknown ones are ignored.
    pub fn apply(&mut self, id: u16, value: u32, from_server: bool) -> Result<(), ConnectionError> {
        match id {
            setting::HEADER_TABLE_SIZE => self.header_table_size = value,
            setting::ENABLE_PUSH if from_server && value != 0 => return Err(Reason::SettingValue.into()),
            setting::ENABLE_PUSH => drop(boolean(value)?),
            setting::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
            setting::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => return Err(Reason::InitialWindow.into()),
            setting::INITIAL_WINDOW_SIZE => self.initial_window_size = value,
            setting::MAX_FRAME_SIZE if !(DEFAULT_FRAME_SIZE..=MAX_FRAME_SIZE).contains(&value) => {
                return Err(Reason::MaxFrameSize.into());
            }
            setting::MAX_FRAME_SIZE => self.max_frame_size = value,
            setting::MAX_HEADER_LIST_SIZE => self.max_header_list_size = value,
            setting::ENABLE_CONNECT_PROTOCOL => self.enable_connect_protocol = boolean(value)?,
            setting::NO_RFC7540_PRIORITIES => self.no_rfc7540_priorities = boolean(value)?,
            _ => {}
        }
        Ok(())
    }
}

fn boolean(value: u32) -> Result<bool, ConnectionError> {
    if value > 1 { Err(Reason::SettingValue.into()) } else { Ok(value == 1) }
}

/// What this side offers and bears. One value serves all connections of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Streams that the peer may have open at once: `http2_max_concurrent_streams`.
    pub max_concurrent_streams: u32,
    /// Window of each new stream towards us: `http2_body_preread_size`.
    pub initial_window: u32,
    /// Window of the whole connection towards us; it is kept open, as the streams' windows bound what is buffered.
    pub connection_window: u32,
    /// The largest payload that the peer may send; costs no memory.
    pub max_frame_size: u32,
    /// The most bytes of a header's name, and of its value: the size of one of `large_client_header_buffers`.
    pub max_field_size: usize,
    /// The most bytes of all names and values of a head: number times size of `large_client_header_buffers`.
    pub max_list_size: usize,
    /// The most fields of a head, without pseudo-headers: `max_headers`.
    pub max_fields: usize,
    /// The most CONTINUATION frames of one header block.
    pub max_continuations: u32,
    /// The most parameters in one SETTINGS.
    pub max_settings: u32,
    /// Largest DATA that is sent: `http2_chunk_size`; [`super::Connection::set_chunk_size`] sets another for a stream.
    pub chunk_size: u32,
    /// Extended CONNECT is served (RFC 8441), for WebSocket.
    pub enable_connect_protocol: bool,
    /// What frames that serve nothing may cost before the connection ends; see [`super::budget`].
    pub flood_budget: u32,
    /// How much of that is forgiven each second.
    pub flood_refill: u32,
}

impl Default for Config {
    /// nginx's defaults.
    fn default() -> Config {
        Config {
            max_concurrent_streams: 128,
            initial_window: 65_536,
            connection_window: MAX_WINDOW,
            max_frame_size: MAX_FRAME_SIZE,
            max_field_size: 8192,
            max_list_size: 32_768,
            max_fields: 1000,
            max_continuations: 128,
            max_settings: 128,
            chunk_size: 8192,
            enable_connect_protocol: false,
            flood_budget: 2048,
            flood_refill: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked() {
        for (id, value, from_server, expected) in [
            (setting::ENABLE_PUSH, 1, false, Ok(())),
            (setting::ENABLE_PUSH, 1, true, Err(Reason::SettingValue)),
            (setting::ENABLE_PUSH, 2, false, Err(Reason::SettingValue)),
            (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW, false, Ok(())),
            (setting::INITIAL_WINDOW_SIZE, MAX_WINDOW + 1, false, Err(Reason::InitialWindow)),
            (setting::MAX_FRAME_SIZE, 16_383, false, Err(Reason::MaxFrameSize)),
            (setting::MAX_FRAME_SIZE, 16_384, false, Ok(())),
            (setting::MAX_FRAME_SIZE, MAX_FRAME_SIZE, false, Ok(())),
            (setting::MAX_FRAME_SIZE, MAX_FRAME_SIZE + 1, false, Err(Reason::MaxFrameSize)),
            (setting::ENABLE_CONNECT_PROTOCOL, 2, true, Err(Reason::SettingValue)),
            (0x4242, u32::MAX, false, Ok(())),
        ] {
            let result = PeerSettings::default().apply(id, value, from_server);
            assert_eq!(result.map_err(|error| error.reason), expected, "{id} = {value}");
        }
    }
}
