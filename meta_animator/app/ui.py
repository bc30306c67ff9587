"""The page in Gradio: which component stands where, and which click of `controls` it calls."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio_client.utils import is_http_url_like

from meta_animator.app.controls import NEW, SOMEBODY, Controls, Drafts, Now
from meta_animator.app.presets import Base

EVERY = 1.5  # seconds between two looks at how things stand
MOST_SESSIONS = 500  # of whom what they show is known; others are sent all anew
STYLE = Path(__file__).with_name("style.css")
KEPT = "meta-animator"  # in the browser's memory of a tab
RESTORE = f"() => JSON.parse(sessionStorage.getItem('{KEPT}') || '[\"\", null]')"
KEEP = f"(draft, job) => {{ sessionStorage.setItem('{KEPT}', JSON.stringify([draft, job])); }}"
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
HEAD = "<h1>Meta-Animator</h1><p>Photos of a person and a motion make a video of that person in that motion.</p>"


@dataclasses.dataclass
class Shown:
    """What a page shows: of each component the properties that it was sent, the problems by place, and its drafts."""

    parts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    problems: dict[str, str] = dataclasses.field(default_factory=dict)
    drafts: Drafts = dataclasses.field(default_factory=Drafts)
    lock: Any = dataclasses.field(default_factory=threading.Lock)


class Page:
    """`blocks` is what Gradio serves."""

    def __init__(self, controls: Controls):
        self.controls, self.parts = controls, {}
        self.lock = threading.Lock()
        self.shown: OrderedDict[str, Shown] = OrderedDict()  # by session, the longest unused first
        with gr.Blocks(title="Meta-Animator", analytics_enabled=False, delete_cache=(3600, 86400)) as self.blocks:
            gr.HTML(HEAD, elem_id="head")
            self.draft, self.wanted = gr.Textbox(visible=False), gr.Textbox(visible=False)
            with gr.Row(equal_height=False):
                with gr.Column(scale=2, min_width=320):
                    self._wish(controls.bases)
                with gr.Column(scale=3, min_width=320):
                    self._job()
            self._connect()

    def _wish(self, bases: Mapping[str, Base]) -> None:
        first = next(iter(bases.values()))
        usual = "usual" if "usual" in first.qualities else next(iter(first.qualities))
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Who</h2>")
            self._add("person", gr.Dropdown([SOMEBODY], value=NEW, label="Person"))
            self._add("name", gr.Textbox(label="Name", placeholder="anna", max_length=40, max_lines=1))
            self._add("photos_label", gr.HTML('<p class="said">Five or more photos of one person, or a film of them</p>'))
            self._add("photos", only_sent(gr.File(file_count="multiple", show_label=False, height=104)))
            self._add("seen_photos", gr.HTML(visible=False))
            self._add("clear", gr.Button("Remove the photos", size="sm", visible=False))
        with gr.Column(elem_classes="card"):
            gr.HTML('<h2>Motion</h2><p class="said">A film of anybody, of drawn poses, or keypoints (.npz)</p>')
            self._add("motion", only_sent(gr.File(show_label=False, height=104)))
            self._add("seen_motion", gr.HTML(visible=False))
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>How</h2>")
            choices = [(base.title, name) for name, base in bases.items()]
            self._add("base", gr.Radio(choices, value=choices[0][1], label="Base model"))
            self._add("quality", gr.Radio(list(first.qualities), value=usual, label="Quality"))
            self._add("choice", gr.HTML())
            self._add("start", gr.Button("Make the video", variant="primary"))

    def _job(self) -> None:
        with gr.Column(elem_classes="card"):
            gr.HTML("<h2>Jobs</h2>")
            self._add("none", gr.HTML(visible=False))
            self._add("job", gr.Radio([], label="Jobs", show_label=False, container=False, elem_classes="list"))
        with gr.Column(elem_classes="card", visible=False) as card:
            self._add("status", gr.HTML())
            with gr.Row(elem_classes="buttons"):
                self._add("cancel", gr.Button("Cancel", size="sm", visible=False))
                self._add("go_on", gr.Button("Continue", size="sm", variant="primary", visible=False))
                self._add("pack", gr.Button("Prepare the LoRA for download", size="sm", visible=False))
                self._add("delete", gr.Button("Delete this job", size="sm", visible=False))
            self._add("result", gr.HTML(visible=False))
            self._add("learning", gr.HTML(visible=False))
            with gr.Accordion("Notes and log", open=False):
                self._add("notes", gr.HTML())
                self._add("log", gr.Textbox(lines=14, max_lines=14, show_label=False, interactive=False, elem_classes="log"))
        self.parts["card"] = card

    def _add(self, name: str, component: Any) -> None:
        component.elem_id = name.replace("_", "-")
        self.parts[name] = component

    def _connect(self) -> None:
        parts, controls = self.parts, self.controls
        state = [self.draft, parts["job"], parts["person"], parts["base"], parts["quality"]]
        shown = [self.draft, *parts.values()]

        def on(trigger: Callable[..., Any], action: Callable[..., None], *more: Any, **options: Any) -> None:
            done = trigger(self._doing(action), [*state, *more], shown, **{**QUIET, **options})
            done.then(None, [self.draft, parts["job"]], js=KEEP, **QUIET)

        on(parts["photos"].upload, controls.take_photos, parts["photos"])
        on(parts["motion"].upload, controls.take_motion, parts["motion"])
        on(parts["start"].click, controls.submit, parts["name"])
        on(parts["person"].input, controls.choose_person)
        on(parts["clear"].click, controls.clear_photos)
        on(parts["cancel"].click, controls.cancel)
        on(parts["go_on"].click, controls.go_on)
        on(parts["delete"].click, controls.delete)
        on(parts["pack"].click, controls.pack, show_progress="minimal")
        for name in ("base", "quality", "job"):
            on(parts[name].input, controls.look)
        tick = gr.Timer(EVERY).tick
        tick(self._doing(controls.look), state, shown, trigger_mode="once", **QUIET)
        had = [self.draft, self.wanted]
        restored = self.blocks.load(lambda draft, job: (draft or "", job or ""), had, had, js=RESTORE, **QUIET)
        restored.then(self._doing(controls.restore), [*state, self.wanted], shown, **QUIET)

    def _doing(self, action: Callable[..., None]) -> Callable[..., list[Any]]:
        """What Gradio calls: it does what a click does, and sends of all that is shown then what the page does not show yet."""

        def called(request: gr.Request, draft: str, job: str | None, person: str | None, base: str, quality: str, *more: Any):
            before = self._shown(request.session_hash or "")
            now = Now(draft or "", job or "", person or NEW, base, quality, before.problems, drafts=before.drafts)
            action(now, *more)
            with before.lock:
                shown = self.controls.show(now)
                updates = {name: dict(part) for name, part in shown.items() if before.parts.get(name) != part}
                before.parts |= shown
            for name, value in now.values.items():
                updates.setdefault(name, {})["value"] = value
            changed = gr.skip() if now.draft == draft else now.draft  # a look that began earlier must not undo a drop
            return [changed, *(gr.update(**updates[name]) if updates.get(name) else gr.skip() for name in self.parts)]

        return called

    def _shown(self, session: str) -> "Shown":
        with self.lock:
            self.shown[session] = self.shown.pop(session, None) or Shown()
            while len(self.shown) > MOST_SESSIONS:
                self.shown.popitem(last=False)
            return self.shown[session]


def only_sent(component: Any) -> Any:
    """Gradio fetches, of whatever size, what a request names by an address in the place of a file; this component does not."""
    fetch = component.async_move_resource_to_block_cache

    async def take(place: Any) -> Any:
        if is_http_url_like(place):
            raise gr.Error("only files that were sent are taken")
        return await fetch(place)

    component.async_move_resource_to_block_cache = take
    return component


def theme() -> Any:
    """Fonts of the reader's own machine."""
    fonts = ("ui-sans-serif", "system-ui", "sans-serif"), ("ui-monospace", "Consolas", "monospace")
    return gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=fonts[0], font_mono=fonts[1])


@dataclasses.dataclass(frozen=True)
class Door:
    """How the page is reached: see scripts/app.py."""

    host: str
    port: int
    share: bool
    check: Callable[[str, str], bool] | None


def serve(page: Page, door: Door, middleware: list[Any], files: list[str], largest: int) -> None:
    """Until the process ends. files: folders that a browser may read from; largest: bytes of a file that it sends."""
    page.blocks.queue(default_concurrency_limit=16, max_size=256, api_open=False)
    page.blocks.launch(
        server_name=door.host, server_port=door.port, share=door.share, auth=door.check, theme=theme(),
        css=STYLE.read_text(encoding="utf-8"), footer_links=[], run_history=False, enable_monitoring=False, pwa=False,
        mcp_server=False, ssr_mode=False, quiet=True, show_error=False, allowed_paths=files, max_file_size=largest,
        app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
        prevent_thread_lock=True,
        auth_message="The password of whoever started this page; any name will do.",
    )  # fmt: skip
