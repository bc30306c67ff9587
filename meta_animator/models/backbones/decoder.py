"""A VAE's decoder on the way back: its layers computed again instead of kept."""

from collections.abc import Callable, Iterator

from diffusers import AutoencoderKL
from diffusers.models.unets.unet_2d_blocks import UpDecoderBlock2D
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def decode_checkpointed(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """What `vae.decode(latents).sample` is, in training or in evaluation, with one layer's activations in memory at a time
    where a gradient goes back through it: diffusers' own checkpoints are whole blocks, of which the last is half of it all."""
    x = latents if vae.post_quant_conv is None else vae.post_quant_conv(latents)
    for layer in _layers(vae.decoder):
        x = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
    return x


def _layers(decoder: nn.Module) -> Iterator[Callable[[Tensor], Tensor]]:
    """The decoder's layers from latents to pixels."""
    yield decoder.conv_in
    yield decoder.mid_block
    for block in decoder.up_blocks:
        if type(block) is UpDecoderBlock2D:
            yield from (lambda x, resnet=resnet: resnet(x, temb=None) for resnet in block.resnets)
            yield from block.upsamplers or ()
        else:
            yield block
    yield lambda x: decoder.conv_out(decoder.conv_act(decoder.conv_norm_out(x)))
