"""What extraction needs to know of a family of base models: one module each, conversion/controlnet.py and conversion/wan.py."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.settings import ModelConfig

Writer = Callable[[Path], None]  # of a folder's files
Facts = Callable[[Mapping[str, Tensor]], dict[str, Any]]


class Family(Protocol):
    """The functions of such a module. control: {name: weight} of a checkpoint's shared weights; lora: of one of its LoRAs;
    person: of the person's LoRA on the base, if it has one."""

    def bare_network(self, model: ModelConfig, tasks: list[str], rank: int) -> nn.Module:
        """The control network of a base model without its weights: on the meta device."""

    def write_config(self, network: nn.Module, model: ModelConfig, folder: Path) -> None:
        """config.json beside the shared weights."""

    def write_more(self, lora: Mapping[str, Tensor], folder: Path) -> None:
        """A LoRA for other programs, beside PEFT's files."""

    def merged(
        self, network: nn.Module, model: ModelConfig, control: Mapping[str, Tensor], lora: Mapping[str, Tensor],
        person: Mapping[str, Tensor], metadata: Mapping[str, Any], facts: Facts,
    ) -> dict[str, Writer]:  # fmt: skip
        """{folder: what writes it} of what has the LoRA folded in, and the person's where it holds the base, too.

        metadata   of the checkpoint
        facts      what metadata.json says of shared weights
        """


def family_of(model: ModelConfig, names: Iterable[str], what: str) -> Family:
    """The family that `model.backbone` names. Raises UserError where a checkpoint's weights, of these names, are of the other."""
    from meta_animator.conversion import controlnet, wan

    check_family(model.backbone, names, what)
    return wan if model.backbone == "wan" else controlnet


def check_family(wanted: str, names: Iterable[str], what: str) -> None:
    """Raises UserError unless weights of these names are of the family `wanted`."""
    own = "wan" if any(name.startswith("control.vace_") for name in names) else "sd"
    if own != wanted:
        raise UserError(f"{what}: was trained with model.backbone={own}; expected a run with model.backbone={wanted}")
