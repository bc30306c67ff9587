"""Run other projects' own networks on known weights and keep what they answer, so that tests can hold ours against it.

    python scripts/dev/make_parity_fixtures.py --output tests/fixtures/parity --ctrlora CTRLORA
    python scripts/dev/make_parity_fixtures.py --output tests/fixtures/parity --animatediff ANIMATEDIFF --diffusers OLD
    python scripts/dev/make_parity_fixtures.py --output tests/fixtures/parity --insightface ARCFACE_TORCH

CTRLORA and ANIMATEDIFF are checkouts of github.com/xyfJASON/ctrlora and github.com/guoyww/AnimateDiff, OLD a folder that
holds the package diffusers 0.11.1 for which the latter was written, ARCFACE_TORCH recognition/arcface_torch of
github.com/deepinsight/insightface. Nothing of theirs is copied: a fixture holds inputs, outputs and the names and shapes of
their weights, whose values follow from the names (`filled`).
Everything runs in float64; their casts to float32 are lifted.
"""

import argparse
import json
import math
import os
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

CONTROL = {
    "image_size": 32, "in_channels": 4, "hint_channels": 3, "model_channels": 32, "attention_resolutions": [2, 1],
    "num_res_blocks": 1, "channel_mult": [1, 2], "num_heads": 2, "use_spatial_transformer": True, "transformer_depth": 1,
    "context_dim": 16, "use_checkpoint": False, "legacy": False,
}  # fmt: skip
RANK, TASKS = 4, ("canny", "DWpose")
GUIDANCE, DDIM_STEPS, BETAS = 7.5, 5, (0.00085, 0.012)


def filled(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights that go by `name`, float64: zero convolutions and LoRAs too, so that every part counts."""
    values = torch.from_numpy(np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)))
    if len(shape) == 1:
        return 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    return values / math.sqrt(math.prod(shape[1:]))


def fill(network: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """Fill a network's weights and return them by name; buffers, such as position tables, keep their values."""
    state = {prefix + name: filled(prefix + name, p.shape) for name, p in network.named_parameters()}
    for name, parameter in network.named_parameters():
        parameter.data = state[prefix + name]
    return state


def inputs(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(zlib.crc32(f"input {name}".encode())).standard_normal(shape))


def write(path: Path, tensors: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], **facts) -> None:
    from safetensors.torch import save_file

    layout = {name: list(tensor.shape) for name, tensor in weights.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"weights": json.dumps(layout), **{key: json.dumps(value) for key, value in facts.items()}}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata=metadata)
    print(f"wrote {path}")


def ctrlora(checkout: Path, output: Path) -> None:
    """The Meta ControlNet with either LoRA, one guided prediction, and five DDIM steps with it."""
    torch.set_default_dtype(torch.float64)
    os.environ["ATTN_PRECISION"] = "as it comes"
    _without_lightning()
    sys.path.insert(0, str(checkout))
    import cldm.cldm_ctrlora_pretrain as pretrain
    import ldm.modules.diffusionmodules.util as util
    from cldm.cldm import ControlledUnetModel
    from cldm.ddim_hacked import DDIMSampler

    util.GroupNorm32.forward = nn.GroupNorm.forward
    for module in [m for n, m in sys.modules.items() if n.startswith(("cldm.", "ldm.")) and hasattr(m, "timestep_embedding")]:
        module.timestep_embedding = lambda *a, embed=util.timestep_embedding, **k: embed(*a, **k).double()
    network = pretrain.ControlNetPretrain(lora_rank=RANK, tasks=list(TASKS), **CONTROL)
    shape = {key: value for key, value in CONTROL.items() if key != "hint_channels"}
    unet = ControlledUnetModel(out_channels=4, **shape)
    network.dtype = unet.dtype = torch.float64
    weights = fill(network, "control_model.") | fill(unet, "model.diffusion_model.")
    condition, x, t = inputs("condition", 2, 4, 8, 8), inputs("x", 2, 4, 8, 8), torch.tensor([981, 21])
    context, null = inputs("context", 2, 7, 16), inputs("null", 2, 7, 16)
    tensors = {"condition": condition, "x": x, "t": t, "context": context, "null": null}
    for task in TASKS:
        network.switch_lora(task)
        for k, residual in enumerate(network(hint=condition, timesteps=t, context=context)):
            tensors[f"{task}.residual.{k}"] = residual.detach()

    def apply_model(x, t, cond):
        return unet(x=x, timesteps=t, context=cond, control=network(hint=condition, timesteps=t, context=cond))

    with torch.no_grad():
        tensors["plain"] = unet(x=x, timesteps=t, context=context, control=None)
        conditional, unconditional = apply_model(x, t, context), apply_model(x, t, null)
        tensors["conditional"] = conditional
        tensors["guided"] = unconditional + GUIDANCE * (conditional - unconditional)
    betas = torch.linspace(BETAS[0] ** 0.5, BETAS[1] ** 0.5, 1000) ** 2
    alphas = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1), alphas[:-1]])
    model = types.SimpleNamespace(
        num_timesteps=1000, device="cpu", betas=betas, alphas_cumprod=alphas, alphas_cumprod_prev=before, parameterization="eps",
        apply_model=apply_model,
    )  # fmt: skip
    sampler = DDIMSampler(model)
    sampler.register_buffer = lambda name, value: setattr(sampler, name, value)
    sampler.make_schedule(DDIM_STEPS, verbose=False)
    state = x
    for index in reversed(range(DDIM_STEPS)):
        at = torch.full((2,), int(sampler.ddim_timesteps[index]))
        state, _ = sampler.p_sample_ddim(
            state, context, at, index, unconditional_guidance_scale=GUIDANCE, unconditional_conditioning=null
        )
    tensors["ddim"] = state
    names = {f"control_model.{n}": v for n, v in network.state_dict().items()}
    names |= {f"model.diffusion_model.{n}": v for n, v in unet.state_dict().items()}
    assert set(weights) <= set(names)
    write(
        output / "ctrlora.safetensors", tensors, names, tasks=TASKS, rank=RANK, guidance=GUIDANCE, active=TASKS[-1],
        betas=BETAS, steps=DDIM_STEPS,
    )  # fmt: skip


