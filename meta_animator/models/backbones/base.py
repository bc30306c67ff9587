"""What a base model offers to the rest of the code.

Shapes: pixels `b f 3 H W` in [-1, 1], latents `b f' c h w`, already scaled, with f' = `latent_frames(f)`; an image is a clip of
one frame; t (b,); context (b n d). Only a backbone permutes axes, and only it knows what a control output is made of.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Backbone(Protocol):
    process: Any  # diffusion.process.DDPM or Flow
    vae_scale_factor: int  # pixels per latent, along height and width
    latent_channels: int  # c
    control_channels: int  # k of a control input
    text_shape: tuple[int, int]  # (n, d) of a prompt's embedding
    size_multiple: int  # height and width in pixels must be divisible by it
    frames_apart: bool  # whether each frame is encoded and decoded by itself; otherwise those of a clip together
    has_time: bool  # whether `predict` sees a clip's frames together; otherwise each is an image by itself
    network_name: str  # of `network`, as files of LoRAs call it: unet or transformer
    base_loras: Mapping[str, float]  # {name and fingerprint: weight} of what was folded into the weights

    def latent_frames(self, num_frames: int) -> int:
        """f', how many latent frames a clip of `num_frames` has. Raises UserError, with the nearest number that will do, for one
        that the base cannot encode."""

    def next_clip(self, num_frames: int) -> int:
        """The smallest number of frames, `num_frames` or more, that the base can encode."""

    def pixel_frames(self, part: slice) -> slice:
        """The frames of a clip that its latent frames `part` show."""

    def encode(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scaled latents of clips; no gradient. The posterior's mode, or with unit normal `noise`, shaped
        like the latents, a draw from it. Pixels may lie on another device than the networks, and go there in parts; latents
        come back to where they lie."""

    def encode_condition(self, pixels: Tensor, noise: Tensor | None = None) -> Tensor:
        """The same of condition images, in the range that the run's config asks for; `noise` counts only where
        `condition_posterior` is "sample"."""

    def control_input(self, condition_latents: Tensor, references: Tensor | None = None) -> Tensor:
        """What the control network reads (b r+f' k h w), of whole clips' condition latents (b f' c h w), before anything is cut
        out of it. references: latents (b r c h w) of photos, which go before the clip's latent frames in x_t too. Raises
        UserError where the base has no place for them."""

    def decode(self, latents: Tensor, part: slice | None = None) -> Tensor:
        """Pixels of scaled latents, differentiable, not clipped; of the latent frames `part` alone, to which alone a gradient
        goes back, where what came before them counts."""

    def show_in_turn(self, latents: Tensor, frames_at_once: int) -> Iterator[Tensor]:
        """Pixels to look at, of all latent frames: `decode` without a gradient, or what `model.tiny_vae` makes of them where the
        config names one, as consecutive parts (b v 3 H W) of the clip: of `frames_at_once` frames, or as many as belong
        together."""

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """(b n d); no gradient."""

    @property
    def network(self) -> nn.Module:
        """What `predict` runs: diffusers' UNet or transformer."""

    @property
    def encoders(self) -> list[nn.Module]:
        """The networks that `release` frees."""

    def release(self, text: bool, encoder: bool) -> None:
        """Free the text encoder and the encoder of images, each if named: what needs it must not be called any more.
        Fingerprints stay."""

    def predict(self, x_t: Tensor, t: Tensor, context: Tensor, control_output: Any | None = None) -> Tensor:
        """The network's prediction for clips, shaped like x_t."""

    def make_control(self, tasks: list[str], rank: int) -> nn.Module:
        """A control network with a fresh LoRA for each task: the base's own where it comes with one, otherwise a fresh one that
        leaves the base's output unchanged."""

    def with_motion(self, max_seq_length: int) -> nn.Module | None:
        """Join a fresh motion module that leaves the base's output unchanged, and return it; None where none is asked for."""

    def fits(self, prompt: str) -> bool:
        """Whether `embed_text` reads all of a prompt."""

    def rare_words(self) -> list[str]:
        """Words of one token each that can stand for people in prompts."""

    def fingerprint(self) -> str:
        """Names these base weights, as they were loaded, in checkpoints."""

    def named_weights(self) -> dict[str, Tensor]:
        """The weights that `fingerprint` names, as long as none were halved or released."""

    def encoder_fingerprint(self) -> str:
        """Names all that `encode` depends on beside the pixels, for caches of latents."""

    def hold_frozen_in(self, dtype: torch.dtype) -> None:
        """Weights that are not trained in a half precision from now on, as far as the results of `decode` and `predict`
        bear it. `encode` stays exact."""
