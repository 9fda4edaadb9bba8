"""A gRPC client of grpcio: python3 grpc_client.py PORT WHAT [ARGUMENT]; with CA in the environment, over TLS."""
import os
import queue
import sys
import threading

import grpc

PORT, WHAT, ARGUMENT = sys.argv[1], sys.argv[2], sys.argv[3:]


def connect():
    options = (("grpc.use_local_subchannel_pool", 1),)
    ca = os.environ.get("CA")
    if ca is None:
        return grpc.insecure_channel("127.0.0.1:" + PORT, options)
    credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
    options += (("grpc.ssl_target_name_override", "site"),)
    return grpc.secure_channel("127.0.0.1:" + PORT, credentials, options)


def text(metadata, name):
    return dict(metadata or ()).get(name, "-")


def calls(channel):
    """All four kinds of calls, and what ends them."""
    unary = channel.unary_unary("/t.Echo/Unary")
    answer, call = unary.with_call(b"abc", metadata=(("x-word", "w"),), timeout=20)
    print("unary", answer.decode(), text(call.initial_metadata(), "x-first"), text(call.trailing_metadata(), "x-last"))
    large = os.urandom(1 << 20)
    print("large", unary(large, timeout=20) == large[::-1])
    try:
        channel.unary_unary("/t.Echo/Fail")(b"word", timeout=20)
    except grpc.RpcError as error:
        print("fail", error.code().name, error.details(), text(error.trailing_metadata(), "x-why"))
    try:
        channel.unary_unary("/t.Echo/Nothing")(b"word", timeout=20)
    except grpc.RpcError as error:
        print("nothing", error.code().name)
    answers = list(channel.unary_stream("/t.Echo/Down")(b"3000", timeout=20))
    print("down", len(answers), answers[-1].decode())
    parts = (bytes(1000) for _ in range(2000))
    print("up", channel.stream_unary("/t.Echo/Up")(parts, timeout=20).decode())
    # The next message is sent when the answer to the one before has come: nothing may be held back.
    said, heard = queue.Queue(), []
    said.put(b"0")
    for answer in channel.stream_stream("/t.Echo/Both")(iter(said.get, None), timeout=20):
        heard.append(answer.decode())
        said.put(b"%d" % len(heard) if len(heard) < 100 else None)
    print("both", len(heard), heard[-1])
    # All is sent before anything is read.
    parts = [bytes([n % 256]) * 10_000 for n in range(100)]
    answers = [answer[1:-1] for answer in channel.stream_stream("/t.Echo/Both")(iter(parts), timeout=20)]
    print("flood", answers == parts)
    said = queue.Queue()
    said.put(b"one")
    answers = list(channel.stream_stream("/t.Echo/First")(iter(said.get, None), timeout=20))
    print("first", [answer.decode() for answer in answers])


def load(channel):
    """Calls without end from four threads, until standard input ends; then what came of them."""
    counts, over = {}, threading.Event()
    lock = threading.Lock()

    def run(number):
        unary = channel.unary_unary("/t.Echo/Unary")
        n = 0
        while not over.is_set():
            n += 1
            message = b"%d-%d" % (number, n)
            try:
                outcome = "OK" if unary(message, timeout=20) == message[::-1] else "WRONG"
            except grpc.RpcError as error:
                outcome = f"{error.code().name} {error.details()}"
            with lock:
                counts[outcome] = counts.get(outcome, 0) + 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    print("running", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    for outcome, count in counts.items():
        print(outcome, count)


def cancel(channel):
    """A call of which nothing comes, given up."""
    call = channel.unary_stream("/t.Echo/Silent")(ARGUMENT[0].encode(), timeout=20)
    threading.Timer(0.2, call.cancel).start()
    try:
        list(call)
    except grpc.RpcError as error:
        print("cancel", error.code().name)


with connect() as channel:
    {"calls": calls, "load": load, "cancel": cancel}[WHAT](channel)
