//! The judgement of chains against `openssl verify`: the same verdict, the same number, the same words.

use std::path::Path;
use std::process::Command;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateRevocationListParams, CidrSubnet, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;
use tls::{Purpose, Reason, Trust};

/// A certificate with what made it.
struct Made {
    cert: Certificate,
    params: CertificateParams,
    key: KeyPair,
}

impl Made {
    fn pem(&self) -> String {
        self.cert.pem()
    }

    /// A certificate below it.
    fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
        let mut params = params(name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).unwrap();
        Made { cert, params, key }
    }

    /// An authority below it.
    fn authority(&self, name: &str) -> Made {
        self.signs(name, |params| params.is_ca = CA)
    }

    /// A client's certificate below it.
    fn client(&self) -> Made {
        self.signs("client", |_| {})
    }

    /// A list of revoked certificates, for these years.
    fn list(&self, revoked: &[u64], years: (i32, i32)) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(years.0, 1, 1),
            next_update: date_time_ymd(years.1, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2020, 1, 1),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&Issuer::from_params(&self.params, &self.key)).unwrap().pem().unwrap()
    }
}

const CA: IsCa = IsCa::Ca(BasicConstraints::Unconstrained);

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = vec![SanType::DnsName(format!("{name}.example.com").try_into().unwrap())];
    params
}

fn root_with(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = params(name);
    params.is_ca = CA;
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    Made { cert: params.self_signed(&key).unwrap(), params, key }
}

fn root(name: &str) -> Made {
    root_with(name, |_| {})
}

/// What is judged: PEM texts, the own certificate first.
struct Case<'a> {
    trusted: Vec<String>,
    sent: Vec<String>,
    depth: usize,
    lists: Option<Vec<String>>,
    purpose: Purpose,
    folder: &'a Path,
}

/// What both say of a case.
struct Bench {
    folder: TempDir,
    faults: Vec<String>,
    count: usize,
}

impl Bench {
    fn case(&self, trusted: &[&Made], sent: &[&Made]) -> Case<'_> {
        Case {
            trusted: trusted.iter().map(|made| made.pem()).collect(),
            sent: sent.iter().map(|made| made.pem()).collect(),
            depth: 5,
            lists: None,
            purpose: Purpose::Client,
            folder: self.folder.path(),
        }
    }

    /// Lets both judge. `expect` is the number on which they are to agree, with the same words.
    fn check(&mut self, name: &str, expect: u32, case: impl FnOnce(&Bench) -> Case<'_>) {
        let (theirs, ours) = self.judge(case);
        if theirs != ours || theirs.0 != expect {
            self.faults.push(format!("{name}: expected {expect}, OpenSSL {theirs:?}, ours {ours:?}"));
        }
    }

    /// A case in which the command stops at a fault after which OpenSSL under nginx goes on, to say what it finds last:
    /// what the command is to say, and what we do.
    fn check_both(&mut self, name: &str, expect: (u32, u32), case: impl FnOnce(&Bench) -> Case<'_>) {
        let (theirs, ours) = self.judge(case);
        if (theirs.0, ours.0) != expect {
            self.faults.push(format!("{name}: expected {expect:?}, OpenSSL {theirs:?}, ours {ours:?}"));
        }
    }

    fn judge(&mut self, case: impl FnOnce(&Bench) -> Case<'_>) -> ((u32, String), (u32, String)) {
        self.count += 1;
        let case = case(self);
        (case.openssl(), case.ours())
    }
}

