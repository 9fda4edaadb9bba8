"""HTTP/2 over TLS by Python's h2. Arguments, behind a port:

- `requests PATH…`: asks for all of them at once, prints status and length of each.
- `upload PATH SIZE`: sends so many bytes, prints the answer.
- `websocket PATH END TEXT…` (RFC 8441): sends texts, prints what comes back, ends by "close" (a Close frame) or "half"
  (END_STREAM), prints how the stream ends.
"""

import os
import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

PORT = int(sys.argv[1])


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
    """A connection."""

    def __init__(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", PORT), timeout=20)
        self.socket = context.wrap_socket(plain, server_hostname="localhost")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.data, self.status, self.end = {}, {}, {}
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def open(self, head, end=False):
        """Sends a head on a new stream."""
        stream = self.h2.get_next_available_stream_id()
        self.data[stream] = b""
        head = [(":scheme", "https"), (":authority", f"localhost:{PORT}")] + head
        self.h2.send_headers(stream, sorted(head, key=lambda field: field[0][0] != ":"), end_stream=end)
        self.flush()
        return stream

    def events(self):
        """What comes with the next read."""
        data = self.socket.recv(65536)
        assert data, "the connection ended"
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.ResponseReceived):
                self.status[event.stream_id] = dict(event.headers)[":status"]
            if isinstance(event, h2.events.DataReceived):
                self.data[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if isinstance(event, h2.events.StreamEnded):
                self.end[event.stream_id] = "ended"
            if isinstance(event, h2.events.StreamReset):
                self.end.setdefault(event.stream_id, f"reset {event.error_code}")
        self.flush()
        return events

    def finish(self, *streams):
        """Waits for the end of streams."""
        while not all(stream in self.end for stream in streams):
            self.events()

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

    def frame(self, stream):
        """The next frame of a WebSocket."""
        while not unframed(self.data[stream]):
            self.events()
        kind, text, self.data[stream] = unframed(self.data[stream])
        return kind, text


def requests(client, *paths):
    streams = [client.open([(":method", "GET"), (":path", path)], end=True) for path in paths]
    client.finish(*streams)
    for path, stream in zip(paths, streams):
        print(path, client.status[stream], len(client.data[stream]), client.end[stream])


def upload(client, path, size):
    stream = client.open([(":method", "POST"), (":path", path), ("content-length", size)])
    client.send(stream, b"u" * int(size))
    client.h2.end_stream(stream)
    client.flush()
    client.finish(stream)
    print(client.status[stream], client.data[stream].decode())


def websocket(client, path, end, *texts):
    assert client.h2.remote_settings.enable_connect_protocol == 1, "extended CONNECT isn't offered"
    head = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", path), ("sec-websocket-version", "13")]
    stream = client.open(head)
    answer = dict(client.until(h2.events.ResponseReceived).headers)
    print("status", answer[":status"], sorted({"upgrade", "connection", "sec-websocket-accept"} & set(answer)))
    for text in texts:
        client.send(stream, masked(1, text.encode()))
        print("text", client.frame(stream)[1].decode())
    if end == "close":
        client.send(stream, masked(8, (1000).to_bytes(2, "big")))
        print("close", int.from_bytes(client.frame(stream)[1][:2], "big"))
    else:
        client.h2.end_stream(stream)
        client.flush()
    client.finish(stream)
    print("stream", client.end[stream])


CLIENT = Client()
CLIENT.until(h2.events.RemoteSettingsChanged)
{"requests": requests, "upload": upload, "websocket": websocket}[sys.argv[2]](CLIENT, *sys.argv[3:])
