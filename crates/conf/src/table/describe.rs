//! The macro [`table!`](crate::table), with which a module describes its directives.

/// Describes a module's directives of one level, and makes the types that hold them.
///
/// ```ignore
/// conf::table! {
///     /// Headers that are added to responses.
///     pub struct HeadersConf, raw HeadersRaw, module "ngx_http_headers_module", level HTTP Location;
///
///     /// Sets `Expires` and `Cache-Control`.
///     "expires" in Context::HTTP | Context::SERVER | Context::LOCATION, Args::between(1, 2), default "off",
///         scalar(parse_expires) expires: Expires = Expires::Off;
///     /// Adds a field to the response.
///     "add_header" in Context::HTTP | Context::SERVER | Context::LOCATION, Args::between(2, 3), default none,
///         list(parse_add_header) add_header: AddHeader;
///     derived { has_expires: bool = false; }
///     finish(finish_headers)
/// }
/// ```
///
/// Defaults, as the manual shows them:
/// * `default "60s"` – the text that a person would write; a test reads it and compares it with the code's value.
/// * `default computed("one for each processor")` – words for a value that no text stands for.
/// * `default none`
///
/// Kinds of rows:
/// * `scalar(parse) field: T = default` – `parse(&mut Loader, &Directive) -> Result<T>`; once a level; own, else the
///   parent's, else the default. `T: Clone`.
/// * `list(parse) field: T` – `parse` gives one element; the field is `Rc<[T]>`; a level without any inherits the
///   parent's.
/// * `set(f) field: T = default` – `f(&mut Raw, &mut Loader, &Directive) -> Result<()>` does as it likes with the raw
///   configuration, whose fields are `Option`s; inherited as a scalar.
/// * `here(parse) field: T` – `parse` as for a scalar; the field is `Option<T>`, and isn't inherited: `None` where the
///   level itself has no such directive.
/// * `last(parse) field: T` – the same, but the directive may be repeated, and the last one counts.
/// * `also(f)` – a further directive without a field: `f(&mut Raw, &mut Loader, &Directive) -> Result<()>`.
/// * `block(f)` – no field: `f(&mut Loader, &Directive) -> Result<()>`.
///
/// Fields under `derived` have no directive: `finish(f)`, with `f(&mut Conf, Option<&Conf> /* parent */, &mut Loader)
/// -> Result<()>`, computes them after inheritance; without a parent they have their default, else the parent's.
///
/// Directives that several modules have, each under its own prefix, are described once, as groups of rows. Their names
/// have no prefix, and in their texts and defaults `{}` stands for it. `finish` gets the prefix before the loader.
///
/// ```ignore
/// conf::table! {
///     /// What backend protocols can be told.
///     pub groups UpstreamConf, raw UpstreamRaw;
///
///     group timeouts {
///         /// How long a backend may take to accept a connection; see also `{}read_timeout`.
///         "connect_timeout" in EVERYWHERE, Args::exactly(1), default "60s",
///             scalar(msec) connect_timeout: u64 = 60_000;
///     }
///     group files {
///         /// The folder for responses.
///         "temp_path" in EVERYWHERE, Args::exactly(1), default "{}temp",
///             scalar(path) temp_path: PathBuf = PathBuf::new();
///     }
///     finish(|conf: &mut UpstreamConf, parent: Option<&UpstreamConf>, prefix: &str, loader: &mut Loader<'_>| Ok(()))
/// }
/// ```
///
/// A table takes the groups that its module has. The field is an `Rc<UpstreamConf>`, which a level that sets nothing of it
/// shares with its parent; what belongs to other groups has its default in it:
///
/// ```ignore
/// conf::table! {
///     /// Memcached backends.
///     pub struct MemcachedConf, raw MemcachedRaw, module "ngx_http_memcached_module", level HTTP Location;
///
///     under "memcached_" {
///         /// What all protocols have.
///         up: UpstreamConf [timeouts];
///     }
///     /// The server that responds to the location's requests.
///     "memcached_pass" in Context::LOCATION, Args::exactly(1), default none,
///         here(pass) pass: Rc<Pass>;
/// }
/// ```
#[macro_export]
macro_rules! table {
    // A module's table.
    (
        $(#[$meta:meta])*
        $vis:vis struct $conf:ident, raw $raw:ident, module $module:literal, level $block:ident $level:ident;
        $(under $prefix:literal { $($(#[$pmeta:meta])* $part:ident : $shared:ty [$($group:ident),+];)+ })?
        $(
            $(#[doc = $doc:literal])*
            $name:literal in $contexts:expr, $args:expr, default $default:tt $(($why:literal))?,
                $kind:ident($f:expr) $($field:ident : $ty:ty $(= $init:expr)?)?;
        )*
        $(derived { $($(#[$dmeta:meta])* $dfield:ident : $dty:ty = $dinit:expr;)* })?
        $(finish($finish:expr))?
    ) => {
        $crate::table! { @types
            $(#[$meta])* $vis $conf $raw
            parts { $($($(#[$pmeta])* $part: $shared, $prefix;)+)? }
            rows { $($name $kind $($field: $ty $(= $init)?)?;)* }
            derived { $($($(#[$dmeta])* $dfield: $dty = $dinit;)*)? }
        }

        impl $crate::Conf for $conf {
            fn slot() -> usize {
                Self::slot_cell().load(::std::sync::atomic::Ordering::Relaxed)
            }

            fn table() -> $crate::Table {
                let rows = vec![$(
                    $crate::table!(
                        @row $conf $raw [$($doc)*] $name $contexts, $args, [$default $($why)?], $kind($f) $($field)?
                    ),
                )*];
                $($(
                    let mut rows = rows;
                    let part = $crate::table!(@part $conf $raw $part);
                    rows.extend($crate::table::under($prefix, part, [$(<$shared>::$group()),+]));
                )+)?
                $crate::Table {
                    module: $module,
                    level: $crate::Level::$level,
                    block: $crate::Context::$block,
                    rows,
                    new_raw: || Box::new($raw::default()),
                    resolve: |raw, parent, loader| {
                        let raw = raw.map(|raw| raw.downcast_mut().expect("a slot holds its own type"));
                        let parent = parent.map(|parent| parent.downcast_ref().expect("a slot holds its own type"));
                        let conf = $conf::inherit(raw, parent, loader)?;
                        $(
                            let mut conf = conf;
                            ($finish)(&mut conf, parent, loader)?;
                        )?
                        Ok(::std::rc::Rc::new(conf))
                    },
                    leaves: |conf| conf.downcast_ref::<$conf>().expect("a slot holds its own type").leaves(),
                    set_slot: |slot| $conf::slot_cell().store(slot, ::std::sync::atomic::Ordering::Relaxed),
                }
            }
        }

        impl $conf {
            fn slot_cell() -> &'static ::std::sync::atomic::AtomicUsize {
                static SLOT: ::std::sync::atomic::AtomicUsize = ::std::sync::atomic::AtomicUsize::new(usize::MAX);
                &SLOT
            }
        }
    };

    // Groups of rows that tables take under their prefixes.
    (
        $(#[$meta:meta])*
        $vis:vis groups $conf:ident, raw $raw:ident;
        $(group $group:ident {$(
            $(#[doc = $doc:literal])*
            $name:literal in $contexts:expr, $args:expr, default $default:tt $(($why:literal))?,
                $kind:ident($f:expr) $($field:ident : $ty:ty $(= $init:expr)?)?;
        )+})+
        $(derived { $($(#[$dmeta:meta])* $dfield:ident : $dty:ty = $dinit:expr;)* })?
        $(finish($finish:expr))?
    ) => {
        $crate::table! { @types
            $(#[$meta])* $vis $conf $raw
            parts {}
            rows { $($($name $kind $($field: $ty $(= $init)?)?;)+)+ }
            derived { $($($(#[$dmeta])* $dfield: $dty = $dinit;)*)? }
        }

        impl $conf {$(
            /// The rows of this group, their names without a prefix.
            $vis fn $group() -> Vec<$crate::Row> {
                vec![$(
                    $crate::table!(
                        @row $conf $raw [$($doc)*] $name $contexts, $args, [$default $($why)?], $kind($f) $($field)?
                    ),
                )+]
            }
        )+}

        impl $crate::table::Groups for $conf {
            type Raw = $raw;

            #[allow(unused_variables)]
            fn resolve(
                raw: Option<&mut $raw>,
                parent: Option<&$conf>,
                prefix: &'static str,
                loader: &mut $crate::Loader<'_>,
            ) -> $crate::Result<$conf> {
                let conf = $conf::inherit(raw, parent, loader)?;
                $(
                    let mut conf = conf;
                    ($finish)(&mut conf, parent, prefix, loader)?;
                )?
                Ok(conf)
            }

            fn leaves(&self) -> bool {
                $conf::leaves(self)
            }
        }
    };

    // What was set at a level, what that and inheritance make of it.
    (@types
        $(#[$meta:meta])* $vis:vis $conf:ident $raw:ident
        parts { $($(#[$pmeta:meta])* $part:ident : $shared:ty, $prefix:literal;)* }
        rows { $($name:literal $kind:ident $($field:ident : $ty:ty $(= $init:expr)?)?;)* }
        derived { $($(#[$dmeta:meta])* $dfield:ident : $dty:ty = $dinit:expr;)* }
    ) => {
        $(#[$meta])*
        #[derive(Clone)]
        $vis struct $conf {
            $($(#[$pmeta])* pub $part: ::std::rc::Rc<$shared>,)*
            $($(
                #[doc = concat!("The directive `", $name, "`.")]
                pub $field: $crate::table!(@type $kind $ty),
            )?)*
            $($(#[$dmeta])* pub $dfield: $dty,)*
        }

        #[doc = concat!("What was set of [`", stringify!($conf), "`] at one level.")]
        #[derive(Default)]
        $vis struct $raw {
            $($(#[$pmeta])* pub $part: Option<<$shared as $crate::table::Groups>::Raw>,)*
            $($(
                #[doc = concat!("The directive `", $name, "`, if set.")]
                pub $field: Option<$crate::table!(@raw $kind $ty)>,
            )?)*
        }

        impl $conf {
            /// What a level with these own settings and this parent has.
            #[allow(unused_variables, unused_mut)]
            fn inherit(
                raw: Option<&mut $raw>,
                parent: Option<&$conf>,
                loader: &mut $crate::Loader<'_>,
            ) -> $crate::Result<$conf> {
                let mut none = $raw::default();
                let raw = raw.unwrap_or(&mut none);
                Ok($conf {
                    $($part: $crate::table::inherit(
                        raw.$part.as_mut(), parent.map(|parent| &parent.$part), $prefix, loader,
                    )?,)*
                    $($(
                        $field: $crate::table!(
                            @inherit $kind raw.$field, parent.map(|parent| &parent.$field) $(, $init)?
                        ),
                    )?)*
                    $($dfield: parent.map_or_else(|| $dinit, |parent| parent.$dfield.clone()),)*
                })
            }

            /// Whether it has values that levels inside don't inherit.
            fn leaves(&self) -> bool {
                false
                    $(|| $crate::table::Groups::leaves(&*self.$part))*
                    $($(|| $crate::table!(@leaves $kind self.$field))?)*
            }
        }
    };

    (@row $conf:ident $raw:ident [$($doc:literal)*] $name:literal $contexts:expr, $args:expr, [$($default:tt)+],
        $kind:ident($f:expr) $($field:ident)?
    ) => {
        $crate::Row {
            name: ::std::borrow::Cow::Borrowed($name),
            doc: ::std::borrow::Cow::Borrowed(concat!($($doc, "\n"),*)),
            contexts: $contexts,
            args: $args,
            default: $crate::table!(@default $conf $kind [$($default)+] $($field)?),
            kind: stringify!($kind),
            part: None,
            set: |raw, loader, directive| {
                let raw: &mut $raw = raw.downcast_mut().expect("a slot holds its own type");
                $crate::table!(@set $kind raw, loader, directive, $f $(, $field)?)
            },
        }
    };

    (@default $conf:ident $kind:ident [none] $($field:ident)?) => { $crate::table::DefaultValue::None };
    (@default $conf:ident $kind:ident [computed $text:literal] $($field:ident)?) => {
        $crate::table::DefaultValue::Computed(::std::borrow::Cow::Borrowed($text))
    };
    (@default $conf:ident scalar [$text:literal] $field:ident) => {
        $crate::table!(@default $conf set [$text] $field)
    };
    (@default $conf:ident set [$text:literal] $field:ident) => {
        $crate::table::DefaultValue::Text(::std::borrow::Cow::Borrowed($text), |one, other| {
            let [one, other]: [&$conf; 2] = [one, other].map(|conf| conf.downcast_ref().expect("of the row's table"));
            one.$field == other.$field
        })
    };
    (@default $conf:ident $kind:ident [$text:literal] $($field:ident)?) => {
        compile_error!("only the defaults of scalar and set rows can be compared with the code's: write computed(\"...\")")
    };

    (@part $conf:ident $raw:ident $part:ident) => {
        $crate::table::Part {
            raw: |raw| {
                let raw: &mut $raw = raw.downcast_mut().expect("a slot holds its own type");
                raw.$part.get_or_insert_default()
            },
            conf: |conf| &*conf.downcast_ref::<$conf>().expect("a slot holds its own type").$part,
        }
    };

    (@type list $ty:ty) => { ::std::rc::Rc<[$ty]> };
    (@type here $ty:ty) => { Option<$ty> };
    (@type last $ty:ty) => { Option<$ty> };
    (@type $kind:ident $ty:ty) => { $ty };
    (@raw list $ty:ty) => { Vec<$ty> };
    (@raw $kind:ident $ty:ty) => { $ty };
    (@inherit list $own:expr, $parent:expr) => {
        match ($own.take(), $parent) {
            (Some(own), _) => own.into(),
            (None, Some(parent)) => parent.clone(),
            (None, None) => ::std::rc::Rc::new([]),
        }
    };
    (@inherit here $own:expr, $parent:expr) => { $own.take() };
    (@inherit last $own:expr, $parent:expr) => { $own.take() };
    (@inherit $kind:ident $own:expr, $parent:expr, $init:expr) => {
        match ($own.take(), $parent) {
            (Some(own), _) => own,
            (None, Some(parent)) => parent.clone(),
            (None, None) => $init,
        }
    };
    (@leaves here $field:expr) => { $field.is_some() };
    (@leaves last $field:expr) => { $field.is_some() };
    (@leaves $kind:ident $field:expr) => { false };
    (@set scalar $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {{
        if $raw.$field.is_some() {
            return Err($crate::table::duplicate($directive));
        }
        $raw.$field = Some(($f)($loader, $directive)?);
        Ok(())
    }};
    (@set here $($rest:tt)*) => { $crate::table!(@set scalar $($rest)*) };
    (@set last $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {{
        $raw.$field = Some(($f)($loader, $directive)?);
        Ok(())
    }};
    (@set list $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {{
        let element = ($f)($loader, $directive)?;
        $raw.$field.get_or_insert_with(Vec::new).push(element);
        Ok(())
    }};
    (@set set $raw:ident, $loader:ident, $directive:ident, $f:expr, $field:ident) => {
        ($f)($raw, $loader, $directive)
    };
    (@set also $raw:ident, $loader:ident, $directive:ident, $f:expr) => {
        ($f)($raw, $loader, $directive)
    };
    (@set block $raw:ident, $loader:ident, $directive:ident, $f:expr) => {{
        let _ = $raw;
        ($f)($loader, $directive)
    }};
}