impl Case<'_> {
    fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    fn lists(mut self, lists: &[&str]) -> Self {
        self.lists = Some(lists.iter().map(|list| (*list).to_owned()).collect());
        self
    }

    fn server(mut self) -> Self {
        self.purpose = Purpose::Server;
        self
    }

    /// The number and words of the last error; 0 if there is none.
    fn openssl(&self) -> (u32, String) {
        let file = |name: &str, texts: &[String]| {
            let path = self.folder.join(name);
            std::fs::write(&path, texts.concat()).unwrap();
            path
        };
        let mut command = Command::new("openssl");
        command.arg("verify").arg("-no-CApath").arg("-no-CAstore");
        command.arg("-CAfile").arg(file("trusted", &self.trusted));
        command.arg("-purpose").arg(if self.purpose == Purpose::Client { "sslclient" } else { "sslserver" });
        command.arg("-verify_depth").arg(self.depth.to_string());
        if self.sent.len() > 1 {
            command.arg("-untrusted").arg(file("others", &self.sent[1..]));
        }
        if let Some(lists) = &self.lists {
            command.arg("-crl_check_all").arg("-CRLfile").arg(file("lists", lists));
        }
        let out = command.arg(file("own", &self.sent[..1])).output().expect("openssl is installed");
        let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        let mut errors = text.lines().filter_map(|line| {
            let (number, rest) = line.strip_prefix("error ")?.split_once(" at ")?;
            let (_, words) = rest.split_once("lookup: ")?;
            Some((number.parse().ok()?, words.trim_end().to_owned()))
        });
        errors.next_back().unwrap_or_else(|| {
            assert!(text.contains(": OK"), "{text}");
            (0, String::new())
        })
    }

    fn ours(&self) -> (u32, String) {
        let mut trust = Trust::new(self.depth);
        trust.add_file(&format!("data:{}", self.trusted.concat())).unwrap();
        if let Some(lists) = &self.lists {
            trust.add_lists(&format!("data:{}", lists.concat())).unwrap();
        }
        let chain = tls::certificates(self.sent.concat().as_bytes()).unwrap();
        match trust.verify(&chain, self.purpose) {
            Ok(()) => (0, String::new()),
            Err(Reason(number, words)) => (number, words.to_owned()),
        }
    }
}

/// A certificate that was changed after it was signed.
fn spoilt(made: &Made) -> String {
    let mut der = made.cert.der().to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    tls::text::pem(&der)
}

fn years(from: i32, until: i32) -> impl Fn(&mut CertificateParams) {
    move |params| (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1))
}

fn subtrees(permitted: &[GeneralSubtree], excluded: &[GeneralSubtree]) -> Option<NameConstraints> {
    Some(NameConstraints { permitted_subtrees: permitted.to_vec(), excluded_subtrees: excluded.to_vec() })
}

fn bench() -> Bench {
    let folder = TempDir::with_prefix("tidegate-verify-").unwrap();
    Bench { folder, faults: Vec::new(), count: 0 }
}

impl Bench {
    fn done(self, least: usize) {
        assert!(self.faults.is_empty(), "{} of {}:\n{}", self.faults.len(), self.count, self.faults.join("\n"));
        assert!(self.count >= least);
    }
}

#[test]
fn chains() {
    let mut b = bench();
    let (a, other) = (root("a"), root("other"));
    let (one, leaf) = (a.authority("one"), a.client());
    let two = one.authority("two");
    let (below_one, below_two) = (one.client(), two.client());
    b.check("trusted", 0, |b| b.case(&[&a], &[&leaf]));
    b.check("one between", 0, |b| b.case(&[&a], &[&below_one, &one]));
    b.check("two between", 0, |b| b.case(&[&a], &[&below_two, &two, &one]));
    b.check("in another order, and more", 0, |b| b.case(&[&other, &a], &[&below_two, &one, &other, &two]));
    b.check_both("nobody known", (20, 21), |b| b.case(&[&other], &[&leaf]));
    b.check("one is missing", 20, |b| b.case(&[&a], &[&below_two, &two]));
    b.check_both("the one between is missing", (20, 21), |b| b.case(&[&a], &[&below_one]));
    b.check("the end isn't trusted", 19, |b| b.case(&[&other], &[&leaf, &a]));
    b.check("self-signed", 18, |b| b.case(&[&a], &[&other]));
    b.check("a trusted one itself", 0, |b| b.case(&[&a], &[&a]));
    b.check("an authority as a client", 0, |b| b.case(&[&a], &[&one]));
    b.check("only one between is trusted", 2, |b| b.case(&[&one], &[&below_one]));
    b.check_both("a trusted leaf", (20, 21), |b| b.case(&[&leaf], &[&leaf]));
    // An issuer of the right name with another key.
    let namesake = root("a");
    b.check("a namesake", 7, |b| b.case(&[&namesake], &[&leaf]));
    // OpenSSL takes the first one of the name; here one whose key fits is looked for.
    b.check_both("a namesake beside it", (7, 0), |b| b.case(&[&namesake, &a], &[&leaf]));
    b.check("a namesake behind it", 0, |b| b.case(&[&a, &namesake], &[&leaf]));
    let named = |made: &Made| made.signs("client", |params| params.use_authority_key_identifier_extension = true);
    b.check_both("a namesake with another identifier", (20, 21), |b| b.case(&[&namesake], &[&named(&a)]));
    b.check("identifiers", 0, |b| b.case(&[&namesake, &a], &[&named(&a)]));
    b.check_both("a namesake between", (20, 7), |b| b.case(&[&a], &[&below_one, &root("x").authority("one")]));
    // Depth.
    b.check("not deep", 0, |b| b.case(&[&a], &[&leaf]).depth(0));
    b.check("too deep by one", 22, |b| b.case(&[&a], &[&below_one, &one]).depth(0));
    b.check("deep enough", 0, |b| b.case(&[&a], &[&below_one, &one]).depth(1));
    b.check("too deep by one more", 22, |b| b.case(&[&a], &[&below_two, &two, &one]).depth(1));
    b.check("too deep, and nobody known", 22, |b| b.case(&[&other], &[&below_two, &two, &one]).depth(0));
    b.done(20);
}

