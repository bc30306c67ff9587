"""The nodes: what each takes and gives, and what it does. registration.py makes ComfyUI's classes of them, of either kind.

Networks and libraries are imported when a node runs, so that ComfyUI starts without them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

LAYERS = "META_ANIMATOR_LAYERS"  # a list of data.layers.Layers, a frame each
CATEGORY = "Meta-Animator"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """kind     ComfyUI's name of a type; "COMBO" takes one of `options()`
    limits   min, max, step of a number
    """

    name: str
    kind: str
    says: str = ""
    default: Any = None
    limits: tuple[float, float, float] | None = None
    options: Callable[[], list[str]] | None = None
    optional: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """`run` takes the inputs by name and gives a tuple, a value for each of `outputs` (name, kind).

    changed   of the inputs: what differs where the node must run again although its inputs are the same
    """

    id: str
    title: str
    says: str
    inputs: tuple[Input, ...]
    outputs: tuple[tuple[str, str], ...]
    run: Callable[..., tuple]
    changed: Callable[..., Any] | None = None


def tasks() -> list[str]:
    from meta_animator.data.conditions import CONDITIONS

    return list(CONDITIONS)


def load_control(folder: str, task: str, lora_strength: float, control_folder: str = "") -> tuple:
    from meta_animator.comfyui.control import make_control
    from meta_animator.comfyui.folders import read_control

    return (make_control(read_control(folder, task, lora_strength, control_folder), folder),)


def written(folder: str, control_folder: str = "", **_: Any) -> tuple:
    """What changes when the weights in the folders do."""
    from meta_animator.comfyui.folders import stamp

    return stamp(folder), control_folder and stamp(control_folder)


def apply_control(
    positive: list, negative: list, control_net: Any, image: Any, vae: Any, strength: float, start_percent: float,
    end_percent: float,
) -> tuple:  # fmt: skip
    from meta_animator.comfyui.control import apply

    return apply(positive, negative, control_net, image, vae, strength, start_percent, end_percent)


def prompt(folder: str, person: str = "", template: str = "") -> tuple:
    from meta_animator.comfyui.folders import about
    from meta_animator.sampling.animate import prompt_for
    from meta_animator.settings import SampleConfig

    said = about(folder)
    own, known = said.get("person", ""), said.get("identifiers", {})
    text = prompt_for(
        SampleConfig(identity=person, prompt=template), known, said.get("prompt", ""), own, said.get("description", "")
    )
    return text, known.get(person or own, "")


def read_pose(image: Any, kind: str, annotators: str, fps: float) -> tuple:
    from meta_animator.comfyui.pictures import read_layers

    return (read_layers(image, annotators, kind, fps),)


def fit_pose(motion: list, person: list, width: int, height: int, how: str, smooth: float, fps: float) -> tuple:
    from meta_animator.comfyui.pictures import fit

    return (fit(motion, person, width, height, how, smooth, fps),)


def draw_condition(task: str, annotators: str, fps: float, image: Any = None, layers: list | None = None) -> tuple:
    from meta_animator.comfyui.pictures import draw

    return (draw(task, image, layers, annotators, fps),)


FOLDER = Input(
    name="folder", kind="STRING", default="outputs/sd15/step2",
    says="A run of stage 0 or 2, or a folder that extract_LoRA_weights.sh wrote; a relative one below Meta-Animator's repository",
)  # fmt: skip
TASK = Input(name="task", kind="COMBO", options=tasks, says="The Meta-Task: what kind of condition picture controls")
ANNOTATORS = Input(
    name="annotators", kind="STRING", default="light",
    says="Which networks see the person: light, full, or mixed by name, such as light,depth=depth-anything",
)  # fmt: skip
FPS = Input(name="fps", kind="FLOAT", default=24.0, limits=(0.1, 240.0, 0.1), says="Frames per second of the film")

NODES = (
    Node(
        id="MetaAnimatorLoadControl", title="Load Meta ControlNet", says="A Meta ControlNet with one task's LoRA folded in.",
        inputs=(
            FOLDER, TASK,
            Input(name="lora_strength", kind="FLOAT", default=1.0, limits=(-4.0, 4.0, 0.01), says="How much of the task's LoRA"),
            Input(
                name="control_folder", kind="STRING", default="", optional=True,
                says="For the folder of a LoRA alone: the controlnet folder that it belongs to, where that is not its neighbour",
            ),
        ),
        outputs=(("control_net", "CONTROL_NET"),), run=load_control, changed=written,
    ),
    Node(
        id="MetaAnimatorApplyControl", title="Apply Meta ControlNet",
        says="Control by condition pictures, one for all frames or one for each, also in context windows.",
        inputs=(
            Input(name="positive", kind="CONDITIONING"), Input(name="negative", kind="CONDITIONING"),
            Input(name="control_net", kind="CONTROL_NET"),
            Input(name="image", kind="IMAGE", says="Condition pictures of the task, at the size of the video"),
            Input(name="vae", kind="VAE", says="The base model's; the control network reads latents"),
            Input(name="strength", kind="FLOAT", default=1.0, limits=(0.0, 10.0, 0.01)),
            Input(name="start_percent", kind="FLOAT", default=0.0, limits=(0.0, 1.0, 0.001), says="From here on, of all steps"),
            Input(name="end_percent", kind="FLOAT", default=1.0, limits=(0.0, 1.0, 0.001), says="Up to here"),
        ),
        outputs=(("positive", "CONDITIONING"), ("negative", "CONDITIONING")), run=apply_control,
    ),
    Node(
        id="MetaAnimatorPrompt", title="Person's prompt", says="The prompt that calls up a person whom a checkpoint knows.",
        inputs=(
            FOLDER,
            Input(name="person", kind="STRING", default="", optional=True, says="Empty: whom the checkpoint was tuned on"),
            Input(
                name="template", kind="STRING", default="", optional=True,
                says="With {identifier} and {description}; empty: as it was trained",
            ),
        ),
        outputs=(("prompt", "STRING"), ("identifier", "STRING")), run=prompt, changed=written,
    ),
    Node(
        id="MetaAnimatorReadPose", title="Read pose", says="Sees the main person of a film, or a person in photos.",
        inputs=(
            Input(name="image", kind="IMAGE"), Input(name="kind", kind="COMBO", options=lambda: ["film", "photos"]), ANNOTATORS,
            FPS,
        ),
        outputs=(("layers", LAYERS),), run=read_pose,
    ),
    Node(
        id="MetaAnimatorFitPose", title="Fit pose to person",
        says="A motion on another body: every bone as long as in the person's photos, at the place of the first photo.",
        inputs=(
            Input(name="motion", kind=LAYERS), Input(name="person", kind=LAYERS),
            Input(name="width", kind="INT", default=512, limits=(8, 8192, 8)),
            Input(name="height", kind="INT", default=512, limits=(8, 8192, 8)),
            Input(name="how", kind="COMBO", options=lambda: ["limbs", "whole"], says="Bone by bone, or one scale and one shift"),
            Input(name="smooth", kind="FLOAT", default=1.0, limits=(0.0, 10.0, 0.1), says="How much is jitter; 0 keeps it"),
            FPS,
        ),
        outputs=(("layers", LAYERS),), run=fit_pose,
    ),
    Node(
        id="MetaAnimatorDrawCondition", title="Draw condition",
        says="The condition pictures of a Meta-Task, of layers that were read or fitted, or of what annotators see in the image.",
        inputs=(
            TASK, ANNOTATORS, FPS, Input(name="image", kind="IMAGE", optional=True),
            Input(name="layers", kind=LAYERS, optional=True),
        ),
        outputs=(("image", "IMAGE"),), run=draw_condition,
    ),
)  # fmt: skip
