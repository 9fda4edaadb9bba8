//! The ports that questions to name servers are sent from.
//!
//! Each question has one of its own while few are under way. Many share those that are open, so that names whose servers
//! say nothing don't keep others from being asked for.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;

use os::SockAddr;
use rt::{ConnectOptions, Datagram, Event, Transmit, UdpSocket};
use wire::dns::{self, Answer, Kind, Name};

/// Those that are open.
#[derive(Default)]
pub(crate) struct Ports {
    open: RefCell<Vec<Rc<Port>>>,
}

/// So many are open at a time.
pub(crate) const MOST_PORTS: usize = 64;

/// One, to one name server.
struct Port {
    server: SocketAddr,
    socket: UdpSocket,
    questions: RefCell<HashMap<u16, Rc<Question>>>,
    /// The last question has left.
    over: Event,
}

/// A question that is under way.
struct Question {
    name: Name,
    kind: Kind,
    answer: Cell<Option<io::Result<Answer>>>,
    answered: Event,
}

impl Ports {
    /// Asks a server over UDP, and waits for its answer for as long as the caller likes.
    pub(crate) async fn ask(self: &Rc<Self>, server: SocketAddr, name: &Name, kind: Kind) -> io::Result<Answer> {
        let asking = Asking::new(self, self.find(server).await?, name, kind);
        asking.port.socket.send(&mut [Transmit::new(&dns::question(asking.id, name, kind))]).await?;
        loop {
            if let Some(answer) = asking.question.answer.take() {
                return answer;
            }
            asking.question.answered.wait().await;
        }
    }

    /// Whether nobody is being asked.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// A new port, unless there are many.
    async fn find(self: &Rc<Self>, server: SocketAddr) -> io::Result<Rc<Port>> {
        if self.open.borrow().len() >= MOST_PORTS
            && let Some(port) = self.any(server)
        {
            return Ok(port);
        }
        match UdpSocket::connect(&SockAddr::from(server), &ConnectOptions::default()).await {
            Ok(socket) => {
                let (questions, over) = (RefCell::default(), Event::new());
                let port = Rc::new(Port { server, socket, questions, over });
                self.open.borrow_mut().push(port.clone());
                rt::spawn(self.clone().receive(port.clone()));
                Ok(port)
            }
            Err(error) => self.any(server).ok_or(error.into()),
        }
    }

    /// One of the open ones, whichever it is.
    fn any(&self, server: SocketAddr) -> Option<Rc<Port>> {
        let open = self.open.borrow();
        let count = open.iter().filter(|port| port.server == server).count();
        let chosen = usize::from(random()).checked_rem(count)?;
        open.iter().filter(|port| port.server == server).nth(chosen).cloned()
    }

    /// Gives each question of a port its answer, until the last one has left or receiving fails.
    async fn receive(self: Rc<Self>, port: Rc<Port>) {
        let (seen, mut received) = (0, Vec::new());
        let _receiving = Receiving { ports: &self, port: &port };
        loop {
            let result = poll_fn(|cx| match port.over.poll_since(cx, seen) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => port.socket.poll_recv(cx, &mut received).map(Some),
            });
            match result.await {
                Some(Ok(())) => received.drain(..).for_each(|datagram| port.take(&datagram)),
                Some(Err(error)) => return port.fail(&error),
                None => return,
            }
        }
    }

    /// No more questions are sent from there.
    fn close(&self, port: &Rc<Port>) {
        self.open.borrow_mut().retain(|other| !Rc::ptr_eq(other, port));
    }
}

impl Port {
    /// Something has come, from the server by its address.
    fn take(&self, datagram: &Datagram) {
        let Some(id) = datagram.bytes.first_chunk().map(|id| u16::from_be_bytes(*id)) else { return };
        let Some(question) = self.questions.borrow().get(&id).cloned() else { return };
        if let Some(answer) = dns::answer(&datagram.bytes, id, &question.name, question.kind) {
            question.end(Ok(answer));
        }
    }

    fn fail(&self, error: &io::Error) {
        for question in self.questions.borrow().values() {
            question.end(Err(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)));
        }
    }
}

impl Question {
    /// The first answer counts.
    fn end(&self, answer: io::Result<Answer>) {
        if self.answered.count() == 0 {
            self.answer.set(Some(answer));
            self.answered.notify();
        }
    }
}

/// While it is there, answers of a port are received: also a panic ends that.
struct Receiving<'a> {
    ports: &'a Ports,
    port: &'a Rc<Port>,
}

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        self.ports.close(self.port);
    }
}

/// The place of a question on its port, until it is dropped.
struct Asking {
    ports: Rc<Ports>,
    port: Rc<Port>,
    id: u16,
    question: Rc<Question>,
}

impl Asking {
    fn new(ports: &Rc<Ports>, port: Rc<Port>, name: &Name, kind: Kind) -> Asking {
        let (answer, answered) = (Cell::new(None), Event::new());
        let question = Rc::new(Question { name: name.clone(), kind, answer, answered });
        let mut questions = port.questions.borrow_mut();
        let mut id = random();
        while questions.contains_key(&id) {
            id = random();
        }
        questions.insert(id, question.clone());
        drop(questions);
        Asking { ports: ports.clone(), port, id, question }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut questions = self.port.questions.borrow_mut();
        questions.remove(&self.id);
        if questions.is_empty() {
            self.ports.close(&self.port);
            self.port.over.notify();
        }
    }
}

/// A number that nobody can foresee.
pub(crate) fn random() -> u16 {
    let bytes = rt::random_bytes();
    u16::from_be_bytes([bytes[0], bytes[1]])
}