#[test]
fn signatures_and_times() {
    let mut b = bench();
    let a = root("a");
    let (one, leaf) = (a.authority("one"), a.client());
    let below_one = one.client();
    b.check("changed", 7, |b| {
        let mut case = b.case(&[&a], &[&leaf]);
        case.sent[0] = spoilt(&leaf);
        case
    });
    b.check("changed between", 7, |b| {
        let mut case = b.case(&[&a], &[&below_one, &one]);
        case.sent[1] = spoilt(&one);
        case
    });
    b.check("a changed root", 0, |b| {
        let mut case = b.case(&[&a], &[&leaf]);
        case.trusted[0] = spoilt(&a);
        case
    });
    let old = a.signs("client", years(2000, 2001));
    let coming = a.signs("client", years(3000, 3001));
    b.check("expired", 10, |b| b.case(&[&a], &[&old]));
    b.check("not yet valid", 9, |b| b.case(&[&a], &[&coming]));
    let between = |from, until| {
        let one = a.signs("one", |params| {
            params.is_ca = CA;
            years(from, until)(params);
        });
        (one.client(), one)
    };
    for (name, from, until, expect) in [("expired between", 2000, 2001, 10), ("not yet valid between", 3000, 3001, 9)] {
        let (leaf, one) = between(from, until);
        b.check(name, expect, |b| b.case(&[&a], &[&leaf, &one]));
    }
    for (name, from, until, expect) in [("expired root", 2000, 2001, 10), ("root not yet valid", 3000, 3001, 9)] {
        let root = root_with("old", years(from, until));
        let leaf = root.client();
        b.check(name, expect, |b| b.case(&[&root], &[&leaf]));
    }
    // Several faults at once.
    b.check_both("changed and expired", (7, 10), |b| {
        let mut case = b.case(&[&a], &[&old]);
        case.sent[0] = spoilt(&old);
        case
    });
    b.done(10);
}

