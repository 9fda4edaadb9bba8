"""A gRPC server of grpcio: python3 grpc_server.py PORT [CERTIFICATE KEY]. Messages are bytes as they are."""
import sys
from concurrent import futures

import grpc


def unary(request, context):
    words = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-first", words.get("x-word", "-")),))
    context.set_trailing_metadata((("x-last", context.peer().split(":")[0]),))
    return request[::-1]


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no: " + request.decode())


def down(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def up(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield b"<" + request + b">"


def first_word(requests, context):
    """Answers before the client has said all."""
    yield b"enough after " + next(requests)


def silent(request, context):
    """Says nothing before the call is over; then notes that in a file."""
    ended = futures.Future()
    context.add_callback(lambda: ended.set_result(None))
    ended.result(30)
    with open(request, "w") as file:
        file.write("over")
    yield b""


def check(request, context):
    """grpc.health.v1: the request's only field is the name of a service."""
    service = request[2:].decode()
    if service not in ("", "good", "bad"):
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    assert dict(context.invocation_metadata())["x-check"] == "yes"
    return b"\x08\x02" if service == "bad" else b"\x08\x01"


class Handlers(grpc.GenericRpcHandler):
    METHODS = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "First": grpc.stream_stream_rpc_method_handler(first_word),
        "Check": grpc.unary_unary_rpc_method_handler(check),
        "Silent": grpc.unary_stream_rpc_method_handler(silent),
    }

    def service(self, details):
        return self.METHODS.get(details.method.rpartition("/")[2])


def main():
    port, files = sys.argv[1], sys.argv[2:]
    # Restarted on the port of one that was killed, whose connections may linger.
    server = grpc.server(futures.ThreadPoolExecutor(16), options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((Handlers(),))
    address = "127.0.0.1:" + port
    if files:
        certificate, key = (open(name, "rb").read() for name in files)
        bound = server.add_secure_port(address, grpc.ssl_server_credentials(((key, certificate),)))
    else:
        bound = server.add_insecure_port(address)
    assert bound == int(port), bound
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


main()
