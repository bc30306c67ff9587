"""What stands between the network and the page: who may ask, for what, how much, and what a browser may fetch for it."""

import asyncio
import hmac
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from meta_animator.app.uploads import FILM_BYTES
from meta_animator.errors import UserError

Message = MutableMapping[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PASSWORD = "META_ANIMATOR_PASSWORD"
SHORTEST, PAUSE = 8, 1.0  # characters of a password, and seconds after a wrong one
UPLOAD_BYTES, REQUEST_BYTES = 2 * FILM_BYTES, 2**20  # of what is sent in one request
POLICY = "; ".join((
    "default-src 'self'", "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:", "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:", "media-src 'self' data: blob:", "font-src 'self' data:", "connect-src 'self'",
    "worker-src 'self' blob:", "frame-ancestors 'none'", "object-src 'none'", "form-action 'self'", "base-uri 'self'",
))  # fmt: skip
HEADERS = [
    (b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer"), (b"x-content-type-options", b"nosniff"),
]  # fmt: skip


class Guard:
    """ASGI middleware.

    hosts     the names under which the page may be asked for; empty: any, for there is a password
    tunneled  whether it is also reached under names that this machine does not know
    """

    def __init__(self, app: Callable[..., Awaitable[None]], hosts: tuple[str, ...] = LOOPBACK, tunneled: bool = False):
        self.app, self.hosts, self.tunneled = app, hosts, tunneled

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        most = UPLOAD_BYTES if scope["path"].rstrip("/").endswith("/upload") else REQUEST_BYTES
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if why := self.refusal(scope, headers) or ("too much at once" if _length(headers) > most else ""):
            await refuse(send, why)
            return
        await self.app(scope, limited(receive, most), with_headers(send))

    def refusal(self, scope: Message, headers: MutableMapping[str, str]) -> str:
        """Why the request is not answered; "" where it is."""
        host = urlsplit(f"//{headers.get('host', '')}")
        if self.hosts and (host.hostname or "") not in self.hosts:
            return "this page is not known under that name"
        origin, own = headers.get("origin", ""), (headers.get("host"), headers.get("x-forwarded-host"))
        if not self.tunneled and origin and urlsplit(origin).netloc not in own:
            return "another page may not use this one"
        if "file=http:" in scope["path"].replace("/", "") or "file=https:" in scope["path"].replace("/", ""):
            return "nothing is fetched from elsewhere"
        return ""


def limited(receive: Receive, most: int) -> Receive:
    """Ends a request that sends more than it may, as if its sender had left."""
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return message if total <= most else {"type": "http.disconnect"}

    return counted


def with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return sent


async def refuse(send: Send, why: str) -> None:
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain"), *HEADERS]})
    await send({"type": "http.response.body", "body": why.encode()})


def is_loopback(host: str) -> bool:
    return host in LOOPBACK


def find_password(host: str, share: bool, file: Path | None) -> str:
    """The password, "" where none is needed. Raises UserError where others may come in and there is none, or a weak one."""
    asked = share or not is_loopback(host)
    password, where = "", ""
    if file is not None:
        where = f"--password-file {file}"
        try:
            password = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{where}: cannot be read ({error})") from error
    elif os.environ.get(PASSWORD):
        where, password = PASSWORD, os.environ[PASSWORD]
    elif asked and sys.stdin is not None and sys.stdin.isatty():
        import getpass

        where, password = "the password", getpass.getpass("A password for those who open the page: ")
    elif asked:
        raise UserError(
            f"{'--share' if share else f'--host {host}'}: others can open the page then; give --password-file FILE, or {PASSWORD}"
        )
    else:
        return ""
    if len(password) < SHORTEST:
        raise UserError(f"{where}: holds {len(password)} characters; expected {SHORTEST} or more")
    return password


def checks(password: str) -> Callable[[str, str], Awaitable[bool]]:
    """Whether what somebody typed is the password; the name does not matter. Whoever guesses waits for all who guessed before;
    nobody else does."""
    guesses = asyncio.Lock()

    async def check(_name: str, typed: str) -> bool:
        if hmac.compare_digest(typed.encode(), password.encode()):
            return True
        async with guesses:
            await asyncio.sleep(PAUSE)
        return False

    return check


def _length(headers: MutableMapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() else 0
