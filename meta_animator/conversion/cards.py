"""The model cards of what is converted and extracted: how each is loaded, by which program."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from meta_animator.checkpoints.card_facts import Origin
from meta_animator.checkpoints.cards import Card
from meta_animator.checkpoints.extracted import METADATA
from meta_animator.conversion.adapters import CONTROLNET
from meta_animator.json_files import read_json
from meta_animator.models.person import own_loras

VIDEO = "image-to-video"
BASES = "BASE is {base}, as a folder in diffusers' format or a name on the hub."

SD = """
from huggingface_hub import snapshot_download

from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.settings import ModelConfig, RunConfig, SampleConfig
from meta_animator.stages.sample import load_animator

folder = snapshot_download("NAME")
model = ModelConfig(
    base="{base}", tasks=["{task}"], lora_rank={rank}, condition_range="{condition_range}",
    control_from=f"{{folder}}{control}",{person}
)
sample = SampleConfig(tasks={{"{task}": 1.0}}{more}{prompt})
pipe = MetaAnimatorPipeline.from_animator(load_animator(RunConfig(model=model, sample=sample)))
"""
SD_HINT = (
    "This runs in a folder of Meta-Animator's code. `pipe(conditions={{\"{task}\": poses}}).frames[0]` makes pictures of a list "
    "of condition images; with `motion_from` in `ModelConfig`, a stage-1 run or a motion module of AnimateDiff's, they move. The "
    "ControlNet reads the VAE latent of a condition and has no hint block, so plain diffusers cannot use it as it is."
)
WAN = """
import torch
from diffusers import WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel
from huggingface_hub import snapshot_download
from safetensors.torch import load_file

folder = snapshot_download("NAME")
plain = WanTransformer3DModel.from_pretrained("{base}", subfolder="transformer", torch_dtype=torch.float32)
transformer = WanVACETransformer3DModel.from_config(WanVACETransformer3DModel.load_config(f"{{folder}}/controlnet"))
branch = load_file(f"{{folder}}/controlnet/diffusion_pytorch_model.safetensors")
transformer.load_state_dict(plain.state_dict() | branch)
kinds = {{"default": torch.float32, "text_encoder": torch.bfloat16}}
pipe = WanVACEPipeline.from_pretrained("{base}", transformer=transformer, torch_dtype=kinds)
pipe.load_lora_weights(f"{{folder}}/{task}", adapter_name="{task}"){person}
"""
WAN_PIPELINE = """
import torch
from diffusers import WanVACEPipeline
from huggingface_hub import snapshot_download

kinds = {"default": torch.float32, "text_encoder": torch.bfloat16}
pipe = WanVACEPipeline.from_pretrained(snapshot_download("NAME"), torch_dtype=kinds)
"""
WAN_HINT = (
    "`pipe(video=poses, reference_images=[photo], prompt=prompt, num_frames=len(poses), height=480, width=832).frames[0]` makes "
    "the video; prompts need `pip install ftfy`."
)
WAN_FILES = (
    " Where `controlnet/` is the base's own branch (it was not trained), the LoRA alone does on the base, also "
    "`comfyui_lora.safetensors` in ComfyUI."
)
MOTION = """
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from huggingface_hub import snapshot_download

adapter = MotionAdapter.from_pretrained(snapshot_download("NAME"))
pipe = UNetMotionModel.from_unet2d(UNet2DConditionModel.from_pretrained("{base}", subfolder="unet"), adapter)
"""
MOTION_HINT = (
    "`AnimateDiffPipeline.from_pretrained(\"BASE\", motion_adapter=adapter)` takes the adapter, too, and `model.motion_from` of "
    "Meta-Animator the folder. It was trained with each frame normalised by itself, as AnimateDiff's own code does; diffusers "
    "normalises all frames of a clip together."
)
SD_PERSON = """
    base_loras={f"{folder}/person": 1.0},"""
WAN_PERSON = """
pipe.load_lora_weights(f"{{folder}}/person", adapter_name="person")
pipe.set_adapters(["{task}", "person"])"""
LORA = """
import torch
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

