"""One LoRA on a network, always on, with its weights under PEFT's names."""

from collections.abc import Callable

from torch import Tensor, nn

from meta_animator.models.lora import LoRABank

ONLY = "motion"


class LoRATree(nn.Module):
    """`named_parameters` are "<module>.lora_A.weight" (rank, in) and "<module>.lora_B.weight" (out, rank), for every linear layer
    whose name `where` wants. These are wrapped in place; the network's output is unchanged as long as lora_B is."""

    def __init__(self, network: nn.Module, rank: int, where: Callable[[str], bool]):
        super().__init__()
        bank = LoRABank(network, rank, [ONLY], where)
        for name, weight in bank.state(ONLY).items():
            _register(self, name.split("."), weight)
        self.bank = bank
        self.bank.use(ONLY)


def _register(module: nn.Module, path: list[str], weight: Tensor) -> None:
    name, *rest = path
    if not rest:
        module.register_parameter(name, weight)
        return
    if name not in module._modules:
        module.add_module(name, nn.Module())
    _register(module._modules[name], rest, weight)
