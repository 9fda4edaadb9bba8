"""An SMTP server (aiosmtpd) on 127.0.0.1: smtp_server.py PORT FILE. It takes mail of clients that have logged in as alice with
the password "secret", and appends what it gets to the file."""

import sys
import time

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword


class Keeper:
    async def handle_DATA(self, server, session, envelope):
        with open(sys.argv[2], "ab") as kept:
            head = f"from {envelope.mail_from} to {','.join(envelope.rcpt_tos)} by {session.auth_data}\n"
            kept.write(head.encode() + envelope.content.replace(b"\r\n", b"\n") + b"\n")
        return "250 kept"


def authenticate(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"alice", b"secret")
    return AuthResult(success=good, auth_data="alice")


options = {"auth_required": True, "auth_require_tls": False, "authenticator": authenticate}
Controller(Keeper(), hostname="127.0.0.1", port=int(sys.argv[1]), **options).start()
while True:
    time.sleep(60)
