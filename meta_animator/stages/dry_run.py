"""What a run would train, counted on the meta device: architecture files only, no weights, no memory."""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from meta_animator.errors import UserError
from meta_animator.models.control import MetaControlNet
from meta_animator.models.motion import new_motion_adapter
from meta_animator.settings import RunConfig
from meta_animator.stages.checks import trained_tasks
from meta_animator.weights import read_json


def describe(config: RunConfig) -> str:
    """A table of trainable parameters by group, with their sum."""
    rows = trainable_parameters(config)
    lines = [f"{name:<24}{count:>15,}" for name, count in rows.items()]
    return "\n".join(["trainable parameters", *lines, f"{'total':<24}{sum(rows.values()):>15,}"])


def trainable_parameters(config: RunConfig) -> dict[str, int]:
    """{group: number of parameters} of a training stage. Raises UserError for stages that train nothing."""
    if config.stage in ("sample", "extract"):
        return {}
    if config.stage.startswith("base_"):
        raise UserError(f"--dry-run: counts stages 0 to 2, not '{config.stage}'")
    folder = Path(config.model.architecture or config.model.base) / "unet"
    read_json(folder / "config.json")
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    control = MetaControlNet.from_unet(unet, config.model.tasks, config.model.lora_rank)
    shared = {"control": sum(p.numel() for p in control.base_state().values())}
    loras = {f"lora {t}": sum(p.numel() for p in control.bank.parameters(t)) for t in trained_tasks(config)}
    if config.stage == "motion":
        adapter = new_motion_adapter(unet, config.model.motion_max_seq_length, config.model.motion_mid_block)
        motion = sum(p.numel() for p in adapter.parameters())
        return {"motion": motion, **(loras if config.train.train_lora_in_motion else {})}
    return loras if config.train.trainable == "lora" else {**shared, **loras}