#[test]
fn what_certificates_are_for() {
    let mut b = bench();
    let a = root("a");
    let leaf = |usages: &[KeyUsagePurpose], purposes: &[ExtendedKeyUsagePurpose]| {
        a.signs("client", |params| {
            params.key_usages = usages.to_vec();
            params.extended_key_usages = purposes.to_vec();
        })
    };
    use ExtendedKeyUsagePurpose::{Any, ClientAuth, CodeSigning, ServerAuth};
    use KeyUsagePurpose::{CrlSign, DigitalSignature, KeyAgreement, KeyCertSign, KeyEncipherment};
    let signs = [DigitalSignature];
    for (name, usages, purposes, client, server) in [
        ("for clients", &[][..], &[ClientAuth][..], 0, 26),
        ("for servers", &[], &[ServerAuth], 26, 0),
        ("for both", &signs, &[ServerAuth, ClientAuth], 0, 0),
        ("for anything", &signs, &[Any], 26, 26),
        ("for code", &signs, &[CodeSigning], 26, 26),
        ("to encipher keys", &[KeyEncipherment], &[], 26, 0),
        ("to agree on keys", &[KeyAgreement], &[], 0, 0),
        ("to sign lists", &[CrlSign], &[], 26, 26),
    ] {
        let leaf = leaf(usages, purposes);
        b.check(name, client, |b| b.case(&[&a], &[&leaf]));
        b.check(&format!("{name}, a server's"), server, |b| b.case(&[&a], &[&leaf]).server());
    }
    let authority = |is_ca: IsCa, usages: &[KeyUsagePurpose], purposes: &[ExtendedKeyUsagePurpose]| {
        let one = a.signs("one", |params| {
            params.is_ca = is_ca;
            params.key_usages = usages.to_vec();
            params.extended_key_usages = purposes.to_vec();
        });
        (one.client(), one)
    };
    for (name, is_ca, usages, purposes, expect) in [
        ("an authority for certificates", CA, &[KeyCertSign][..], &[][..], 0),
        ("one that may not sign", CA, &[CrlSign], &[], 32),
        ("none", IsCa::NoCa, &[], &[], 26),
        ("none, and says so", IsCa::ExplicitNoCa, &[], &[], 26),
        ("none that signs", IsCa::ExplicitNoCa, &[KeyCertSign], &[], 26),
        ("none but by its usage", IsCa::NoCa, &[KeyCertSign], &[], 79),
        ("one for servers", CA, &[KeyCertSign], &[ServerAuth], 26),
        ("one for clients", CA, &[KeyCertSign], &[ClientAuth], 0),
        ("one for anything", CA, &[], &[Any], 26),
    ] {
        let (leaf, one) = authority(is_ca, usages, purposes);
        b.check(name, expect, |b| b.case(&[&a], &[&leaf, &one]));
    }
    // How many authorities may stand below one.
    for (limit, expect) in [(0, 25), (1, 0)] {
        let short = a.signs("short", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(limit)));
        let inner = short.authority("inner");
        let leaf = inner.client();
        b.check("path length", expect, |b| b.case(&[&a], &[&leaf, &inner, &short]));
        let root = root_with("r", |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(limit)));
        let inner = root.authority("inner");
        let leaf = inner.client();
        b.check("path length of the root", expect, |b| b.case(&[&root], &[&leaf, &inner]));
    }
    for (critical, expect) in [(true, 34), (false, 0)] {
        let unknown = |made: &Made, is_ca: IsCa| {
            made.signs("odd", |params| {
                let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4, 5], vec![5, 0]);
                extension.set_criticality(critical);
                params.custom_extensions = vec![extension];
                params.is_ca = is_ca;
            })
        };
        let odd = unknown(&a, IsCa::NoCa);
        b.check("an unknown extension", expect, |b| b.case(&[&a], &[&odd]));
        let odd = unknown(&a, CA);
        let leaf = odd.client();
        b.check("an unknown extension between", expect, |b| b.case(&[&a], &[&leaf, &odd]));
    }
    b.done(30);
}

