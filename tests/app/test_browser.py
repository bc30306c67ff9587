"""The whole journey in a real browser, with the real stages on the embedded base."""

import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from meta_animator import published
from meta_animator.annotators.sets import ANNOTATORS, AnnotatorSet
from meta_animator.app import jobs, processes
from meta_animator.app.folders import Folders
from meta_animator.media.video import VideoSource
from meta_animator.stages.animate import is_generated

ROOT = Path(__file__).parents[2]
BROWSER = os.environ.get("META_ANIMATOR_BROWSER") or os.environ.get("CHROMIUM") or "/usr/bin/chromium"
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
TINY = (
    "tiny=train.max_steps=30 train.batch_size=1 train.log_every=1 train.preview_every=0 train.measure_every=0 data.crops=1 "
    "data.random_crop=0 model.tasks=[dwpose] sample.num_inference_steps=2"
)  # fmt: skip
MINUTE = 60_000
NETWORKS = [name for one in AnnotatorSet("light").names for name in ANNOTATORS[one].weights]

pytest.importorskip("gradio", reason="the extra 'app' is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(not Path(BROWSER).exists(), reason=f"no browser at {BROWSER}; META_ANIMATOR_BROWSER names one"),
    pytest.mark.skipif(not all(map(published.is_here, NETWORKS)), reason="the networks of the light annotators are not here"),
]


class Server:
    """The page's program."""

    def __init__(self, python, folders):
        self.folders = folders
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.command = [str(python), "scripts/app.py", "--folder", str(folders.root), "--port", str(port), "--quality", TINY]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.address in self.process.stdout.readline()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(scope="module")
def server(tmp_path_factory, warm):
    server = Server(warm, Folders(tmp_path_factory.mktemp("page") / "app"))
    try:
        yield server
    finally:
        server.stop()
        for job in jobs.list_jobs(server.folders):
            if job.state not in jobs.ENDED:
                (job.folder / "stop").touch()
                processes.end_now(jobs.process_of(job.folder))


@pytest.fixture
def browser():
    playwright.expect.set_options(timeout=MINUTE)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        yield browser
        browser.close()


class Tab:
    """A page as somebody uses it."""

    def __init__(self, context, address):
        self.page, self.address, self.asked = context.new_page(), address, []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.set_default_timeout(MINUTE)
        self.page.goto(address)
        self.page.wait_for_selector("#start")

    def drop(self, where, *files):
        self.page.locator(f"#{where} input[type=file]").set_input_files([str(file) for file in files])

    def sees(self, where, text="", timeout=MINUTE):
        """Waits until the part shows the text; returns all of its own."""
        playwright.expect(self.page.locator(where).first).to_contain_text(text, timeout=timeout)
        return "".join(self.page.locator(where).all_inner_texts()[:1])

    def state(self, *wanted):
        playwright.expect(self.page.locator("#status .chip")).to_have_attribute("data-state", re.compile("|".join(wanted)))

    def click(self, where):
        self.page.locator(where).click()

    def choose(self, where, text):
        self.page.locator(f"#{where} label", has_text=text).first.click()

    def reload(self, tries=3):
        """A page that has lost its program reloads itself when that is back, maybe in this very moment: that is waited out."""
        for left in reversed(range(tries)):
            try:
                self.page.reload()
                break
            except playwright.Error:
                if not left:
                    raise
                self.page.wait_for_load_state()
        self.page.wait_for_selector("#start")


