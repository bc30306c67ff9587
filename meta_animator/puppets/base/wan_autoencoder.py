"""What Wan's video autoencoder is trained by, beside the class of diffusers: how it starts, and what it computes while it is
trained.

Letters: clips `b 3 f H W`, latents `b z f' h w`, as that class has them.
"""

import functools

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from torch import Tensor, nn


def encode(vae: AutoencoderKLWan, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance (b z f' h w), float32, of clips (b 3 f H W)."""
    posterior = vae.encode(pixels).latent_dist
    return posterior.mean.float(), posterior.logvar.float()


@torch.no_grad()
def start_as_average(vae: AutoencoderKLWan, channels: int = 8) -> None:
    """Let the first channels pass straight through: averaged on the way down, repeated on the way up, residual branches at
    zero. The rest starts at random, with unit gain.

    Each frame starts by itself: of every four a latent is the first, and comes back four times. So what is learned on photos
    holds for clips.
    """
    for name, conv in vae.named_modules():
        if not isinstance(conv, nn.Conv2d | nn.Conv3d):
            continue
        weight, halves = torch.zeros_like(conv.weight), max(conv.stride) == 2
        frame = 1 if halves else -1  # a causal kernel ends at the frame that it is at; what halves frames has it in the middle
        now = weight[:, :, frame] if weight.ndim == 5 else weight
        if name.endswith("time_conv"):
            now[..., 0, 0] = torch.eye(conv.in_channels).repeat(conv.out_channels // conv.in_channels, 1)
        elif not name.endswith(("conv2", "proj")):
            nn.init.kaiming_normal_(now, nonlinearity="linear")
        if not name.endswith(("time_conv", "conv1", "conv2", "proj", "to_qkv")):
            _pass(now, min(channels, *now.shape[:2]), halves)
        conv.weight.copy_(weight)
        nn.init.zeros_(conv.bias)


def _pass(kernel: Tensor, channels: int, halves: bool) -> None:
    """Let the first channels of a kernel (out in h w) be those that come in, or the means of four places, and little else."""
    for c in range(channels):
        kernel[c] *= 0.3
        height, width = kernel.shape[-2:]
        if halves:
            kernel[c, c, :2, :2] += 0.25
        else:
            kernel[c, c, height // 2, width // 2] += 1


def with_images_as_images(vae: AutoencoderKLWan) -> AutoencoderKLWan:
    """The same VAE; a causal convolution of a first frame, before which there is nothing, is computed in two dimensions, not in
    three, which is a third of the work."""
    for conv in vae.modules():
        if isinstance(conv, WanCausalConv3d) and conv.stride[0] == 1:
            conv.forward = functools.partial(_causal, conv)
    return vae


def _causal(conv: WanCausalConv3d, x: Tensor, cache_x: Tensor | None = None) -> Tensor:
    left, _, top, _, before, _ = conv._padding
    if x.shape[2] > 1 or cache_x is not None or before != conv.kernel_size[0] - 1:
        return WanCausalConv3d.forward(conv, x, cache_x)
    return F.conv2d(x[:, :, 0], conv.weight[:, :, -1], conv.bias, padding=(top, left)).unsqueeze(2)
