"""LoRAs as files: out of a training checkpoint into one PEFT folder per task. checkpoints/extracted.py reads them for a run.

<output>/controlnet/{config.json, diffusion_pytorch_model.safetensors, metadata.json}   the shared weights
<output>/<task>/{adapter_config.json, adapter_model.safetensors, metadata.json}         what `peft` alone can load, and the
                                                                                        family's own files beside them
<output>/person/{pytorch_lora_weights.safetensors, ...}                                 the person's LoRA on the base, if any
<output>/README.md, strip.png, and a README.md in each folder                           model cards, see checkpoints/cards.py
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from meta_animator.checkpoints.card_facts import Origin, origin_of
from meta_animator.checkpoints.card_strip import strip_of
from meta_animator.checkpoints.cards import keep_others, write_card
from meta_animator.checkpoints.files import find_checkpoint, read_weights, versions
from meta_animator.checkpoints.metadata import check_metadata, check_parts
from meta_animator.conversion.adapters import CONTROLNET, write_adapter, write_control, write_person
from meta_animator.conversion.cards import merged_card, part_card, person_card, set_card, tasks_in
from meta_animator.conversion.families import Family, Writer, family_of
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint
from meta_animator.models.backbones import family as family_of_base
from meta_animator.models.person import NAME as PERSON
from meta_animator.models.person import called
from meta_animator.settings import ExtractConfig, ModelConfig
from meta_animator.weights import check_names, under


def extract(config: ExtractConfig, model: ModelConfig, output: Path) -> list[Path]:
    """Write `config.tasks` (all, where empty) of a checkpoint and their control network below `output`; with `config.merge`, what
    has that task's LoRA folded in instead: for Stable Diffusion the ControlNet alone, for Wan a whole pipeline.

    Returns the folders. All are written under temporary names before the first takes its place.
    Raises UserError where the checkpoint lacks a task or does not fit the base.
    """
    if not config.checkpoint:
        raise UserError("extract.checkpoint is empty; name a run of stage 0 or 2, or one of its checkpoints")
    if model.motion_from and (model.backbone != "wan" or not config.merge):
        raise UserError("model.motion_from: goes into a pipeline only (model.backbone=wan, extract.merge); leave it out")
    where = find_checkpoint(config.checkpoint)
    metadata, weights = read_weights(config.checkpoint)
    check_metadata(metadata, str(where))
    merge = config.merge
    tasks = wanted_tasks([merge] if merge else config.tasks, metadata, weights, where)
    family = family_of(model, weights, str(where))
    shared = under(weights, "control.")
    network = family.bare_network(model, tasks, metadata["lora_rank"])
    check_fit(network.base_state(), shared, f"{where}, for base {model.base}")
    loras, person = {task: under(weights, f"lora.{task}.") for task in tasks}, under(weights, f"{PERSON}.")
    if person:  # which belongs to the control network as other LoRAs in the base do
        name = called(person, family_of_base(model.backbone).network_name)
        metadata = {**metadata, "base_loras": {**metadata.get("base_loras", {}), name: 1.0}}
    for task, lora in loras.items():
        check_fit(network.bank.state(task), lora, f"{where}, LoRA '{task}'")
    if not merge:
        facts = describe_checkpoint(metadata, shared)
        origin = origin_of(where, metadata | facts, model)
        folders = write_all(output, _folders(family, network, model, shared, loras, person, facts, origin, output.name))
        card = set_card(origin, model.backbone, tasks_in(output, facts["control"], tasks), output.name)
        write_card(output, card, strip_of(origin))
        return folders
    describe = lambda control: describe_checkpoint(metadata, control) | {"merged": merge}  # noqa: E731
    writers = family.merged(network, model, shared, loras[merge], person, metadata, describe)
    origin = origin_of(where, metadata, model)
    writers = {name: _with_card(write, name, origin, model, merge) for name, write in writers.items()}
    if person and model.backbone == "sd":  # its pictures need the base, which is not among them
        writers[PERSON] = _person(model, person, describe_checkpoint(metadata, shared), origin)
    return write_all(output, writers)


def _with_card(write: Writer, name: str, origin: Origin, model: ModelConfig, merge: str) -> Writer:
    """What writes the folder `name` of what was folded together, with its card."""

    def both(folder: Path) -> None:
        write(folder)
        write_card(folder, merged_card(origin, model.backbone, merge, name), strip_of(origin))

    return both


def _folders(
    family: Family, network: nn.Module, model: ModelConfig, shared: Mapping[str, Tensor],
    loras: Mapping[str, Mapping[str, Tensor]], person: Mapping[str, Tensor], facts: dict[str, Any], origin: Origin, whole: str,
) -> dict[str, Writer]:  # fmt: skip
    """whole: the name of the folder that they all lie in"""

    def card(folder: Path, name: str) -> None:
        write_card(folder, part_card(origin, model.backbone, list(loras), name, whole))

    def control(folder: Path) -> None:
        family.write_config(network, model, folder)
        write_control(folder, shared, facts)
        card(folder, CONTROLNET)

    def one(task: str) -> Writer:
        def write(folder: Path) -> None:
            write_adapter(folder, loras[task], facts | {"task": task})
            family.write_more(loras[task], folder)
            card(folder, task)

        return write

    persons = {PERSON: _person(model, person, facts, origin)} if person else {}
    return {CONTROLNET: control, **{task: one(task) for task in loras}, **persons}


def _person(model: ModelConfig, lora: Mapping[str, Tensor], facts: dict[str, Any], origin: Origin) -> Writer:
    def write(folder: Path) -> None:
        write_person(folder, lora, family_of_base(model.backbone).network_name, facts)
        write_card(folder, person_card(origin, model.backbone, PERSON))

    return write


def write_all(output: Path, writers: Mapping[str, Writer]) -> list[Path]:
    """Folders below `output`, each by its writer; none takes its place before all are written."""
    temporary = {name: _fresh(output / f".{name}.tmp") for name in writers}
    try:
        for name, write in writers.items():
            write(temporary[name])
        for name in writers:
            keep_others(output / name, temporary[name])
            shutil.rmtree(output / name, ignore_errors=True)
            os.replace(temporary[name], output / name)
    finally:
        for folder in temporary.values():
            shutil.rmtree(folder, ignore_errors=True)
    return [output / name for name in writers]


def describe_checkpoint(metadata: Mapping[str, Any], shared: Mapping[str, Tensor]) -> dict[str, Any]:
    """What every extracted folder says of its origin: which base and which ControlNet it belongs to, and whose it is."""
    people = dict(metadata.get("identifiers", {}))
    person = metadata.get("person", "")
    return {
        "base": metadata["base"],
        **({"base_loras": metadata["base_loras"]} if metadata.get("base_loras") else {}),
        "control": fingerprint(shared),
        "lora_rank": metadata["lora_rank"],
        "stage": metadata["stage"],
        "step": metadata["step"],
        "person": person,
        "identifier": people.get(person, ""),
        "identifiers": people,
        "prompt": metadata.get("prompt", ""),
        "description": metadata.get("description", ""),
        "condition_range": metadata.get("condition_range", "signed"),
        "versions": versions(),
    }


def wanted_tasks(wanted: list[str], metadata: Mapping[str, Any], weights: Iterable[str], where: Path) -> list[str]:
    """The tasks whose LoRAs are to be taken out: `wanted`, or all. Raises UserError where the checkpoint with weights of these
    names lacks one."""
    have = metadata["tasks"]
    if not have or not any(name.startswith("control.") for name in weights):
        raise UserError(f"{where}: holds no Meta ControlNet with LoRAs; give a stage-0 or stage-2 run")
    check_parts(metadata, weights, str(where))
    for task in wanted:
        if task not in have:
            raise UserError(f"extract.tasks, extract.merge: {where} has no LoRA '{task}'; it has: {', '.join(have)}")
    return list(dict.fromkeys(wanted)) or have


def check_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raises UserError unless every name and every shape of `state` is that of `own`, whose values do not count."""
    check_names(own, state, what)
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise UserError(f"{what}: {name} has shape {tuple(tensor.shape)}, the base asks for {tuple(own[name].shape)}")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
