"""Python's clients of mail: mail_client.py IMAP POP3 SMTP AUTHORITY. Sends a mail, puts it into a mailbox, reads it, over TLS
that begins within the sessions."""

import imaplib
import poplib
import smtplib
import ssl
import sys

imap_port, pop_port, smtp_port = (int(port) for port in sys.argv[1:4])
context = ssl.create_default_context(cafile=sys.argv[4])
context.check_hostname = False
text = b"Subject: hello\r\n\r\n" + b"".join(b"line %d\r\n" % number for number in range(2000))

with smtplib.SMTP("127.0.0.1", smtp_port) as smtp:
    smtp.starttls(context=context)
    smtp.ehlo()
    try:
        smtp.login("alice", "wrong")
        raise SystemExit("a wrong password was accepted")
    except smtplib.SMTPAuthenticationError as error:
        assert error.smtp_code == 535, error
    smtp.login("alice", "secret")
    smtp.sendmail("alice@example.com", ["bob@example.com", "carol@example.com"], text)

imap = imaplib.IMAP4("127.0.0.1", imap_port)
assert "LOGINDISABLED" in imap.capabilities and "STARTTLS" in imap.capabilities, imap.capabilities
imap.starttls(context)
try:
    imap.login("alice", "wrong")
    raise SystemExit("a wrong password was accepted")
except imaplib.IMAP4.error as error:
    assert "Invalid login" in str(error), error
imap.authenticate("PLAIN", lambda _: b"\0alice\0secret")
assert imap.append("INBOX", None, None, text)[0] == "OK"
assert imap.select("INBOX")[0] == "OK"
found = imap.search(None, "SUBJECT", "hello")[1][0].split()
kept = imap.fetch(found[-1], "(RFC822)")[1][0][1]
assert kept == text, kept[:200]
imap.logout()

pop = poplib.POP3("127.0.0.1", pop_port)
assert "STLS" in pop.capa() and "USER" not in pop.capa(), pop.capa()
pop.stls(context)
pop.user("alice")
pop.pass_("secret")
count = len(pop.list()[1])
assert count >= 1, count
assert b"\r\n".join(pop.retr(count)[1]) + b"\r\n" == text
pop.quit()
print("ok")
