"""A bank of LoRAs on one network: one per Meta-Task, switched batch by batch.

Shapes: x (..., in_features); down (rank, in_features); up (out_features, rank).
"""

from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from meta_animator.errors import UserError
from meta_animator.models.precision import autocasts
from meta_animator.weights import check_names, copy_strict


class LoRALinear(nn.Module):
    """y = W x + b + sum_k w_k up_k down_k x over the active LoRAs (Hu et al. 2021, eq. 3, with alpha = rank).

    The active matrices are held as plain references that `LoRABank.use` sets: a compiled graph takes them as inputs,
    so that nine tasks share one graph, and an inactive LoRA is not part of the computation, so its gradient is None.

    Where W is trained too and x has many rows, the LoRAs are added to W first: the gradient of the sum, which W needs anyway,
    gives theirs by products of weights, without a look at x.
    """

    def __init__(self, linear: nn.Linear, rank: int, tasks: Iterable[str]):
        super().__init__()
        self.base = linear
        self.down = nn.ParameterDict()
        self.up = nn.ParameterDict()
        self.used: dict[str, float] = {}  # {LoRA: weight}
        self.active: tuple[tuple[Tensor, Tensor, float], ...] = ()
        for task in tasks:
            self.add(task, rank)

    def add(self, task: str, rank: int) -> None:
        like = self.base.weight
        down = torch.empty(rank, self.base.in_features, device=like.device, dtype=like.dtype)
        self.down[task] = nn.Parameter(down.normal_(std=1.0 / rank) if not down.is_meta else down)
        self.up[task] = nn.Parameter(torch.zeros(self.base.out_features, rank, device=like.device, dtype=like.dtype))

    def use(self, weights: Mapping[str, float]) -> None:
        """Make these LoRAs active. To be called again where the module holds other tensors since."""
        self.used = dict(weights)
        self.active = tuple((self.down[task], self.up[task], float(w)) for task, w in weights.items())

    def merged(self) -> Tensor:
        """W + sum_k w_k up_k down_k."""
        weight = self.base.weight
        for down, up, scale in self.active:
            weight = torch.addmm(weight, up.to(weight.dtype), down.to(weight.dtype), alpha=scale)
        return weight

    def adds(self, x: Tensor) -> bool:
        """Whether the LoRAs are added to W for this x: where that gives the same gradients for fewer products."""
        if not (self.active and self.base.weight.requires_grad and torch.is_grad_enabled()) or autocasts(x.device):
            return False
        ins, outs = self.base.in_features, self.base.out_features
        return x.numel() // ins * (ins + outs) > ins * outs

    def forward(self, x: Tensor) -> Tensor:
        if self.adds(x):
            return F.linear(x, self.merged(), self.base.bias)
        y, kept = self.base(x), self.base.weight.dtype  # a trained LoRA on a frozen half: rounded where it is used
        for down, up, weight in self.active:
            delta = F.linear(F.linear(x, down.to(kept)), up.to(kept))
            y = y + (delta if weight == 1.0 else weight * delta)
        return y


class LoRABank:
    """The LoRAs of all tasks inside `network`, whose every nn.Linear is wrapped in place, or those whose name `where` wants."""

    def __init__(
        self, network: nn.Module, rank: int, tasks: Iterable[str], where: Callable[[str], bool] = lambda name: True
    ):  # fmt: skip
        self.rank = rank
        self.tasks = list(tasks)
        self.layers: dict[str, LoRALinear] = {}
        self.active: dict[str, float] = {}  # {LoRA: weight}, as `use` was told
        names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear) and where(name)]
        for name in names:
            parent_name, _, child = name.rpartition(".")
            parent = network.get_submodule(parent_name)
            layer = LoRALinear(network.get_submodule(name), rank, self.tasks)
            setattr(parent, child, layer)
            self.layers[name] = layer

    def use(self, task: str | Mapping[str, float] | None) -> None:
        """Make one LoRA active, or several with weights, or none. Nothing else changes: no flag, no optimizer state.

        Raises UserError for an unknown task.
        """
        weights = {} if task is None else {task: 1.0} if isinstance(task, str) else dict(task)
        for name in weights:
            if name not in self.tasks:
                raise UserError(f"LoRA '{name}' is not in the model; it has: {', '.join(self.tasks) or 'none'}")
        self.active = weights
        for layer in self.layers.values():
            layer.use(weights)

    def parameters(self, task: str) -> list[nn.Parameter]:
        return [p for layer in self.layers.values() for p in (layer.down[task], layer.up[task])]

    def state(self, task: str) -> dict[str, Tensor]:
        """{"<module>.lora_A.weight": down, "<module>.lora_B.weight": up}, named as PEFT names them."""
        state = {}
        for name, layer in self.layers.items():
            state[f"{name}.lora_A.weight"] = layer.down[task]
            state[f"{name}.lora_B.weight"] = layer.up[task]
        return state

    def load(self, task: str, state: Mapping[str, Tensor], what: str) -> None:
        """Copy a LoRA of the bank's rank in; it is added if its name is new. Raises UserError unless names and shapes match."""
        what = f"{what}: LoRA '{task}'"
        check_names([f"{name}.lora_{half}.weight" for name in self.layers for half in "AB"], state, what)
        rank = state[f"{next(iter(self.layers))}.lora_A.weight"].shape[0]
        if rank != self.rank:
            raise UserError(f"{what}: has rank {rank}; the model's is {self.rank}")
        if task not in self.tasks:
            for layer in self.layers.values():
                layer.add(task, rank)
            self.tasks.append(task)
        copy_strict(self.state(task), state, what)


def shared_state(network: nn.Module) -> dict[str, Tensor]:
    """The weights of a network inside which a bank lives, under the names that they had before, without the LoRAs."""
    return {n.replace(".base.", "."): p for n, p in network.named_parameters() if f".{n}".split(".")[-2] not in ("down", "up")}
