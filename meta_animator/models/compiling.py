"""torch.compile, block by block: what is repeated in a network is compiled once for all of its copies of a shape."""

from collections.abc import Iterable
from importlib.util import find_spec

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_wan import WanTransformerBlock
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock
from torch import nn

from meta_animator.errors import UserError

REPEATED = (BasicTransformerBlock, ResnetBlock2D, WanTransformerBlock, WanVACETransformerBlock)
BACKEND = "inductor"
GRAPHS = 128  # of one kind of block: each shape has its own; PyTorch would stop at 8 and go on uncompiled, without a word


def compile_blocks(networks: Iterable[nn.Module]) -> int:
    """Compile every repeated block of the networks by itself, when it is first called; how many there are.

    Weights keep their names, and LoRAs are inputs of a graph: all tasks share it. A block with a hook behind it (a temporal
    layer, which looks at the number of frames) stays as it is.
    """
    blocks = [
        module for network in networks for module in network.modules()
        if isinstance(module, REPEATED) and not module._forward_hooks
    ]  # fmt: skip
    dynamo = torch._dynamo.config
    dynamo.cache_size_limit = max(dynamo.cache_size_limit, GRAPHS)
    dynamo.accumulated_cache_size_limit = max(dynamo.accumulated_cache_size_limit, len(REPEATED) * GRAPHS)
    for block in blocks:
        block.compile(backend=BACKEND, dynamic=False)
    return len(blocks)


def check_compiler(key: str) -> None:
    """Raises UserError where torch.compile has nothing to compile with here."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # its own kinds, which differ between versions of torch
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{key}: torch.compile finds no C++ compiler ({reason}); install g++, or leave it empty") from error
    if torch.cuda.is_available() and find_spec("triton") is None:
        raise UserError(f"{key}: torch.compile needs Triton on a GPU; pip install triton, or leave it empty")
