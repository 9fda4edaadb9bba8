"""An application for uWSGI; its name is in the option `name`."""

import hashlib
import os
import time

import uwsgi

NAME = uwsgi.opt["name"].decode()


def lines():
    for number in range(200_000):
        yield b"%08d\n" % number


def halves(file):
    """The second half comes once a file is there."""
    yield b"first\n"
    while not os.path.exists(file):
        time.sleep(0.01)
    yield b"second\n"


def application(env, start_response):
    path = env["PATH_INFO"]

    def text(body, status="200 OK", *fields):
        body = body.encode()
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body))), *fields])
        return [body]

    if path == "/upload":
        body = env["wsgi.input"].read(int(env.get("CONTENT_LENGTH") or 0))
        return text(f"{len(body)} {hashlib.sha256(body).hexdigest()}")
    if path == "/fields":
        return text(f"{env['REQUEST_METHOD']} {env.get('HTTP_X_A', '-')} {env['QUERY_STRING']}")
    if path == "/gone":
        return text("gone", "410 Gone", ("X-B", "c"))
    if path == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return lines()
    if path == "/halves":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return halves(env["FILE"])
    return text(NAME)
