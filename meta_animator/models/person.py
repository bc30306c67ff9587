"""A LoRA on the frozen base, by which stage 2 also learns to draw a person and a place, where control alone can only ask the base
for what it knows (a LoRA as Hu et al. 2021 have it, learned from photos under an identifier as in DreamBooth, Ruiz et al. 2023).

Shapes, of a linear layer: A (rank, in), B (out, rank); of a convolution: A (rank, in, h, w), B (out, rank, 1, 1).
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import torch
from peft import LoraConfig
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint, short
from meta_animator.models.backbones.base import Backbone
from meta_animator.models.backbones.lora_files import product
from meta_animator.models.lora import shared_state

NAME = "person"
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


class PersonLoRA:
    """A fresh LoRA on every linear layer and convolution of a base's network, which PEFT wraps in place. The output is unchanged
    as long as every B is. It is a part of the network, where optimizers, devices and precisions find it.

    To be made when nothing takes weights out of the base any more: names change inside.
    """

    def __init__(self, backbone: Backbone, rank: int):
        backbone.fingerprint()  # names the base without it
        self.network = backbone.network
        layers = [name for name, module in self.network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
        self.network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=layers), adapter_name=NAME)

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """("<module>.lora_A.weight", A) and ("<module>.lora_B.weight", B), as they are now: sharding makes others of them."""
        inside = f".{NAME}.weight"
        for name, weight in self.network.named_parameters():
            if name.endswith(inside):
                yield name.removesuffix(inside) + ".weight", weight


def without_person(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a network under the names that it had before a `PersonLoRA` was made, without that."""
    return {n.replace(".base_layer.", "."): w for n, w in state.items() if ".lora_A." not in n and ".lora_B." not in n}


def fold_person(backbone: Backbone, lora: Mapping[str, Tensor], what: str) -> None:
    """Add a person's LoRA to the weights of a base. Raises UserError, before any is changed, for one that does not fit."""
    backbone.fingerprint()
    own, pairs = shared_state(backbone.network), {}
    for module in sorted({name.rsplit(".lora_", 1)[0] for name in lora}):
        name, down, up = f"{module}.weight", lora.get(module + DOWN), lora.get(module + UP)
        fits = name in own and down is not None and up is not None and down.shape[:1] == up.shape[1:2]
        if not fits or _shape(down, up) != own[name].shape:
            raise UserError(f"{what}: its LoRA on the base does not fit {module} of this base; is it damaged?")
        pairs[name] = down, up
    with torch.no_grad():
        for name, pair in pairs.items():
            own[name] += added(*pair).to(own[name])
    backbone.base_loras = MappingProxyType({**backbone.base_loras, called(lora, backbone.network_name): 1.0})


def called(lora: Mapping[str, Tensor], network_name: str) -> str:
    """What metadata call a person's LoRA in the base's weights: as they call the folder `person` that extraction makes of it, in
    `model.base_loras`."""
    return f"{NAME} {short(fingerprint(for_diffusers(lora, network_name)))}"


def own_loras(base_loras: Iterable[str]) -> set[str]:
    """Those of the names in metadata that are `called` so: what stage 2 itself has learned."""
    return {name for name in base_loras if name.startswith(f"{NAME} ")}


def for_diffusers(lora: Mapping[str, Tensor], network_name: str) -> dict[str, Tensor]:
    """Under the names that a pipeline's `load_lora_weights` knows."""
    return {f"{network_name}.{n}": w for n, w in lora.items()}


def added(down: Tensor, up: Tensor) -> Tensor:
    """What a layer's LoRA adds to its weight."""
    return product(up.flatten(1), down.flatten(1)).view(_shape(down, up))


def _shape(down: Tensor, up: Tensor) -> torch.Size:
    return torch.Size((len(up), *down.shape[1:]))
