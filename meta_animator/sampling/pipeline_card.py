"""The model card of a MetaAnimatorPipeline that is saved."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusers import ConfigMixin

from meta_animator.checkpoints.card_facts import Base, Origin
from meta_animator.checkpoints.cards import Card, write_card
from meta_animator.config import HUB_NAME

CODE = """
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline

pipe = MetaAnimatorPipeline.from_pretrained("NAME")
"""


def leave_off_places(parts: Iterable[Any]) -> None:
    """diffusers writes into each part's config.json where it was loaded from. A folder of this machine has no place there; a name
    on the hub may stay."""
    for part in parts:
        place = str(part.config.get("_name_or_path") or "") if isinstance(part, ConfigMixin) else ""
        if place and (Path(place).exists() or not re.fullmatch(HUB_NAME, place)):
            part.register_to_config(_name_or_path="")


def write_pipeline_card(folder: Path, pipe: Any, base: Base, base_loras: Mapping[str, float]) -> None:
    """base: what its UNet is; base_loras: what was folded into it, as checkpoints tell it"""
    bank, config = pipe.control.bank, pipe.config
    metadata = {
        "tasks": list(bank.tasks), "lora_rank": bank.rank, "condition_range": config.condition_range, "base_loras": base_loras,
    }  # fmt: skip
    moves = "with a motion module" if pipe.motion_adapter is not None else "without a motion module, so each frame by itself"
    hint = "This runs in a folder of Meta-Animator's code. `pipe(conditions={task: poses}).frames[0]` makes the video."
    hint += f" Without another one, the prompt is `{config.prompt}`." if config.prompt else ""
    card = Card(
        title="Meta-Animator: pipeline", what=f"A whole pipeline that makes videos of people from condition images, {moves}.",
        library="diffusers", pipeline="image-to-video", tags=["stable-diffusion", "controlnet", "lora"], code=CODE, hint=hint,
        folder=folder.name, origin=Origin(base=base, metadata=metadata),
    )  # fmt: skip
    write_card(folder, card)
