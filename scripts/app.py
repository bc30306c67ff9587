"""The page in the browser: see app.sh beside.

bash scripts/app.sh [--folder DIR] [--port N] [--host ADDRESS] [--share] [--password-file FILE] [--quality NAME="key=value ..."]
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from meta_animator.cli import run
from meta_animator.entry import STARTED_IN
from meta_animator.errors import UserError

EVERY = 5.0  # seconds between two looks whether somebody works on what waits


def main() -> None:
    if sys.argv[1:2] in (["--worker"], ["--look"]):  # what the page starts beside itself
        if sys.argv[1] == "--worker":
            from meta_animator.app.worker import main as beside
        else:
            from meta_animator.app.looking import main as beside
        beside(*sys.argv[2:])
        return
    options = parse()
    from meta_animator.app import guard, presets
    from meta_animator.app.folders import Folders

    check = None
    if password := guard.find_password(options.host, options.share, options.password_file):
        check = guard.checks(password)
    bases = presets.BASES
    for text in options.quality:
        bases = presets.add_quality(bases, *presets.with_quality(text))
    folders = Folders(options.folder.resolve()).make()
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_TEMP_DIR": str(folders.served)}
    serve(options, folders, bases, check)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=users_path, default=Path("outputs/app"), help="where everything lies (outputs/app)")
    parser.add_argument("--port", type=int, default=7860, help="where the page is found (7860)")
    parser.add_argument("--host", default="127.0.0.1", help="another address than this machine's own; needs a password")
    parser.add_argument("--share", action="store_true", help="also through Gradio's public tunnel; needs a password")
    password = "a file with the password; or set META_ANIMATOR_PASSWORD; a terminal is asked"
    parser.add_argument("--password-file", type=users_path, metavar="FILE", help=password)
    quality = "one more quality to choose, such as tiny=\"train.max_steps=20\""
    parser.add_argument("--quality", action="append", default=[], metavar="NAME=\"key=value ...\"", help=quality)
    options = parser.parse_args()
    if not 0 < options.port < 2**16:
        raise UserError(f"--port {options.port}: expected a number from 1 to {2**16 - 1}")
    return options


def users_path(text: str) -> Path:
    return Path(os.environ.get(STARTED_IN, "")) / text


def serve(options: argparse.Namespace, folders, bases, check) -> None:
    try:
        from starlette.middleware import Middleware

        from meta_animator.app.ui import Door, Page
        from meta_animator.app.ui import serve as open_page
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; bash scripts/app.sh does it, or pip install -e '.[app]'") from error
    from meta_animator.app import guard, jobs, uploads
    from meta_animator.app.controls import Controls

    known = guard.LOOPBACK if guard.is_loopback(options.host) and not options.share else ()
    page = Page(Controls(folders, bases))
    door = Door(options.host, options.port, options.share, check)
    files = [str(folder) for folder in (folders.drafts, folders.people, folders.jobs)]
    try:
        open_page(page, door, [Middleware(guard.Guard, hosts=known, tunneled=options.share)], files, uploads.FILM_BYTES)
    except OSError as error:
        if "port" not in str(error):
            raise
        raise UserError(
            f"--host {options.host} --port {options.port}: cannot be had; the port is taken, maybe by this very page (open it, "
            "or give another port), or the address is not this machine's"
        ) from error
    print(f"the page: http://{options.host}:{options.port}; it keeps everything in {folders.root}; Ctrl-C ends it", flush=True)
    try:
        watch(folders)
    finally:
        page.blocks.close(verbose=False)
        if any(job.state == jobs.RUNNING for job in jobs.list_jobs(folders)):
            print("what was begun goes on without the page; open it again to see it", flush=True)


def watch(folders) -> None:
    """Sees that somebody works while jobs wait, until the process is asked to end."""
    from meta_animator.app import jobs

    ended, told = threading.Event(), ""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    while True:
        try:
            jobs.ensure_worker(folders.make())
        except (OSError, UserError) as error:  # a full disk; it may have room again
            if str(error) != told:
                print(f"note: nobody can be set to work: {error}", flush=True)
            told = str(error)
        if ended.wait(EVERY):
            return


if __name__ == "__main__":
    run(main)
