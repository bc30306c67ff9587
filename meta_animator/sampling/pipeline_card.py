"""The model card of a MetaAnimatorPipeline that is saved."""

from pathlib import Path
from typing import Any

from meta_animator.checkpoints.card_facts import Base, Origin
from meta_animator.checkpoints.cards import Card, write_card

CODE = """
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline

pipe = MetaAnimatorPipeline.from_pretrained("NAME")
"""


def write_pipeline_card(folder: Path, pipe: Any, base: Base) -> None:
    """base: what its UNet is"""
    bank, config = pipe.control.bank, pipe.config
    metadata = {"tasks": list(bank.tasks), "lora_rank": bank.rank, "condition_range": config.condition_range}
    moves = "with a motion module" if pipe.motion_adapter is not None else "without a motion module, so each frame by itself"
    hint = "This runs in a folder of Meta-Animator's code. `pipe(conditions={task: poses}).frames[0]` makes the video."
    hint += f" Without another one, the prompt is `{config.prompt}`." if config.prompt else ""
    card = Card(
        title="Meta-Animator: pipeline", what=f"A whole pipeline that makes videos of people from condition images, {moves}.",
        library="diffusers", pipeline="image-to-video", tags=["stable-diffusion", "controlnet", "lora"], code=CODE, hint=hint,
        folder=folder.name, origin=Origin(base=base, metadata=metadata),
    )  # fmt: skip
    write_card(folder, card)
