"""What the nodes touch of ComfyUI, written for these tests after its interfaces: small stand-ins, no part of ComfyUI.

The network is diffusers' ControlNetModel under the original names. With COMFYUI_PATH set, the same tests run on ComfyUI itself.
"""

import re
import types

import torch
from diffusers import ControlNetModel
from torch import nn

from meta_animator.models.backbones.ldm import reversed_names, unet_names


class Hint(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, hint):
        return self.block(hint)


class Network(nn.Module):
    """comfy.cldm.cldm.ControlNet: built from a config, weights under the original names, an `input_hint_block`."""

    def __init__(self, *, model_channels, channel_mult, num_res_blocks, transformer_depth, context_dim, num_heads, hint_channels,
                 in_channels, dtype, device, operations, **more):  # fmt: skip
        super().__init__()
        self.dtype, self.layers, self.input_hint_block = dtype, num_res_blocks[0], nn.Conv2d(hint_channels, model_channels, 3)
        starts = [sum(num_res_blocks[:k]) for k in range(len(num_res_blocks))]
        kinds = ["CrossAttnDownBlock2D" if transformer_depth[k] else "DownBlock2D" for k in starts]
        widths = [model_channels * factor for factor in channel_mult]
        self.net = ControlNetModel(
            in_channels=in_channels, block_out_channels=widths, layers_per_block=self.layers, down_block_types=kinds,
            cross_attention_dim=context_dim, attention_head_dim=num_heads, norm_num_groups=32,
            conditioning_embedding_out_channels=(8,),
        )  # fmt: skip
        self.net.controlnet_cond_embedding = Hint(lambda hint: self.input_hint_block(hint, None, None))
        self._names = unet_names(self.net.state_dict(), self.layers)

    def state_dict(self, **_):
        return {self._names[n]: w for n, w in self.net.state_dict().items()}

    def load_state_dict(self, state):
        back = reversed_names(self._names)
        self.net.load_state_dict({back[n]: w for n, w in state.items()})

    def forward(self, x, hint, timesteps, context, y=None, **_):
        down, mid = self.net(x, timesteps, context, controlnet_cond=hint, return_dict=False)
        return {"output": list(down), "middle": [mid]}


