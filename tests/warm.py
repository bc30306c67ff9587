"""A Python that has loaded the large libraries: of shell scripts that start a dozen processes, each is then spared the same
seconds of imports. Every command is a process of its own all the same, and imports meta_animator anew.

    python tests/warm.py serve SOCKET          loads them, then forks at every request
    python tests/warm.py ask SOCKET PYTHON ... runs `PYTHON ...` as a fork of it, with this process's folder, variables, streams
"""

import json
import os
import runpy
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from pathlib import Path

PYTHON = "META_ANIMATOR_TESTS_PYTHON"


@contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """folder/bin/python, which starts a script within moments; any other use of it is the real one's. As an environment, the
    folder has what this one has installed."""
    python, address = folder / "bin" / "python", folder / "socket"
    python.parent.mkdir(parents=True)
    for stamp in Path(sys.prefix).glob(".meta-animator-*"):
        shutil.copy(stamp, folder)
    ask = [sys.executable, "-SE", __file__, "ask", str(address), sys.executable]
    python.write_text(f'#!/bin/sh\n{PYTHON}=$0 exec {shlex.join(ask)} "$@"\n')
    python.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(address)], env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL
    )
    try:
        while not address.exists():
            assert server.poll() is None, "the libraries could not be loaded"
            time.sleep(0.1)
        yield python
    finally:
        server.kill()
        server.wait()


def ask(address: str, python: str, *arguments: str) -> int:
    """The exit code of `python *arguments`."""
    if arguments[:1] == ("-u",):  # torch's launcher
        arguments = arguments[1:]
    if not arguments[:1] or arguments[0].startswith("-"):
        os.execv(python, [python, *arguments])
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        socket.send_fds(server, [b"."], [0, 1, 2])
        server.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode())
        server.shutdown(socket.SHUT_WR)
        pid = int(server.recv(8))
        signal.signal(signal.SIGTERM, lambda number, frame: pass_on(pid, number))
        return int(server.recv(8))


def pass_on(pid: int, number: int) -> None:
    """As if the signal had been sent to the script."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def serve(address: str) -> None:
    from accelerate import Accelerator  # noqa: F401
    from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNetMotionModel  # noqa: F401
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen()
        os.rename(f"{address}.new", address)
        while True:
            client, _ = server.accept()
            get_context("fork").Process(target=answer, args=(client,)).start()
            client.close()
            active_children()  # takes leave of those that have ended


def answer(client: socket.socket) -> None:
    """A process of its own, since a script may give its place to another one (os.execv), which then asks in turn."""
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile("rb") as request:
        arguments, folder, variables = json.load(request)
    script = get_context("fork").Process(target=start, args=(streams, arguments, folder, variables))
    script.start()
    client.sendall(f"{script.pid:<8}".encode())
    script.join()
    client.sendall(str(script.exitcode if script.exitcode >= 0 else 128 - script.exitcode).encode())


def start(streams: list[int], arguments: list[str], folder: str, variables: dict[str, str]) -> None:
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.executable = os.environ.pop(PYTHON)
    sys.argv = arguments
    script = Path(folder, arguments[0])
    sys.path[:] = [str(script.parent), *filter(None, variables.get("PYTHONPATH", "").split(os.pathsep)), *sys.path[1:]]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "ask":
        sys.exit(ask(*sys.argv[2:]))
    serve(sys.argv[2])
