"""Which annotators work together: two sets by one word, `light` and `full`, and others mixed in by name.

    light                           six tasks on any machine
    full                            more layers and better ones, from the user's weights
    light,mask=sam2,parts=none      the light set with another mask and without parts; `people=` names the detector

To add an annotator, write its class in a file of its own and add a line to ANNOTATORS.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from meta_animator import published
from meta_animator.annotators.base import Annotator, Detection, Detector
from meta_animator.data.versions import code_version
from meta_animator.errors import UserError

PEOPLE = "people"  # what a detector gives
LAYERS = ("keypoints", "mask", "depth", "normal", "parts")  # in the order in which they are made
NONE = "none"

LITERT, ONNX = "pip install ai-edge-litert", "pip install onnxruntime"
TRANSFORMERS = 'pip install -U "transformers>=5.0"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """An annotator, or a detector.

    place    module and class, "module:Class", imported late. The class is made with `files` {name of weights: path} and
             `device`, a name of torch; it raises UserError where it cannot use them.
    gives    names of layers, or "people"
    weights  names in published.yaml
    install  the command that installs what it needs beyond the program itself
    """

    place: str
    gives: tuple[str, ...]
    weights: tuple[str, ...]
    install: str


ANNOTATORS: dict[str, Entry] = {
    "blaze-people": Entry(
        place="meta_animator.annotators.blaze.people:BlazePeople",
        gives=(PEOPLE,),
        weights=("pose_detection", "pose_landmark_full"),
        install=LITERT,
    ),
    "blaze": Entry(
        place="meta_animator.annotators.blaze.annotator:Blaze",
        gives=("keypoints", "mask"),
        weights=(
            "pose_landmark_full", "hand_recrop", "hand_landmark_full", "face_detection_short_range", "face_landmark",
        ),
        install=LITERT,
    ),
    "yolox": Entry(
        place="meta_animator.annotators.yolox:Yolox", gives=(PEOPLE,), weights=("yolox",), install=ONNX,
    ),
    "dwpose": Entry(
        place="meta_animator.annotators.dwpose:DWPose", gives=("keypoints",), weights=("dwpose",), install=ONNX,
    ),
    "rtmw": Entry(
        place="meta_animator.annotators.dwpose:DWPose", gives=("keypoints",), weights=("rtmw",), install=ONNX,
    ),
    "sam2": Entry(
        place="meta_animator.annotators.sam2:Sam2", gives=("mask",), weights=("sam2",), install=TRANSFORMERS,
    ),
    "depth-anything": Entry(
        place="meta_animator.annotators.depth_anything:DepthAnything",
        gives=("depth",),
        weights=("depth_anything",),
        install=TRANSFORMERS,
    ),
    "moge": Entry(
        place="meta_animator.annotators.moge:MoGe", gives=("normal",), weights=("moge2",), install=ONNX,
    ),
    "moge-small": Entry(
        place="meta_animator.annotators.moge:MoGe", gives=("normal",), weights=("moge2_small",), install=ONNX,
    ),
    "segformer": Entry(
        place="meta_animator.annotators.parts:SegFormer", gives=("parts",), weights=("segformer",), install=TRANSFORMERS,
    ),
    "sapiens2": Entry(
        place="meta_animator.annotators.parts:Sapiens2", gives=("parts",), weights=("sapiens2",), install=TRANSFORMERS,
    ),
}  # fmt: skip

SETS: dict[str, dict[str, str]] = {
    "light": {PEOPLE: "blaze-people", "keypoints": "blaze", "mask": "blaze"},
    "full": {PEOPLE: "yolox", "keypoints": "dwpose", "mask": "sam2", "depth": "depth-anything", "normal": "moge"},
}


def parse_choice(choice: str) -> dict[str, str]:
    """{"people" or a layer: name of its annotator} of a choice such as "light,mask=sam2,depth=none".

    Raises UserError for names that are not there.
    """
    first, *others = (part.strip() for part in choice.split(","))
    if first not in SETS:
        raise UserError(f"annotators {choice!r}: {_unknown('set', first, SETS)}")
    chosen = dict(SETS[first])
    for other in others:
        role, equals, name = (part.strip() for part in other.partition("="))
        if not equals:
            raise UserError(f"annotators {choice!r}: {other!r} is no LAYER=NAME, such as mask=blaze or depth={NONE}")
        if role not in (PEOPLE, *LAYERS):
            raise UserError(f"annotators {choice!r}: {_unknown('layer', role, (PEOPLE, *LAYERS))}")
        known = [key for key, entry in ANNOTATORS.items() if role in entry.gives]
        if name == NONE and role != PEOPLE:
            chosen.pop(role, None)
        elif name not in known:
            others_known = known if role == PEOPLE else [*known, NONE]
            raise UserError(f"annotators {choice!r}: {_unknown(f'annotator of {role}', name, others_known)}")
        else:
            chosen[role] = name
    return chosen


class AnnotatorSet:
    """A detector, and for each layer an annotator.

    layers         the names of the layers that are given, in the order in which they are made
    made_by        {layer: name of its annotator}
    missing        {layer: why it is not given}, for the others
    licence_notes  a line for each network whose licence restricts its use, to be said before it is used

    Nothing is fetched or loaded before `load`, which `detect` and `annotate` call, so that a set can go to other processes.
    """

    def __init__(self, choice: str = "light", weights: Path | None = None, *, fetch: bool = True, device: str = "cpu") -> None:
        """weights   a folder with the files of the networks, looked into first
        fetch     whether what is in neither that folder nor the cache is fetched from the net

        Raises UserError where `choice` is not one (see `parse_choice`).
        """
        self.choice, self.weights, self.fetch, self.device = choice, weights, fetch, device
        self._chosen = parse_choice(choice)
        self._ready: dict[str, Detector | Annotator] = {}
        self.made_by = {layer: self._chosen[layer] for layer in LAYERS if layer in self._chosen}
        self.layers = tuple(self.made_by)
        self.missing = {layer: self._reason(layer) for layer in LAYERS if layer not in self.made_by}

    @property
    def names(self) -> tuple[str, ...]:
        """The detector and the annotators, each once, in the order of their work."""
        return tuple(dict.fromkeys([self._chosen[PEOPLE], *self.made_by.values()]))

    @property
    def licence_notes(self) -> list[str]:
        needed = [published.published()[name] for annotator in self.names for name in ANNOTATORS[annotator].weights]
        return [f"{weights.name} is not free for every use: {weights.licence}" for weights in needed if not weights.permissive]

    def load(self) -> "AnnotatorSet":
        """Finds (or fetches) the files of all networks and loads them. Raises UserError where one cannot be had."""
        for name in self.names:
            if name not in self._ready:
                self._ready[name] = self._make(name)
        return self

    def one(self, name: str) -> Detector | Annotator:
        """The detector or annotator of this name, one of `names`."""
        return self.load()._ready[name]

    def detect(self, frames: Sequence[np.ndarray]) -> list[list[Detection]]:
        """All people in each of the frames, uint8 (h, w, 3) RGB, the most certain first."""
        return self.one(self._chosen[PEOPLE]).detect(frames)

    def annotate(
        self, frames: Sequence[np.ndarray], people: Sequence[Detection | None],
        known: Sequence[Mapping[str, np.ndarray]] | None = None, only: Collection[str] | None = None,
    ) -> list[dict[str, np.ndarray]]:
        """What can be told of `people[i]` in `frames[i]`, consecutive frames of one clip: {layer: array as in `data.layers`}.

        known   layers that each frame has already, and keeps; those that are told later may depend on them
        only    the layers that are asked for; all

        Empty where people[i] is None. A layer that cannot be told in a frame is left out of its answer.
        """
        self.load()
        answers: list[dict[str, np.ndarray]] = [dict(layers) for layers in known] if known else [{} for _ in frames]
        for name in dict.fromkeys(by for layer, by in self.made_by.items() if only is None or layer in only):
            layers = [layer for layer in self.layers if self.made_by[layer] == name]
            given = self._ready[name].annotate(frames, people, answers)
            for answer, new in zip(answers, given, strict=True):
                answer |= {layer: new[layer] for layer in layers if layer in new and layer not in answer}
        return answers

    @functools.cached_property
    def versions(self) -> dict[str, str]:
        """{"people" or a layer: its annotator with the names of its code and weights}: others, as soon as it may say another
        thing of a frame."""
        return {role: self._version(name) for role, name in ((PEOPLE, self._chosen[PEOPLE]), *self.made_by.items())}

    def _version(self, name: str) -> str:
        known = published.published()
        weights = [[file.sha256 or known[one].revision for file in known[one].files] for one in ANNOTATORS[name].weights]
        digest = hashlib.sha256(repr(weights).encode()).hexdigest()[:8]
        return f"{name} {code_version(self._class(name))} {digest}"

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_ready": {}}

    def _make(self, name: str) -> Detector | Annotator:
        entry = ANNOTATORS[name]
        files = {weights: published.find(weights, self.weights, self.fetch) for weights in entry.weights}
        try:
            return self._class(name)(files, self.device)
        except ImportError as error:
            raise UserError(f"annotator {name!r} needs a package that is not installed: {entry.install} ({error})") from error

    def _class(self, name: str) -> type:
        module, _, kind = ANNOTATORS[name].place.partition(":")
        return getattr(importlib.import_module(module), kind)

    def _reason(self, layer: str) -> str:
        known = [f"{layer}={name}" for name, entry in ANNOTATORS.items() if layer in entry.gives]
        if not known:
            return "no annotator gives it"
        return f"the annotators {self.choice!r} do not give it; to have it, add {' or '.join(known)}"


def _unknown(what: str, name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}"
