//! `auth_basic`: access by name and password (RFC 7617), which stand in a file.
//!
//! The file is read for each request, so that a change holds at once. What differs from nginx: slow forms of passwords
//! are checked in threads, while the worker serves other clients.

mod des_crypt;
pub mod file;
pub mod hashes;
mod md5_crypt;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use buf::Secret;
use conf::{Args, Context, Directive, Loader, Registry, Result};
use engine::log::{Errno, Level};
use engine::worker::sandbox::Needs;
use expr::vars::Template;
use http::config::core::EVERYWHERE;
use http::fault::Fault;
use http::files::open_file::errno;
use http::module::{HttpModule, LocationContext};
use http::phases::{Flow, Handler};
use http::request::variables::{template, template_of};
use http::request::{Credentials, Request};
use http::server::location::Handlers;
use rt::{Haste, ThreadPool};
use wire::h1::{KnownHeader, Method};

use self::hashes::Answer;

/// The module.
pub struct AuthBasic;

/// Where the directives stand.
const PLACES: Context = EVERYWHERE.or(Context::LIMIT_EXCEPT);

/// The threads of a worker that check passwords. They are apart from those that read files, which must not wait for
/// them, and few: they use the processor, and yescrypt much memory.
const THREADS: usize = 2;
/// How many passwords may wait for them; at a millisecond for each the last one waits for a second.
const WAITING: usize = 2000;

thread_local! {
    static POOL: Rc<ThreadPool> = Rc::new(ThreadPool::new("passwords", THREADS, WAITING));
}

conf::table! {
    /// Who may, by password.
    pub struct AuthBasicConf, raw AuthBasicRaw, module "ngx_http_auth_basic_module", level HTTP Location;

    /// Demands a name and a password of clients ("HTTP Basic Authentication").
    ///
    /// Form: `auth_basic string | off`
    ///
    /// - `string`: the realm, which browsers show when they ask for the password; with variables.
    /// - `off`: nothing is demanded, whatever the level around it says. The value of variables may be `off`, too.
    ///
    /// Effect: who isn't in `auth_basic_user_file`, or gives another password, gets status 401. `satisfy any` lets an
    /// address take the place of the password. `auth_delay` slows down who guesses. Requests with CONNECT are asked by
    /// status 407 and answer by `Proxy-Authorization`.
    ///
    /// Danger: without `auth_basic_user_file` everybody may enter. The password comes with each request as good as
    /// unencrypted: use TLS.
    ///
    /// ```nginx
    /// location /private/ {
    ///     auth_basic "members only";
    ///     auth_basic_user_file passwords;
    /// }
    /// ```
    "auth_basic" in PLACES, Args::exactly(1), default computed("off"),
        scalar(template) realm: Option<Rc<Template>> = None;
    /// Sets the file with the names and passwords for `auth_basic`.
    ///
    /// Passwords may have the forms of crypt (DES, `$1$`, `$5$`, `$6$`, `$2a$`, `$2b$`, `$2y$`, `$y$`), Apache's
    /// `$apr1$`, `{SSHA}`, and `{SHA}` and `{PLAIN}`, which whoever gets the file can read. `htpasswd` and `openssl passwd`
    /// make them.
    ///
    /// Form: `auth_basic_user_file file`
    ///
    /// - `file`: a path, with variables; a relative one begins at the folder of the main configuration file. Its lines
    ///   are `name:password` or `name:password:comment`; those that begin with `#` are comments.
    ///
    /// Effect: the file is read for each request, so a change holds at once. One that is missing refuses everybody with
    /// status 403.
    ///
    /// Cost: reading the file up to the name. Forms other than `{…}` are meant to be slow, and are checked in two threads
    /// of each worker; with more than 2000 waiting the status is 503.
    ///
    /// Danger: the workers' user must be able to read the file, and no client: keep it outside of `root`.
    ///
    /// ```nginx
    /// location /private/ {
    ///     auth_basic "members only";
    ///     auth_basic_user_file passwords;
    /// }
    /// ```
    "auth_basic_user_file" in PLACES, Args::exactly(1), default none,
        scalar(user_file) user_file: Option<UserFile> = None;
}

/// A file of passwords.
#[derive(Clone)]
pub struct UserFile {
    path: Rc<Template>,
    /// The folder where relative paths begin.
    prefix: Rc<Path>,
}

fn user_file(loader: &mut Loader<'_>, d: &Directive) -> Result<Option<UserFile>> {
    let text = &d.arg(0).text;
    let prefix = loader.env.conf_prefix.clone();
    loader.store.entry::<Needs>().read(prefix.join(OsStr::from_bytes(text)));
    Ok(Some(UserFile { path: template_of(loader, d, text)?, prefix: prefix.as_path().into() }))
}

