"""A small SMTP server on loopback: the protocol of RFC 5321 as far as one message needs it, with answers that a test chooses."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage


@dataclass
class Post:
    """What arrived. `replies` to MAIL FROM in turn, the last one for ever."""

    port: int = 0
    replies: list[str] = field(default_factory=lambda: ["250 ok"])
    recipients: list[str] = field(default_factory=list)
    messages: list[EmailMessage] = field(default_factory=list)


@contextmanager
def post_office() -> Iterator[Post]:
    """A server that takes every message that it answered 250 to."""
    post = Post()

    class Session(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 test")
            for raw in self.rfile:
                verb = raw.decode().strip().split(" ")[0].upper()
                if verb == "MAIL":
                    self.say(post.replies.pop(0) if len(post.replies) > 1 else post.replies[0])
                elif verb == "RCPT":
                    post.recipients.append(raw.decode().split("<")[1].split(">")[0])
                    self.say("250 ok")
                elif verb == "DATA":
                    self.say("354 go on")
                    lines = []
                    for line in self.rfile:
                        if line == b".\r\n":
                            break
                        lines.append(line[1:] if line.startswith(b"..") else line)
                    post.messages.append(message_from_bytes(b"".join(lines), policy=policy.default))
                    self.say("250 taken")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Session) as server:
        server.daemon_threads = True
        post.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield post
        finally:
            server.shutdown()
