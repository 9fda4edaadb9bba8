//! `mqtt_preread`: client identifier and user name of MQTT clients, before a backend is chosen. As in Angie and nginx Plus.

use conf::values::flag;
use conf::{Args, Registry, Result};
use expr::vars::Flags;
use wire::mqtt;
use wire::tagged::{Reader, Writer};

use super::{Found, keep, kept};
use crate::module::{Examined, Handlers, Preread, ServerContext, StreamModule};
use crate::proto::{EVERYWHERE, Getter, Setup};
use crate::session::StreamSession;

/// The module.
pub struct MqttPreread;

conf::table! {
    /// Whether CONNECT messages are read.
    pub struct MqttPrereadConf, raw MqttPrereadRaw, module "ngx_stream_mqtt_preread_module", level STREAM Server;

    /// Reads what an MQTT client says first (CONNECT of versions 3.1, 3.1.1 and 5.0).
    ///
    /// Effect: `$mqtt_preread_clientid` and `$mqtt_preread_username` have values, by which a balancer may choose a backend.
    /// A client that doesn't speak MQTT is served too; the variables are empty then. What was read goes to the backend
    /// unchanged.
    ///
    /// Cost: up to `preread_buffer_size` of memory until the session has its backend; a client that sends less than is
    /// needed is waited for (`preread_timeout`).
    ///
    /// Danger: no password is checked here. Values suit for choosing a backend, not for access.
    ///
    /// ```nginx
    /// upstream brokers {
    ///     hash $mqtt_preread_clientid consistent;
    ///     server 192.0.2.1:1883;
    ///     server 192.0.2.2:1883;
    /// }
    /// server {
    ///     listen 1883;
    ///     mqtt_preread on;
    ///     proxy_pass brokers;
    /// }
    /// ```
    "mqtt_preread" in EVERYWHERE, Args::FLAG, default "off",
        scalar(flag) mqtt_preread: bool = false;
}

/// What a client has said of itself.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Client {
    pub(super) id: Box<[u8]>,
    pub(super) username: Box<[u8]>,
}

impl Found for Client {
    const MODULE: &'static [u8] = b"mqtt_preread";

    fn encode(&self, out: &mut Writer) {
        out.bytes(1, &self.id).bytes(2, &self.username);
    }

    fn decode(fields: Reader<'_>) -> Option<Client> {
        Some(Client { id: fields.bytes(1)?.into(), username: fields.bytes(2)?.into() })
    }
}

impl StreamModule for MqttPreread {
    fn tables(&self, registry: &mut Registry) {
        registry.add::<MqttPrereadConf>();
    }

    fn variables(&self, setup: &mut Setup) {
        common::variables! { setup, "ngx_stream_mqtt_preread_module";
            /// The client identifier of an MQTT client. Empty without `mqtt_preread`, and if the server is to choose it.
            "mqtt_preread_clientid", Flags::NONE, Getter::Plain(|s, out| kept::<Client>(s, out, |client| Some(&client.id)));
            /// The user name of an MQTT client. Empty without `mqtt_preread`, and if the client gives none.
            "mqtt_preread_username", Flags::NONE, Getter::Plain(|s, out| kept::<Client>(s, out, |client| Some(&client.username)));
        }
    }

    fn server(&self, cx: &mut ServerContext<'_, '_>, out: &mut Handlers) -> Result<()> {
        if cx.set.get::<MqttPrereadConf>().mqtt_preread {
            out.preread.push(Box::new(MqttPreread));
        }
        Ok(())
    }
}

impl Preread for MqttPreread {
    fn examine(&self, s: &mut StreamSession, bytes: &[u8]) -> Examined {
        match mqtt::parse(bytes) {
            Ok(None) => Examined::More,
            Ok(Some(connect)) => {
                let username = connect.username.map(|name| name.of(bytes).into()).unwrap_or_default();
                keep(s, Client { id: connect.client_id.of(bytes).into(), username });
                Examined::Done
            }
            Err(mqtt::NotConnect) => Examined::Done,
        }
    }
}
