"""Who may open the page, and what one request may be."""

import asyncio
import subprocess
import sys
import time

import pytest

from meta_animator.app import guard
from meta_animator.app.folders import REPOSITORY
from meta_animator.app.guard import Guard, find_password
from meta_animator.errors import UserError


def ask(headers, path="/", body=(b"",), **options):
    """(status, headers, what the page itself was given of the body)"""
    sent, given = [], []

    async def page(scope, receive, send):
        for _ in body:
            given.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    pieces = iter(body)

    async def receive():
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    asyncio.run(Guard(page, **options)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), given


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"host": "127.0.0.1:7860"}, "/", 200),
        ({"host": "[::1]:7860"}, "/", 200),
        ({"host": "rebound.example"}, "/", 403),
        ({}, "/", 403),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, "/", 200),
        ({"host": "localhost:1", "origin": "http://localhost:2"}, "/", 403),
        ({"host": "localhost:1", "origin": "null"}, "/", 403),
        ({"host": "localhost:1"}, "/gradio_api/file=https://example.org/x", 403),
        ({"host": "localhost:1"}, "/gradio_api/file=/http/x", 200),
        ({"host": "localhost:1", "content-length": str(2**21)}, "/gradio_api/queue/join", 403),
        ({"host": "localhost:1", "content-length": str(2**21)}, "/gradio_api/upload", 200),
        ({"host": "localhost:1", "content-length": str(2**41)}, "/gradio_api/upload", 403),
    ],
)
def test_who_is_answered(headers, path, status):
    assert ask(headers, path)[0] == status


def test_with_a_password_any_name_will_do_but_no_other_page_is_let_in_before_a_tunnel():
    assert ask({"host": "box.lan", "origin": "http://box.lan"}, hosts=())[0] == 200
    assert ask({"host": "10.0.0.1", "x-forwarded-host": "box.org", "origin": "https://box.org"}, hosts=())[0] == 200
    assert ask({"host": "box.lan", "origin": "http://other.lan"}, hosts=())[0] == 403
    assert ask({"host": "localhost", "origin": "https://x.gradio.live"}, hosts=(), tunneled=True)[0] == 200


def test_a_request_that_does_not_say_how_long_it_is_ends_where_it_is_too_long():
    _, _, given = ask({"host": "localhost"}, body=[bytes(guard.REQUEST_BYTES), b"x"])
    assert [message["type"] for message in given] == ["http.request", "http.disconnect"]


def test_an_address_in_the_place_of_a_file_is_not_fetched(folders, monkeypatch):
    gradio = pytest.importorskip("gradio", reason="the extra 'app' is not installed")
    from meta_animator.app import presets, ui
    from meta_animator.app.controls import Controls

    page, asked = ui.Page(Controls(folders, presets.BASES)), []

    async def download(url, cache_dir):
        asked.append(url)
        return str(folders.served / "x")

    monkeypatch.setattr(gradio.processing_utils, "async_ssrf_protected_download", download)
    file = {"path": "https://example.org/x.mp4", "meta": {"_type": "gradio.FileData"}}
    for name in ("photos", "motion"):
        with pytest.raises(gradio.Error, match="only files that were sent"):
            asyncio.run(gradio.processing_utils.async_move_files_to_cache(file, page.parts[name], check_in_upload_folder=True))
    assert not asked


def test_browsers_fetch_nothing_from_elsewhere():
    policy = ask({"host": "localhost"})[1][b"content-security-policy"].decode()
    assert "default-src 'self'" in policy and "http" not in policy and "*" not in policy


def test_a_port_that_there_is_not_is_one_line():
    command = [sys.executable, "scripts/app.py", "--port=65536"]
    answer = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (2, "error: --port 65536: expected a number from 1 to 65535\n")


def test_others_need_a_password(tmp_path, monkeypatch):
    monkeypatch.delenv(guard.PASSWORD, raising=False)
    monkeypatch.setattr("sys.stdin", None)
    assert find_password("127.0.0.1", False, None) == ""
    for host, share in (("0.0.0.0", False), ("127.0.0.1", True)):
        with pytest.raises(UserError, match=r"give --password-file FILE, or META_ANIMATOR_PASSWORD"):
            find_password(host, share, None)
    (tmp_path / "word").write_text("correct horse\n")
    assert find_password("0.0.0.0", False, tmp_path / "word") == "correct horse"
    monkeypatch.setenv(guard.PASSWORD, "short")
    with pytest.raises(UserError, match="holds 5 characters; expected 8 or more"):
        find_password("0.0.0.0", False, None)
    monkeypatch.setenv(guard.PASSWORD, "long enough")
    assert find_password("0.0.0.0", True, None) == "long enough"
    with pytest.raises(UserError, match="cannot be read"):
        find_password("0.0.0.0", True, tmp_path / "none")


def test_who_guesses_waits_and_nobody_else(monkeypatch):
    """Three guesses at once are answered one after the other; what else the page does goes on meanwhile."""
    monkeypatch.setattr(guard, "PAUSE", 0.05)
    check = guard.checks("long enough")

    async def ask():
        order = []

        async def answer(typed):
            order.append((await check("anybody", typed), typed))

        began = time.monotonic()
        await asyncio.gather(*(answer(typed) for typed in ("a", "b", "long enough", "c")))
        return order, time.monotonic() - began

    order, seconds = asyncio.run(ask())
    assert order == [(True, "long enough"), (False, "a"), (False, "b"), (False, "c")] and seconds >= 3 * 0.05
