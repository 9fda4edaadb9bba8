//! A protocol for unit tests: its only variable, `$a`, is the session's text.

use std::rc::Rc;

use conf::{Context, Level, Loader, Result};
use engine::log::Level as LogLevel;
use expr::vars::Flags;
use os::SockAddr;

use crate::front::proxy::ProxyHeader;
use crate::vars::text::put;
use crate::vars::{self, Getter, Setup, Store, Variables};
use crate::{Facts, Places, Proto, Session, Tables};

pub(crate) struct Test;

impl Proto for Test {
    type Session = TestSession;

    const PORT: Option<u16> = None;
    const PLACES: Places = Places {
        block: Context::STREAM,
        server: Context::STREAM_SERVER,
        servers: Context::STREAM,
        everywhere: Context::STREAM,
        access: Context::STREAM,
        log: Context::STREAM,
        upstream: Context::STREAM_UPSTREAM,
        innermost: Level::Server,
    };

    fn tables() -> &'static Tables {
        crate::tables!("test")
    }
}

pub(crate) struct TestSession {
    pub(crate) text: Vec<u8>,
    peer: SockAddr,
    variables: Rc<Variables<Test>>,
    store: Store,
}

impl TestSession {
    /// A session of what has been read.
    pub(crate) fn new(loader: &mut Loader<'_>) -> Result<TestSession> {
        let setup = loader.store.entry::<Setup<Test>>();
        crate::variables! { setup, "test";
            /// The text.
            "a", Flags::NONE, Getter::<Test>::Plain(|session, out| put(out, &session.text));
        }
        let variables = Rc::new(vars::finish::<Test>(loader)?);
        let peer = SockAddr::from(std::net::SocketAddr::from(([192, 0, 2, 1], 1)));
        let store = variables.store();
        Ok(TestSession { text: Vec::new(), peer, variables, store })
    }
}

impl Facts for TestSession {
    fn peer(&self) -> &SockAddr {
        &self.peer
    }

    fn local(&mut self) -> &SockAddr {
        &self.peer
    }

    fn proxy(&self) -> Option<&ProxyHeader> {
        None
    }

    fn tls(&self) -> Option<&tls::Secured> {
        None
    }

    fn number(&self) -> u64 {
        1
    }
}

impl Session for TestSession {
    type Proto = Test;
    type Held = Rc<Variables<Test>>;

    fn variables(&self) -> &Variables<Test> {
        &self.variables
    }

    fn hold(&self) -> Rc<Variables<Test>> {
        self.variables.clone()
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn store_mut(&mut self) -> &mut Store {
        &mut self.store
    }

    fn warns_uninitialized(&self) -> bool {
        true
    }

    fn replace_peer(&mut self, client: SockAddr) {
        self.peer = client;
    }

    fn log_at(&self, _: LogLevel, _: std::fmt::Arguments<'_>) {}
}

crate::render_templates!(TestSession);
