"""A checkpoint to begin stage 2 from, made of what others have published: CtrLoRA's base control network and the LoRAs of the
conditions that it was trained with, as starts of our tasks.

Their drawings are not ours: their OpenPose has thinner lines and 18 points, their depth and normals are of the whole picture
(MiDaS), their segments are ADE20K's. A LoRA that has learnt to follow lines or surfaces is a better start than none all the same.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from meta_animator.conversion.ctrlora import ControlNames, converted_metadata, from_ctrlora
from meta_animator.conversion.exchange import check_shapes, check_tasks
from meta_animator.errors import UserError
from meta_animator.json_files import write_json
from meta_animator.models.backbones import load_backbone
from meta_animator.published import published
from meta_animator.settings import ModelConfig
from meta_animator.torch_files import read_state
from meta_animator.weights import ROUNDING, save_tensors

# {our task: the published weight that starts it}; a hole in the picture that is to be filled is what their outpainting has too
STARTS = {
    "dwpose": "ctrlora_openpose", "pose_hamer": "ctrlora_openpose", "depth": "ctrlora_depth", "normal": "ctrlora_normal",
    "seg": "ctrlora_seg", "fg_inpainting": "ctrlora_outpainting", "bg_outpainting": "ctrlora_outpainting",
    "canny": "ctrlora_canny",
}  # fmt: skip


CHECKPOINT = Path("sd15-quickstart", "control")  # below the folder of weights
ARCHITECTURE = Path(__file__).parents[2] / "configs" / "sd15" / "architecture"


def join_published(folder: Path, gone: Collection[str] = ()) -> dict[str, Any]:
    """Join what `scripts/get_weights.py sd15` has put into `folder`, for the base model that it put there; returns the metadata.

    gone   names of weights that were not to be had: tasks that begin from them are left off
    Raises UserError as `join_ctrlora` does.
    """
    entries = published()
    places = {name: folder / entries[name].place for name in entries}
    model = ModelConfig(
        base=str(places["realistic_vision"]), vae=str(places["vae_ft_mse"]), tokenizer=str(places["sd15_tokenizer"]),
        architecture=str(ARCHITECTURE),
    )  # fmt: skip
    loras = {task: places[name] for task, name in STARTS.items() if name not in gone}
    return join_ctrlora(places["ctrlora_base"], loras, folder / CHECKPOINT, model)


def join_ctrlora(base_file: Path, loras: Mapping[str, Path], output: Path, model: ModelConfig) -> dict[str, Any]:
    """Write one checkpoint, for `model.control_from`, of CtrLoRA's base file and several of its LoRA files; returns its metadata.

    loras   {our task: LoRA file}; several tasks may begin from one file
    model   the base model that the checkpoint will be used with
    Raises UserError where a weight is missing, unknown or of another shape, and for a LoRA of a new condition: such a file
    brings zero convolutions and norms of its own, and one network has one set. Nothing is written then.
    """
    check_tasks({task: task for task in loras})
    if not loras:
        raise UserError(f"{base_file}: no LoRA to join; name at least one, FILE=TASK")
    backbone = load_backbone(model)
    network = backbone.make_control([], 1)
    names = ControlNames(network)
    base = from_ctrlora(read_state(base_file), names, str(base_file), {})
    weights = dict(base)
    for file in dict.fromkeys(loras.values()):
        tasks = [task for task, whose in loras.items() if whose == file]
        weights |= _loras_of(file, tasks, names, base)
    metadata = converted_metadata(weights, backbone.fingerprint(), base_file)
    check_shapes(network, weights, metadata, f"{base_file} and its LoRAs, for {model.base}")
    metadata["source"] = ", ".join([base_file.name, *dict.fromkeys(file.name for file in loras.values())])
    save_tensors({name: weight.float() for name, weight in weights.items()}, output / "model.safetensors")
    write_json(output / "manifest.json", metadata)
    return metadata


def parse_loras(given: Sequence[str]) -> dict[str, Path]:
    """["canny.ckpt=canny", ...] to {our task: file}. Raises UserError where a task is named twice, or a file without one."""
    loras: dict[str, Path] = {}
    for pair in given:
        file, _, task = pair.rpartition("=")
        if not file or task in loras:
            raise UserError(f"{pair}: expected LORA_FILE=TASK, each task once; got {' '.join(given)}")
        loras[task] = Path(file)
    return loras


def _loras_of(file: Path, tasks: Sequence[str], names: ControlNames, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `lora.` weights of a LoRA file, once for each of `tasks`."""
    taken = from_ctrlora(read_state(file), names, str(file), {tasks[0]: tasks[0]}, base)
    for name, weight in base.items():
        own = taken[name]
        if own.shape == weight.shape and not torch.allclose(own.float(), weight.float(), rtol=ROUNDING, atol=1e-6):
            theirs = names.weights[name.removeprefix("control.")]
            raise UserError(
                f"{file}: brings its own zero convolutions and norms ({theirs} is the first that is not the base file's), as "
                "LoRAs of new conditions do; one network cannot hold two sets: import it alone (convert.py import-control)"
            )
    prefix = f"lora.{tasks[0]}."
    lora = {name.removeprefix(prefix): weight for name, weight in taken.items() if name.startswith(prefix)}
    return {f"lora.{task}.{name}": weight.clone() for task in tasks for name, weight in lora.items()}