#[test]
fn constraints_on_names() {
    let mut b = bench();
    let a = root("a");
    let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
    let mail = |name: &str| GeneralSubtree::Rfc822Name(name.to_owned());
    let net = |last| GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, last], [255, 255, 255, 0]));
    let of = |names: &[(&str, &str)]| {
        let mut all = DistinguishedName::new();
        for (kind, value) in names {
            let kind = if *kind == "O" { DnType::OrganizationName } else { DnType::CommonName };
            all.push(kind, *value);
        }
        all
    };
    let folder = |names: &[(&str, &str)]| GeneralSubtree::DirectoryName(of(names));
    let sans = |names: Vec<SanType>| move |params: &mut CertificateParams| params.subject_alt_names = names;
    let host = |name: &str| SanType::DnsName(name.try_into().unwrap());
    let post = |name: &str| SanType::Rfc822Name(name.try_into().unwrap());
    let ip = |ip: [u8; 4]| SanType::IpAddress(ip.into());
    let cases: Vec<(&str, Option<NameConstraints>, Vec<SanType>, u32)> = vec![
        ("the host itself", subtrees(&[dns("example.com")], &[]), vec![host("example.com")], 0),
        ("a host below", subtrees(&[dns("example.com")], &[]), vec![host("a.b.EXAMPLE.com")], 0),
        ("another host", subtrees(&[dns("example.com")], &[]), vec![host("example.org")], 47),
        ("a host that only ends so", subtrees(&[dns("example.com")], &[]), vec![host("anexample.com")], 47),
        ("one of two hosts", subtrees(&[dns("example.com")], &[]), vec![host("example.com"), host("b.org")], 47),
        ("below, with a dot", subtrees(&[dns(".example.com")], &[]), vec![host("a.example.com")], 0),
        ("itself, with a dot", subtrees(&[dns(".example.com")], &[]), vec![host("example.com")], 47),
        ("any of several", subtrees(&[dns("b.org"), dns("example.com")], &[]), vec![host("example.com")], 0),
        ("excluded", subtrees(&[], &[dns("example.com")]), vec![host("a.example.com")], 48),
        ("not excluded", subtrees(&[], &[dns("example.com")]), vec![host("a.example.org")], 0),
        (
            "permitted and excluded",
            subtrees(&[dns("example.com")], &[dns("a.example.com")]),
            vec![host("a.example.com")],
            48,
        ),
        ("names of another kind", subtrees(&[dns("example.com")], &[]), vec![ip([10, 0, 0, 1])], 0),
        ("an address", subtrees(&[net(0)], &[]), vec![ip([10, 0, 0, 77])], 0),
        ("another address", subtrees(&[net(0)], &[]), vec![ip([10, 0, 1, 77])], 47),
        ("an excluded address", subtrees(&[], &[net(0)]), vec![ip([10, 0, 0, 77])], 48),
        ("a mailbox", subtrees(&[mail("a@example.com")], &[]), vec![post("a@EXAMPLE.com")], 0),
        ("another mailbox", subtrees(&[mail("a@example.com")], &[]), vec![post("b@example.com")], 47),
        ("mail to a host", subtrees(&[mail("example.com")], &[]), vec![post("b@example.com")], 0),
        ("mail to a host below", subtrees(&[mail("example.com")], &[]), vec![post("b@a.example.com")], 47),
        ("mail below", subtrees(&[mail(".example.com")], &[]), vec![post("b@a.example.com")], 0),
        ("excluded mail", subtrees(&[], &[mail("example.com")]), vec![post("b@example.com")], 48),
        ("nothing to compare", subtrees(&[net(0)], &[]), vec![host("a.org")], 0),
    ];
    for (name, constraints, names, expect) in cases {
        let one = a.signs("one", |params| {
            params.is_ca = CA;
            params.name_constraints = constraints;
        });
        let leaf = one.signs("client", sans(names));
        b.check(name, expect, |b| b.case(&[&a], &[&leaf, &one]));
    }
    // Names of the subject.
    for (name, subtree, subject, expect) in [
        ("the organisation", vec![("O", "Org")], vec![("O", "ORG"), ("CN", "x")], 0),
        ("another organisation", vec![("O", "Org")], vec![("O", "Other"), ("CN", "x")], 47),
        ("a longer name is asked", vec![("O", "Org"), ("CN", "x")], vec![("O", "Org")], 47),
    ] {
        let one = a.signs("one", |params| {
            params.is_ca = CA;
            params.name_constraints = subtrees(&[folder(&subtree)], &[]);
        });
        let leaf = one.signs("client", |params| {
            params.distinguished_name = of(&subject);
            params.subject_alt_names.clear();
        });
        b.check(name, expect, |b| b.case(&[&a], &[&leaf, &one]));
    }
    // The common name counts as a host if nothing else names one.
    for (common, expect) in [("a.example.com", 0), ("a.example.org", 47), ("No host", 0)] {
        let one = a.signs("one", |params| {
            params.is_ca = CA;
            params.name_constraints = subtrees(&[dns("example.com")], &[]);
        });
        let leaf = one.signs(common, |params| params.subject_alt_names.clear());
        b.check(&format!("the common name {common}"), expect, |b| b.case(&[&a], &[&leaf, &one]));
    }
    // Constraints of a root, and for one between.
    let bound = root_with("bound", |params| params.name_constraints = subtrees(&[dns("example.com")], &[]));
    let below = bound.signs("client", sans(vec![host("example.org")]));
    b.check("of the root", 47, |b| b.case(&[&bound], &[&below]));
    let between = bound.signs("one", |params| {
        params.is_ca = CA;
        params.subject_alt_names = vec![host("example.org")];
    });
    let below = between.client();
    b.check("for one between", 47, |b| b.case(&[&bound], &[&below, &between]));
    b.done(30);
}