def detect(state, prefix):
    """comfy.model_detection.detect_unet_config, for a ControlNet's weights."""
    blocks = sorted({int(m[1]) for n in state if (m := re.match(r"input_blocks\.(\d+)\.", n))})
    levels, depths = [[]], []
    for k in blocks[1:]:
        if f"input_blocks.{k}.0.op.weight" in state:
            levels.append([])
        else:
            levels[-1].append(state[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0])
            depths.append(int(f"input_blocks.{k}.1.proj_in.weight" in state))
    first = state["input_blocks.0.0.weight"]
    return {
        "model_channels": first.shape[0], "in_channels": first.shape[1], "out_channels": 4,
        "channel_mult": [level[0] // first.shape[0] for level in levels], "num_res_blocks": [len(level) for level in levels],
        "transformer_depth": depths,
        "context_dim": next((w.shape[1] for n, w in state.items() if n.endswith("attn2.to_k.weight")), None),
    }  # fmt: skip


class ControlNet:
    """comfy.controlnet.ControlNet: a hint, a strength, a range of timesteps, another control before it."""

    def __init__(self, control_model=None, compression_ratio=8, latent_format=None, load_device=None, manual_cast_dtype=None,
                 preprocess_image=lambda a: a):  # fmt: skip
        self.control_model, self.control_model_wrapped = control_model, types.SimpleNamespace(model=control_model)
        self.compression_ratio, self.latent_format, self.preprocess_image = compression_ratio, latent_format, preprocess_image
        self.load_device, self.manual_cast_dtype, self.upscale_algorithm = load_device, manual_cast_dtype, "nearest-exact"
        self.cond_hint_original = self.cond_hint = self.timestep_range = self.previous_controlnet = self.vae = None
        self.strength, self.timestep_percent_range = 1.0, (0.0, 1.0)

    def set_cond_hint(self, hint, strength=1.0, timestep_percent_range=(0.0, 1.0), vae=None):
        self.cond_hint_original, self.strength, self.timestep_percent_range = hint, strength, timestep_percent_range
        self.vae = vae if self.latent_format is not None else None
        return self

    def set_previous_controlnet(self, control):
        self.previous_controlnet = control
        return self

    def pre_run(self, model, percent_to_timestep):
        self.timestep_range = tuple(percent_to_timestep(share) for share in self.timestep_percent_range)
        self.sampling = model.model_sampling

    def copy_to(self, other):
        for name in ("cond_hint_original", "strength", "timestep_percent_range", "compression_ratio", "upscale_algorithm",
                     "latent_format", "vae", "preprocess_image"):  # fmt: skip
            setattr(other, name, getattr(self, name))

    def copy(self):
        other = ControlNet(None, load_device=self.load_device, manual_cast_dtype=self.manual_cast_dtype)
        other.control_model, other.control_model_wrapped = self.control_model, self.control_model_wrapped
        self.copy_to(other)
        return other

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        before = self.previous_controlnet and self.previous_controlnet.get_control(
            x_noisy, t, cond, batched_number, transformer_options
        )
        if self.timestep_range and not self.timestep_range[1] <= t[0] <= self.timestep_range[0]:
            return before
        if self.cond_hint is None or tuple(8 * s for s in x_noisy.shape[2:]) == tuple(self.cond_hint.shape[2:]):
            pictures = self.preprocess_image(self.cond_hint_original)
            self.cond_hint = self.latent_format.process_in(self.vae.encode(pictures.movedim(1, -1)))
        if len(self.cond_hint) != len(x_noisy):
            self.cond_hint = self.cond_hint.repeat(batched_number, 1, 1, 1)
        made = self.control_model(
            x=x_noisy, hint=self.cond_hint, timesteps=self.sampling.timestep(t), context=cond["c_crossattn"]
        )
        made = {kind: [one * self.strength for one in some] for kind, some in made.items()} | {"input": []}
        if before:
            made = {kind: [a + b for a, b in zip(some, before[kind], strict=True)] for kind, some in made.items()}
        return made


class ProgressBar:
    """comfy.utils.ProgressBar"""

    def __init__(self, total):
        self.total, self.current = total, 0

    def update(self, value):
        self.current += value


class SD15:
    """comfy.latent_formats.SD15"""

    def process_in(self, latents):
        return latents * 0.18215


def comfy_modules():
    """{name: module} of the stand-in for the package `comfy`."""
    parts = {
        "cldm": {}, "cldm.cldm": {"ControlNet": Network}, "controlnet": {"ControlNet": ControlNet},
        "latent_formats": {"SD15": SD15},
        "utils": {"ProgressBar": ProgressBar}, "model_detection": {"detect_unet_config": detect},
        "ops": {"pick_operations": lambda dtype, cast: None},
        "model_management": {
            "get_torch_device": lambda: torch.device("cpu"), "unet_offload_device": lambda: torch.device("cpu"),
            "unet_dtype": lambda model_params, supported_dtypes: torch.float32, "unet_manual_cast": lambda dtype, device: None,
        },
    }  # fmt: skip
    modules = {"comfy": types.ModuleType("comfy")}
    for name, has in parts.items():
        module = modules[f"comfy.{name}"] = types.ModuleType(f"comfy.{name}")
        vars(module).update(has)
        parent, _, own = f"comfy.{name}".rpartition(".")
        setattr(modules[parent], own, module)
    return modules


def api_modules():
    """{name: module} of the stand-in for `comfy_api.latest`."""

    class Part:
        def __init__(self, *given, **named):
            self.id, self.display_name = next(iter(given), None), named.get("display_name")
            self.named = {name: value for name, value in named.items() if value is not None}

    def kind(name):
        own = {"Input": type("Input", (Part,), {"io_type": name}), "Output": type("Output", (Part,), {"io_type": name})}
        return type(name, (), own)

    class ComfyNode:
        @classmethod
        def GET_SCHEMA(cls):
            return cls.define_schema()

    io = types.SimpleNamespace(
        Schema=types.SimpleNamespace, ComfyNode=ComfyNode, NodeOutput=lambda *values: types.SimpleNamespace(args=values),
        Custom=kind, Combo=kind("COMBO"), Int=kind("INT"), Float=kind("FLOAT"), String=kind("STRING"),
    )  # fmt: skip
    package, latest = types.ModuleType("comfy_api"), types.ModuleType("comfy_api.latest")
    latest.io, latest.ComfyExtension = io, type("ComfyExtension", (), {})
    return {"comfy_api": package, "comfy_api.latest": latest}