kinds = {{"default": torch.float32, "text_encoder": torch.bfloat16}}
pipe = DiffusionPipeline.from_pretrained("{base}", torch_dtype=kinds)
pipe.load_lora_weights(snapshot_download("NAME"))
"""


def set_card(origin: Origin, family: str, tasks: Sequence[str], folder: str) -> Card:
    """Of extracted LoRAs, `tasks`, and the ControlNet that they belong to."""
    shown = "dwpose" if "dwpose" in tasks else tasks[0]
    origin, values, listed = _of_tasks(origin, tasks), _values(origin, shown), ", ".join(f"`{task}`" for task in tasks)
    what = f"LoRAs for {listed}, a folder each" if len(tasks) > 1 else f"A LoRA for {listed} in a folder of its own"
    what += ", and the ControlNet that goes with them, `controlnet`." if len(tasks) > 1 else ", and its ControlNet, `controlnet`."
    person = bool(own_loras(origin.metadata.get("base_loras", {})))
    what += " `person` is a LoRA on the base, which draws the person of the photos." if person else ""
    if family == "wan":
        code, hint = WAN.format(**values, person=WAN_PERSON.format(**values) if person else ""), WAN_HINT + WAN_FILES
    else:
        more = f', loras={{f"{{folder}}/{shown}": 1.0}}'
        code = SD.format(**values, control=f"/{CONTROLNET}", more=more, person=SD_PERSON if person else "")
        hint = SD_HINT.format(**values)
    return _card(origin, family, "LoRAs", what, code, hint, folder, library="diffusers" if family == "wan" else "peft")


def part_card(origin: Origin, family: str, tasks: Sequence[str], name: str, folder: str) -> Card:
    """Of one folder, `name`, of such a set, whose folder is `folder`."""
    whole = set_card(origin, family, tasks if name == CONTROLNET else [name], folder)
    return dataclasses.replace(
        whole, title=f"Meta-Animator: {name}", what=f"The folder `{name}` of a set, which is published as a whole. {whole.what}"
    )


def merged_card(origin: Origin, family: str, task: str, folder: str) -> Card:
    """Of a ControlNet, or a whole pipeline for Wan, with the LoRA of `task` folded in."""
    origin, values = _of_tasks(origin, [task]), _values(origin, task)
    if family == "wan":
        what = f"A whole pipeline of diffusers with the LoRA for `{task}` folded into its control branch."
        return _card(origin, family, "pipeline", what, WAN_PIPELINE, WAN_HINT, folder)
    what = f"A ControlNet with the LoRA for `{task}` folded in; it needs no LoRA beside it."
    if own_loras(origin.metadata.get("base_loras", {})):
        what = f"A ControlNet with the LoRA for `{task}` folded in. It goes with the LoRA on the base in `person`, beside it: "
        what += '`base_loras={"person": 1.0}` in `ModelConfig`.'
    code = SD.format(**values, control="", more="", person="")
    return _card(origin, family, "ControlNet", what, code, SD_HINT.format(**values), folder)


def motion_card(origin: Origin, family: str, folder: str) -> Card:
    """Of a motion module, or on Wan of the LoRA that has learned the motion."""
    origin, values = _of_tasks(origin, []), {"base": origin.base.code}
    if family == "wan":
        what = "A LoRA on the self-attention of the base, which has learned how people move."
        return _card(origin, family, "motion", what, LORA.format(**values), "", folder, pipeline="text-to-video")
    what = "A motion module, which is temporal attention between frames, as a MotionAdapter of diffusers."
    return _card(origin, family, "motion", what, MOTION.format(**values), MOTION_HINT, folder, pipeline="text-to-video")


def person_card(origin: Origin, family: str, folder: str) -> Card:
    """Of a person's LoRA on the base."""
    others = {n: w for n, w in origin.metadata["base_loras"].items() if n not in own_loras(origin.metadata["base_loras"])}
    origin = _of_tasks(dataclasses.replace(origin, metadata={**origin.metadata, "base_loras": others}), [])
    what = (
        "A LoRA on the base, which draws the person and the place of the photos. Meta-Animator takes it beside the ControlNet "
        'that it was trained with, as `"model.base_loras={FOLDER: 1.0}"`.'
    )
    names = "the original names" if family == "wan" else "kohya's names"
    hint = f"`comfyui_lora.safetensors` is the same for ComfyUI and others that read {names}."
    code, pipeline = LORA.format(base=origin.base.code), "text-to-video" if family == "wan" else "text-to-image"
    return _card(origin, family, "person", what, code, hint, folder, pipeline=pipeline)


def tasks_in(output: Path, control: str, first: Sequence[str]) -> list[str]:
    """The tasks whose LoRAs lie in `output` and belong to the ControlNet of this fingerprint: `first`, then the others."""
    found = [read_json(file) for file in sorted(output.glob(f"[!.]*/{METADATA}"))]
    there = [metadata["task"] for metadata in found if "task" in metadata and metadata.get("control") == control]
    return [*first, *(task for task in there if task not in first)]


def _card(
    origin: Origin, family: str, kind: str, what: str, code: str, hint: str, folder: str, *, library: str = "diffusers",
    pipeline: str = VIDEO,
) -> Card:  # fmt: skip
    tags = ["wan", "vace"] if family == "wan" else ["stable-diffusion"]
    tags += {
        "LoRAs": ["lora", "controlnet"], "ControlNet": ["controlnet"], "pipeline": ["controlnet"], "person": ["lora"],
    }.get(kind, ["motion"])  # fmt: skip
    if kind == "LoRAs" or (kind == "motion" and family == "wan"):
        tags = list(dict.fromkeys(["lora", *tags]))
    if '"BASE"' in code:
        hint = f"{BASES.format(base=origin.base.name)} {hint}".strip()
    if origin.prompt and family == "wan":
        hint += f" The prompt: `{origin.prompt}`."
    return Card(
        title=f"Meta-Animator: {kind}", what=what, library=library, pipeline=pipeline, tags=tags, code=code, hint=hint,
        folder=folder, origin=origin,
    )  # fmt: skip


def _of_tasks(origin: Origin, tasks: Sequence[str]) -> Origin:
    return dataclasses.replace(origin, metadata={**origin.metadata, "tasks": list(tasks)})


def _values(origin: Origin, task: str) -> dict[str, Any]:
    metadata: Mapping[str, Any] = origin.metadata
    return {
        "base": origin.base.code, "task": task, "rank": metadata["lora_rank"],
        "condition_range": metadata.get("condition_range", "signed"), "prompt": "" if origin.prompt else ', prompt="a person"',
    }  # fmt: skip