#[test]
fn revocation_lists() {
    let mut b = bench();
    let numbered =
        |number: u64| move |params: &mut CertificateParams| params.serial_number = Some(SerialNumber::from(number));
    let a = root("a");
    let one = a.signs("one", |params| {
        params.is_ca = CA;
        numbered(1)(params);
    });
    let (leaf, below) = (a.signs("client", numbered(2)), one.signs("client", numbered(3)));
    const NOW: (i32, i32) = (2020, 3000);
    let (empty, empty_one) = (a.list(&[], NOW), one.list(&[], NOW));
    b.check("nobody revoked", 0, |b| b.case(&[&a], &[&leaf]).lists(&[&empty]));
    b.check("another one revoked", 0, |b| b.case(&[&a], &[&leaf]).lists(&[&a.list(&[7, 9], NOW)]));
    b.check("revoked", 23, |b| b.case(&[&a], &[&leaf]).lists(&[&a.list(&[7, 2], NOW)]));
    b.check("lists of both", 0, |b| b.case(&[&a], &[&below, &one]).lists(&[&empty, &empty_one]));
    b.check("revoked between", 23, |b| b.case(&[&a], &[&below, &one]).lists(&[&a.list(&[1], NOW), &empty_one]));
    b.check("revoked below", 23, |b| b.case(&[&a], &[&below, &one]).lists(&[&empty, &one.list(&[3], NOW)]));
    b.check("a list is missing", 3, |b| b.case(&[&a], &[&below, &one]).lists(&[&empty]));
    b.check("another's list", 3, |b| b.case(&[&a], &[&leaf]).lists(&[&root("b").list(&[], NOW)]));
    b.check("an expired list", 12, |b| b.case(&[&a], &[&leaf]).lists(&[&a.list(&[], (2000, 2001))]));
    b.check_both("an expired list that names it", (23, 12), |b| {
        b.case(&[&a], &[&leaf]).lists(&[&a.list(&[2], (2000, 2001))])
    });
    b.check("a list of the future", 11, |b| b.case(&[&a], &[&leaf]).lists(&[&a.list(&[], (3000, 3001))]));
    b.check("an older list beside it", 0, |b| b.case(&[&a], &[&leaf]).lists(&[&a.list(&[], (2000, 2001)), &empty]));
    b.check("a namesake's list", 3, |b| b.case(&[&a], &[&leaf]).lists(&[&root("a").list(&[], NOW)]));
    let no_lists = root_with("c", |params| params.key_usages = vec![KeyUsagePurpose::KeyCertSign]);
    let leaf = no_lists.client();
    let list = {
        let mut params = no_lists.params.clone();
        params.key_usages.clear();
        let maker = Made {
            cert: no_lists.cert.clone(),
            params,
            key: KeyPair::from_pem(&no_lists.key.serialize_pem()).unwrap(),
        };
        maker.list(&[], NOW)
    };
    b.check("one that may not sign lists", 35, |b| b.case(&[&no_lists], &[&leaf]).lists(&[&list]));
    b.done(12);
}

/// Certificates of version 1, which only the command makes.
#[test]
fn version_1() {
    let mut b = bench();
    let folder = b.folder.path().to_path_buf();
    let run = |args: &str| {
        let out = Command::new("openssl").args(args.split(' ')).current_dir(&folder).output().unwrap();
        assert!(out.status.success(), "{args}: {}", String::from_utf8_lossy(&out.stderr));
    };
    let key = "req -new -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256";
    run(&format!("{key} -subj /CN=v1root -keyout r.key -out r.csr"));
    run("x509 -req -in r.csr -signkey r.key -days 30 -out r.crt");
    for (name, by) in [("i", "r"), ("l", "r"), ("m", "i")] {
        run(&format!("{key} -subj /CN=v1{name} -keyout {name}.key -out {name}.csr"));
        run(&format!("x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -set_serial 5 -days 30 -out {name}.crt"));
    }
    let read = |name: &str| std::fs::read_to_string(folder.join(format!("{name}.crt"))).unwrap();
    let [r, i, l, m] = ["r", "i", "l", "m"].map(read);
    let case = |b: &Bench, sent: &[&String]| -> Case<'static> {
        Case {
            trusted: vec![r.clone()],
            sent: sent.iter().map(|text| (*text).clone()).collect(),
            depth: 5,
            lists: None,
            purpose: Purpose::Client,
            folder: Box::leak(b.folder.path().into()),
        }
    };
    b.check("root and leaf", 0, |b| case(b, &[&l]));
    b.check("one between", 26, |b| case(b, &[&m, &i]));
    b.check("the root itself", 0, |b| case(b, &[&r]));
    b.done(3);
}
