//! What is noted of a request on its way: one value for each question, whose answers exclude one another.

/// Who has made a request's URI and arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UriSource {
    /// The client: they are what it sent, decoded.
    #[default]
    Client,
    /// The server has replaced at least one of them.
    Server,
    /// The server, and `$args` has a value even if it is empty.
    ServerWithArgs,
}

/// How a request's URI fits the location that the request is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UriFit {
    /// It begins with the location's name, or matches its regex.
    #[default]
    Named,
    /// `try_files` found a file in the location's alias: the whole URI is appended to the alias.
    InAlias,
    /// A rule has changed it, and the request stayed in the location.
    Changed,
}

/// What becomes of a connection after a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is closed.
    #[default]
    Close,
    /// It is closed, and the client may still be sending.
    Linger,
    /// It may serve another request.
    Keep,
}

/// How much of a response was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Not all, or nothing yet.
    #[default]
    Partial,
    /// All that its source had given before it broke off.
    CutShort,
    /// All.
    Whole,
}