def _without_lightning() -> None:
    """Their model classes derive from Lightning's, which nothing here needs."""
    lightning = types.ModuleType("pytorch_lightning")
    lightning.LightningModule = nn.Module
    sys.modules["pytorch_lightning"] = lightning
    for name in ("utilities", "utilities.distributed", "utilities.rank_zero"):
        module = types.ModuleType(f"pytorch_lightning.{name}")
        module.rank_zero_only = lambda function: function
        sys.modules[module.__name__] = module
    sys.modules.setdefault("open_clip", types.ModuleType("open_clip"))


def animatediff(checkout: Path, old_diffusers: Path, output: Path) -> None:
    """A small UNet with motion modules, without (v3) and with one in the mid block (v2)."""
    torch.set_default_dtype(torch.float32)  # their position tables are
    import huggingface_hub

    for name in ("cached_download", "HfFolder", "Repository"):  # gone from today's; only named by the old package
        if not hasattr(huggingface_hub, name):
            setattr(huggingface_hub, name, type(name, (), {}))
    for name in ("diffusers", "diffusers.models"):  # without running their __init__
        module = types.ModuleType(name)
        module.__path__ = [str(old_diffusers.joinpath(*name.split(".")))]
        module.__version__ = "0.11.1"
        sys.modules[name] = module
    from diffusers.modeling_utils import ModelMixin

    sys.modules["diffusers"].ModelMixin = sys.modules["diffusers.models"].ModelMixin = ModelMixin
    sys.path.insert(0, str(checkout))
    from animatediff.models.unet import UNet3DConditionModel

    for version, mid_block in (("v2", True), ("v3", False)):
        unet = UNet3DConditionModel(
            sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
            use_motion_module=True, motion_module_mid_block=mid_block, motion_module_type="Vanilla",
            use_inflated_groupnorm=True,
            motion_module_kwargs={
                "num_attention_heads": 8, "num_transformer_block": 1, "temporal_position_encoding": True,
                "attention_block_types": ["Temporal_Self", "Temporal_Self"], "temporal_position_encoding_max_len": 32,
            },
        ).double()  # fmt: skip
        weights = fill(unet)
        tables = {n: b for n, b in unet.named_buffers() if n.endswith("pos_encoder.pe")}
        x, t, context = inputs("video", 2, 4, 6, 8, 8), torch.tensor([981, 21]), inputs("context", 2, 7, 16)
        with torch.no_grad():
            sample = unet(x, t, context).sample
        write(
            output / f"animatediff_{version}.safetensors",
            {"x": x, "t": t, "context": context, "sample": sample}, weights | tables,
        )  # fmt: skip


def insightface(checkout: Path, output: Path) -> None:
    """An iResNet with one block a stage, its batch statistics filled like weights."""
    torch.set_default_dtype(torch.float64)
    sys.path.insert(0, str(checkout))
    from backbones.iresnet import IBasicBlock, IResNet

    network = IResNet(IBasicBlock, [1, 1, 1, 1], num_features=8).eval()
    weights = fill(network)
    for name, buffer in network.named_buffers():
        weights[name] = buffer if name.endswith("num_batches_tracked") else statistics(name, buffer.shape)
        if buffer.ndim:
            buffer.copy_(weights[name])
    crops = inputs("crops", 2, 3, 112, 112)
    with torch.no_grad():
        write(output / "iresnet.safetensors", {"embedding": network(crops)}, weights)


def statistics(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Running means, and variances above 0.5."""
    values = filled(name, shape)
    return values.abs() + 0.5 if name.endswith("running_var") else values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ctrlora", type=Path)
    parser.add_argument("--animatediff", type=Path)
    parser.add_argument("--diffusers", type=Path, help="folder that holds the package diffusers 0.11.1")
    parser.add_argument("--insightface", type=Path, help="its recognition/arcface_torch")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    if args.ctrlora:
        ctrlora(args.ctrlora, args.output)
    if args.animatediff:
        animatediff(args.animatediff, args.diffusers, args.output)
    if args.insightface:
        insightface(args.insightface, args.output)


if __name__ == "__main__":
    main()
