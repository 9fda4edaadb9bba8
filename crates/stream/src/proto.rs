//! Streams as a protocol of the modules that it shares with others.

use std::fmt;
use std::path::PathBuf;

use common::modules::log::LogProto;
use common::vars;
use common::{Base, Based, Places, Proto, Tables};
use conf::{Context, Level};
use engine::log::Level as LogLevel;
use os::SockAddr;

use crate::session::StreamSession;

/// TCP and UDP.
pub struct StreamProto;

/// The variables of a configuration that is complete.
pub(crate) type Variables = vars::Variables<StreamProto>;
/// The variables of a configuration that is being read.
pub(crate) type Setup = vars::Setup<StreamProto>;
/// How a variable gets its value.
pub(crate) type Getter = vars::Getter<StreamProto>;

/// Where most directives may stand.
pub(crate) const EVERYWHERE: Context = Context::STREAM.or(Context::STREAM_SERVER);

impl Proto for StreamProto {
    type Session = StreamSession;

    const PORT: Option<u16> = None;
    const PLACES: Places = Places {
        block: Context::STREAM,
        server: Context::STREAM_SERVER,
        servers: EVERYWHERE,
        everywhere: EVERYWHERE,
        access: EVERYWHERE,
        log: EVERYWHERE,
        upstream: Context::STREAM_UPSTREAM,
        innermost: Level::Server,
    };

    fn tables() -> &'static Tables {
        common::tables!("stream")
    }
}

impl LogProto for StreamProto {
    const COMBINED: Option<&'static str> = None;

    fn default_log() -> Option<PathBuf> {
        None
    }

    fn may_create(_: &mut StreamSession) -> bool {
        true
    }
}

impl Based for StreamSession {
    type Proto = StreamProto;

    fn base(&self) -> &Base<StreamProto> {
        &self.base
    }

    fn base_mut(&mut self) -> &mut Base<StreamProto> {
        &mut self.base
    }

    fn find_local(&self) -> SockAddr {
        StreamSession::find_local(self)
    }

    fn log_details(&self, level: LogLevel, message: fmt::Arguments<'_>) {
        self.log_at(level, message);
    }
}

common::render_templates!(StreamSession);
