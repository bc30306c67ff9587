"""What a model card says of weights: which base they belong to and what its licence asks, and how they were trained. Only what
files say; what nobody has written down is left out."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from meta_animator.checkpoints.files import find_checkpoint
from meta_animator.config import HUB_NAME, load_config
from meta_animator.data.prompts import fill_prompt
from meta_animator.errors import UserError
from meta_animator.fingerprints import short
from meta_animator.json_files import read_json
from meta_animator.published import published
from meta_animator.settings import ModelConfig, RunConfig

ROOT = Path(__file__).parents[2]
SHIPPED = {"assets/base": "embedded base model", "assets/base_wan": "embedded Wan"}  # both Apache-2.0, as this repository is
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CreativeML OpenRAIL-M": "creativeml-openrail-m"}  # as the hub has them
STAGES = {"control": "stage 0, on many people", "motion": "stage 1, on clips", "reference": "stage 2, on one person"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """A base model, for others.

    name      without the folders of this machine
    hub       repository on the model hub; '' for what is not there
    licence   as the hub spells licences; '' where it is not known here
    code      what a call of `from_pretrained` is given
    """

    name: str
    hub: str = ""
    licence: str = ""
    code: str = "BASE"


def base_of(base: str) -> Base:
    """Of what `model.base` says; '' for one that nobody has named."""
    if not base:
        return Base(name="a base whose name is not kept")
    place = (ROOT / base).resolve()
    for shipped, name in SHIPPED.items():
        if place == (ROOT / shipped).resolve():
            return Base(name=f"the {name} of Meta-Animator (`{shipped}`)", licence="apache-2.0", code=shipped)
    for entry in published().values():
        if entry.hub and base in (entry.hub, str(Path(base).parent / entry.place)):
            licence = next((theirs for ours, theirs in LICENCES.items() if entry.licence.startswith(ours)), "")
            whole = entry.folders or base == entry.hub  # in diffusers format
            return Base(name=entry.hub, hub=entry.hub, licence=licence, code=entry.hub if whole else "BASE")
    if "/" in base and re.fullmatch(HUB_NAME, base) and not place.exists():
        return Base(name=base, hub=base, code=base)
    return Base(name=f"`{Path(base).name}`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where exported weights come from.

    base       what they belong to
    metadata   of the checkpoint
    run        its run folder; None where it lies in none
    config     that run's; None where it has left none
    """

    base: Base
    metadata: Mapping[str, Any]
    run: Path | None = None
    config: RunConfig | None = None

    @property
    def identifier(self) -> str:
        """The word that stands for the person of a stage 2, or ''."""
        return dict(self.metadata.get("identifiers", {})).get(self.metadata.get("person") or None, "")

    @property
    def prompt(self) -> str:
        """Which calls that person, or ''."""
        if not self.identifier:
            return ""
        return fill_prompt(self.metadata.get("prompt", ""), self.identifier, self.metadata.get("description", ""))


def origin_of(checkpoint: str | Path, metadata: Mapping[str, Any], model: ModelConfig | str) -> Origin:
    """checkpoint: it, or its run folder. The base is the one that the run names, else that of `model`, a config or what its
    `base` says."""
    where = find_checkpoint(checkpoint)
    run = where.parents[1] if where.parent.name == "checkpoints" else None
    config = None
    if run is not None and (run / "config.yaml").is_file():
        try:
            config = load_config(run / "config.yaml")
        except UserError as error:
            print(f"note: the model card says less: {error}")
    named = config.model.base if config else model if isinstance(model, str) else model.base
    return Origin(base=base_of(named), metadata=metadata, run=run, config=config)


def facts(origin: Origin) -> dict[str, str]:
    """{what: its value} for the card's table."""
    metadata = origin.metadata
    rows = {"base": _base_row(origin), "tasks": ", ".join(metadata.get("tasks", ())), "LoRA rank": ""}
    if rows["tasks"]:
        rows["LoRA rank"] = str(metadata.get("lora_rank", ""))
    if source := metadata.get("source"):
        rows["made of"] = f"`{source}`"
    if metadata.get("step"):
        each = metadata.get("samples_per_step")
        rows["trained"] = f"{STAGES.get(metadata.get('stage'), metadata.get('stage'))}; steps: {metadata['step']}"
        rows["trained"] += f", samples in a step: {each}" if each else ""
    rows["learned from"] = _learned_from(metadata)
    if origin.config:
        rows |= _parts_rows(origin.config.model)
    if fps := metadata.get("fps"):
        rows["frames per second"] = f"{fps:g}"
    if control := metadata.get("control"):
        rows["ControlNet"] = f"weights {short(control)}"
    if rows["tasks"]:
        rows["condition images"] = "in [0, 1]" if metadata.get("condition_range") == "unit" else "in [-1, 1]"
    if origin.prompt:
        rows["prompt"] = f"`{origin.prompt}`, where `{origin.identifier}` stands for the person"
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in dict(metadata.get("versions", {})).items())
    return {name: value for name, value in rows.items() if value}


def _base_row(origin: Origin) -> str:
    named = origin.metadata.get("base", "")
    loras = [f"`{name}` ({weight})" for name, weight in dict(origin.metadata.get("base_loras", {})).items()]
    return origin.base.name + (f", weights {short(named)}" if named else "") + "".join(f", with {lora}" for lora in loras)


def _parts_rows(model: ModelConfig) -> dict[str, str]:
    """What a run was given beside its base, by the names of the files."""
    rows = {name: f"`{Path(path).name}`" for name, path in (("VAE", model.vae), ("tokenizer", model.tokenizer)) if path}
    if before := model.control_from:
        manifest = Path(before) / "manifest.json"
        source = ""
        with contextlib.suppress(UserError):  # it may be gone by now, or damaged
            source = read_json(manifest).get("source", "")
        rows["began from"] = f"`{Path(before).name}`" + (f", made of `{source}`" if source else "")
    return rows


def _learned_from(metadata: Mapping[str, Any]) -> str:
    """Of what `stages` say of their data; '' for checkpoints of versions that did not."""
    if not (own := metadata.get("data")):
        return ""
    others = metadata.get("auxiliary")
    return f"{_counted(own)}, {own['frames']} frames" + (f"; beside them some frames of {_counted(others)}" if others else "")


def _counted(data: Mapping[str, int]) -> str:
    people, clips = data["people"], data["clips"]
    return f"{clips} photos or clips of {'one person' if people == 1 else f'{people} people'}"
