"""A WebSocket over HTTP/2 (RFC 8441) by Python's h2: sends texts, prints what comes back and how the stream ends.

Arguments: port, path, "close" (a Close frame ends it) or "half" (END_STREAM does), the texts.
"""

import os
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

PORT, PATH, END, TEXTS = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]


def masked(kind, text):
    """A frame of RFC 6455 as a client sends it."""
    mask = os.urandom(4)
    if len(text) < 126:
        head = bytes([0x80 | kind, 0x80 | len(text)])
    else:
        head = bytes([0x80 | kind, 0xFE]) + len(text).to_bytes(2, "big")
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(text))


def unframed(data):
    """The first whole frame of a server, and what stands behind it."""
    if len(data) < 2:
        return None
    size, at = data[1], 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    if len(data) < at + size:
        return None
    return data[0] & 15, data[at : at + size], data[at + size :]


class Client:
    def __init__(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        self.flush()
        self.data, self.end = b"", None

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def events(self):
        """What comes with the next read."""
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.StreamEnded):
                self.end = "ended"
            if isinstance(event, h2.events.StreamReset):
                self.end = self.end or f"reset {event.error_code}"
        self.flush()
        return events

    def until(self, kind):
        """The first event of a kind."""
        while True:
            for event in self.events():
                if isinstance(event, kind):
                    return event

    def send(self, stream, data):
        """Sends all of it, as the windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            self.h2.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
            if data:
                self.events()

    def frame(self):
        while not unframed(self.data):
            self.events()
        kind, text, self.data = unframed(self.data)
        return kind, text


def main():
    client = Client()
    client.until(h2.events.RemoteSettingsChanged)
    assert client.h2.remote_settings.enable_connect_protocol == 1, "extended CONNECT isn't offered"
    stream = client.h2.get_next_available_stream_id()
    head = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":path", PATH)]
    head += [(":authority", f"localhost:{PORT}"), ("sec-websocket-version", "13")]
    client.h2.send_headers(stream, head)
    client.flush()
    answer = {bytes(name): bytes(value) for name, value in client.until(h2.events.ResponseReceived).headers}
    forbidden = {b"upgrade", b"connection", b"sec-websocket-accept"} & set(answer)
    print("status", answer[b":status"].decode(), sorted(forbidden))
    for text in TEXTS:
        client.send(stream, masked(1, text.encode()))
        print("text", client.frame()[1].decode())
    if END == "close":
        client.send(stream, masked(8, (1000).to_bytes(2, "big")))
        print("close", int.from_bytes(client.frame()[1][:2], "big"))
    else:
        client.h2.end_stream(stream)
        client.flush()
    while client.end is None:
        client.events()
    print("stream", client.end)


main()