def test_from_photos_to_a_video_and_to_the_next_one(server, browser, dropped):
    address, folders = server.address, server.folders
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    tab = Tab(context, address)

    tab.drop("photos", dropped / "notes.txt")
    tab.sees("#seen-photos .error", "notes.txt: is a text file; expected photos")
    tab.drop("motion", dropped / "broken.jpg")
    tab.sees("#seen-motion .error", "broken.jpg")
    tab.click("#start")
    tab.sees("#seen-motion .error", "there is no motion yet")

    tab.drop("photos", *sorted((dropped / "photos").iterdir()))
    tab.drop("motion", dropped / "dance.mp4")
    playwright.expect(tab.page.locator("#seen-photos img")).to_have_count(5)
    assert "5 of 5 photos can be used" in tab.sees("#seen-photos") and "from behind" in tab.sees("#seen-photos")
    tab.sees("#seen-motion", "a film: 6 frames")
    tab.reload()  # what was dropped is still there
    tab.sees("#seen-photos", "5 of 5 photos can be used")
    tab.page.locator("#name input, #name textarea").fill("Anna <b>")
    tab.choose("quality", "tiny")
    tab.sees("#choice", "30 steps of learning")
    tab.click("#start")
    tab.state("running")
    tab.sees("#status h2", "Anna_b in dance.mp4")

    other = Tab(context, address)  # of its own: the same jobs, nothing of what the first one drops
    other.state("running")
    assert "5 of 5 photos can be used" not in other.page.locator("body").inner_text()
    other.drop("motion", dropped / "wave.npz")
    other.sees("#seen-motion", "keypoints: 6 frames")
    other.click("#person input")
    other.page.get_by_role("option", name="Anna_b").click()
    other.choose("quality", "tiny")
    other.click("#start")
    other.sees("#status .chip", "waiting, number 1")
    other.click("#cancel")
    other.state("cancelled")

    tab.reload()
    tab.sees("#status", "step", 2 * MINUTE)
    tab.sees("#status .now", "Learning")
    tab.click("#cancel")
    tab.state("cancelled")
    tab.sees("#status .now", "stopped here")
    tab.click("#go-on")
    tab.state("running")
    other.click("#go-on")
    other.sees("#status .chip", "waiting, number 1")
    server.stop()  # which ends nothing that was begun
    server.start()
    tab.reload()
    other.reload()
    tab.state("running")
    tab.state("done")
    (first, second) = sorted(jobs.list_jobs(folders), key=lambda job: job.id)
    assert "continuing" in first.log.read_text() and is_generated(first.video)
    playwright.expect(tab.page.locator("#result video")).to_have_count(2)
    tab.page.wait_for_function("[...document.querySelectorAll('#result video')].every(film => film.videoWidth > 0)")
    tab.sees("#learning", "loss at step 30")

    other.state("done")
    second = jobs.find(folders, second.id)
    assert "learned already" in second.log.read_text().rpartition("\n$ ")[2] and VideoSource(second.video).num_frames == 6
    tab.click("#pack")
    with tab.page.expect_download() as download:
        tab.page.get_by_text("Download the LoRA").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert "Anna_b-loras/dwpose/adapter_model.safetensors" in archive.namelist()

    for one in (tab, other):
        assert not [url for url in one.asked if not url.startswith((f"{address}/", "data:", "blob:"))]
    tab.page.set_viewport_size({"width": 400, "height": 900})
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
    assert not tab.page.locator("footer").is_visible()


def answer(address, path, **headers):
    request = urllib.request.Request(f"{address}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as found:
            return found.status, found.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_nothing_but_its_own_files_can_be_read_and_no_other_page_can_ask(server):
    address, folders = server.address, server.folders
    mine = folders.people / "somebody.txt"
    mine.write_text("inside")
    (folders.root / "secret.txt").write_text("beside")
    (folders.people / "link.txt").symlink_to(folders.root / "secret.txt")
    path = "/gradio_api/file="
    assert answer(address, f"{path}{mine}") == (200, b"inside")
    for other in (ROOT / "README.md", "/etc/passwd", folders.root / "secret.txt", folders.people / ".." / "secret.txt",
                  f"{folders.people}/%2e%2e/secret.txt", folders.people / "link.txt", "scripts/app.py",
                  "http://127.0.0.1:1/", "https://example.org/a.png"):  # fmt: skip
        code, said = answer(address, f"{path}{other}")
        assert code in (403, 404) and b"beside" not in said, other
    assert answer(address, "/", Host="example.org:80")[0] == 403
    assert answer(address, "/config", Origin="http://example.org")[0] == 403
    port = address.rpartition(":")[2]
    assert answer(address, "/", Host=f"localhost:{port}", Origin=f"http://localhost:{port}")[0] == 200