impl HttpModule for AuthBasic {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<AuthBasicConf>();
    }

    fn location(&self, cx: &mut LocationContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        let conf = cx.set.get::<AuthBasicConf>();
        let (Some(realm), Some(file)) = (&conf.realm, &conf.user_file) else { return Ok(()) };
        if realm.is_const() != Some(b"off") {
            out.access.push(Rc::new(ByPassword { realm: realm.clone(), file: file.clone() }));
        }
        Ok(())
    }
}

struct ByPassword {
    realm: Rc<Template>,
    file: UserFile,
}

impl Handler for ByPassword {
    fn handle<'a>(&'a self, r: &'a mut Request) -> Flow<'a> {
        let realm = r.render(&self.realm);
        if realm == b"off" {
            return Flow::Next;
        }
        let given = r.basic_credentials(asked_of(r).answer).filter(|given| !given.user.is_empty());
        let Some(given) = given else {
            r.log_at(Level::Info, format_args!("no user/password was provided for basic authentication"));
            return challenge(r, &realm);
        };
        let stored = match self.stored(r, &given.user) {
            Ok(Some(stored)) => stored,
            Ok(None) => return challenge(r, &realm),
            Err(fault) => return fault.into(),
        };
        if hashes::is_slow(&stored) {
            return Flow::wait(check_slowly(r, realm, given, stored));
        }
        let answer = hashes::verify(&stored, &given.password);
        conclude(r, &realm, &given.user, answer)
    }
}

impl ByPassword {
    /// The user's stored password. That there is none has been logged.
    fn stored(&self, r: &mut Request, user: &[u8]) -> std::result::Result<Option<Secret>, Fault> {
        let path = self.file.prefix.join(OsStr::from_bytes(&r.render(&self.file.path)));
        let name = buf::text::path(&path);
        match file::find(path.as_os_str().as_bytes(), user) {
            Ok(None) => {
                r.log_error(format_args!("user \"{}\" was not found in \"{name}\"", buf::text::encode(user)));
                Ok(None)
            }
            Ok(stored) => Ok(stored),
            Err((call, error)) => {
                // Without the file nobody can give the right password.
                let missing = error.raw_os_error() == Some(errno::NOENT);
                let fault = if missing { Fault::NoPasswords } else { Fault::FailedFile };
                Err(fault.log_with(r, &format_args!("{call} \"{name}\" failed{}", Errno(&error))))
            }
        }
    }
}

async fn check_slowly(r: &mut Request, realm: Vec<u8>, given: Credentials, stored: Secret) -> Flow<'static> {
    let Credentials { user, password } = given;
    let pool = POOL.with(Rc::clone);
    // Those of clients that have gone make nobody wait. Who has closed its side may be gone or wait for its answer.
    let haste = Haste::default();
    let checking = pool.run_while_wanted(haste.clone(), move || hashes::verify(&stored, &password));
    let checked = r.unless_gone(checking, || haste.lose()).await;
    match checked {
        Ok(Ok(answer)) => conclude(r, &realm, &user, answer),
        Ok(Err(full)) => Fault::BusyPasswords.log_with(r, &full).into(),
        Err(left) => left.into(),
    }
}

fn conclude(r: &mut Request, realm: &[u8], user: &[u8], answer: Answer) -> Flow<'static> {
    let user = buf::text::encode(user);
    match answer {
        Answer::Right => return Flow::Allow,
        Answer::Wrong => r.log_error(format_args!("user \"{user}\": password mismatch")),
        Answer::UnknownForm => {
            r.log_error(format_args!("user \"{user}\": password mismatch, the stored password has an unknown form"));
        }
    }
    challenge(r, realm)
}

/// The fields by which credentials are asked for and given.
struct Asked {
    status: u16,
    question: KnownHeader,
    answer: KnownHeader,
}

fn asked_of(r: &Request) -> Asked {
    match r.method {
        Method::Connect => {
            Asked { status: 407, question: KnownHeader::ProxyAuthenticate, answer: KnownHeader::ProxyAuthorization }
        }
        _ => Asked { status: 401, question: KnownHeader::WwwAuthenticate, answer: KnownHeader::Authorization },
    }
}

fn challenge(r: &mut Request, realm: &[u8]) -> Flow<'static> {
    let Asked { status, question, .. } = asked_of(r);
    r.response.headers.set(question, [b"Basic realm=\"", realm, b"\""].concat());
    Flow::Status(status)
}
