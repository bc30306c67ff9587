"""The Dual Space Hybrid Loss: noise error in latent space, and what the eye sees of it in image space.

Letters in shapes: b samples, f frames, f' latent frames, k gated samples; p parts of them that are decoded one after another,
with u latent frames and v frames each.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from meta_animator.diffusion.process import Noised, Process
from meta_animator.errors import UserError
from meta_animator.losses.identity import EmbedFace, identity_loss
from meta_animator.losses.latent import latent_loss
from meta_animator.losses.one_by_one import sum_one_by_one
from meta_animator.losses.pixel import pixel_loss

# Lies between the noise levels of timesteps 124 (0.36958) and 125 (0.37138) of Stable Diffusion 1.5.
SD15_GATE = 0.3707
WEIGHTS = {"pixel": "gated_images", "clean_latent": "gated_images", "face": "faces"}  # what each log is a mean over


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
    """What the pictures of a batch should show.

    pixels        `b f 3 H W` in [-1, 1]; only read where the image terms are active
    pixel_rows    int64 (p,): `pixels` are those of these samples alone (p f 3 H W), the gated ones; None: of all
    landmarks     (b, f, 5, 2), in pixels; only read where face_weight is not 0
    face_visible  bool (b, f): faces seen, and large enough for the embedder
    """

    pixels: Tensor | None
    pixel_rows: Tensor | None = None
    landmarks: Tensor | None = None
    face_visible: Tensor | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridLoss:
    """L = latent_weight L_latent + image_weight (pixel_weight L_pixel + face_weight L_face).

    L_latent is a mean over all samples. The image terms see only the gated samples: those whose noise level is at most
    `max_noise_level`, so that a single prediction shows the image. L_pixel is a mean over their images, L_face over their
    visible faces. A term that no sample takes part in is 0. Gradients reach the prediction through `decode` and `embed_face`,
    whose own weights get none. Images are decoded one by one: how many are gated makes no difference to the memory that this
    takes.

    process          says what a prediction means, and how noisy a timestep is
    decode           latents `1 f' c h w` of a clip -> its pixels `1 f 3 H W` in [-1, 1]; or of the latent frames of it that a
                     slice names alone
    embed_face       as for `identity_loss`; None: no face term
    image_weight     lambda
    max_noise_level  the gate, included, in the unit of the process's `noise_level`
    start_step       the first step with the image terms
    """

    process: Process
    decode: Callable[..., Tensor]
    embed_face: EmbedFace | None = None
    image_weight: float = 1.0
    face_weight: float = 1.0
    pixel_weight: float = 1.0
    latent_weight: float = 1.0
    max_noise_level: float = SD15_GATE
    start_step: int = 0

    def __post_init__(self) -> None:
        for name in ("image_weight", "face_weight", "pixel_weight", "latent_weight", "start_step"):
            if not getattr(self, name) >= 0:
                raise UserError(f"loss.{name}: expected a value >= 0, got {getattr(self, name)}")
        if not 0 <= self.max_noise_level <= 1:
            raise UserError(f"loss.max_noise_level: expected a value in [0, 1], got {self.max_noise_level}")

    def image_active(self, step: int) -> bool:
        """Whether the image terms count in this step: what they need can be left out of a batch otherwise."""
        return step >= self.start_step and self.image_weight * (self.pixel_weight + self.face_weight) > 0

    def gated(self, t: Tensor) -> Tensor:
        """Which of the timesteps (b,) the image terms see: bool (b,)."""
        return self.process.noise_level(t) <= self.max_noise_level

    def counts(self, t: Tensor, face_visible: Tensor | None, frames: int = 1) -> Tensor:
        """float32 (2,): how many gated images of `frames` per sample a batch has, and how many visible faces they show."""
        gated = self.gated(t)
        faces = 0 if face_visible is None else face_visible[gated.to(face_visible.device)].sum()
        return torch.tensor([float(gated.sum() * frames), float(faces)])

    def __call__(
        self, prediction: Tensor, noised: Noised, truth: Truth, step: int, *, place_weights: Tensor | None = None,
        counts: Tensor | None = None, part: slice | None = None, gated: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:  # fmt: skip
        """The loss, a float32 scalar, and its parts.

        prediction      `b f' c h w`, for `noised.x_t`
        place_weights   how much the latent error counts at each place, see `weights` of `latent_loss`
        counts          (2,): gated images and faces that the image terms are means over, this batch's own `counts` by default.
                        Where a gradient is averaged over micro-batches and processes, the mean over all of them needs the mean
                        of their counts.
        part            the latent frames of each clip that the image terms see, and that `truth` shows; None: all of them
        gated           `gated` of the timesteps, in main memory, where they are known there; so that, with faces and landmarks
                        there too, nothing waits for the device

        The logs are detached float32 scalars. `pixel`, `face` and `clean_latent` (error of the implied clean latents)
        are means over this batch's `gated_images`, `faces` and `gated_images`, and 0 where those are 0: weigh by them
        (WEIGHTS names them) to average over batches.
        """
        latent = latent_loss(prediction, noised.target, place_weights).mean()
        if not self.image_active(step):
            return self.latent_weight * latent, {"latent": latent.detach()}
        chosen = (self.gated(noised.t) if gated is None else gated).nonzero().squeeze(1)
        gated = chosen.to(prediction.device, non_blocking=True)
        clean = self.process.to_x0(prediction[gated], noised.x_t[gated], noised.t[gated.to(noised.t.device)])
        pixels = truth.pixels if truth.pixel_rows is not None else truth.pixels[gated]
        if len(pixels) != len(chosen):
            raise ValueError(f"pixels of samples {truth.pixel_rows.tolist()} for the gated ones, {chosen.tolist()}")
        if part is None:
            clean, x_0 = _decodable(clean, pixels), _decodable(noised.latents[gated], pixels)
            shown = clean.detach()
        else:
            x_0, shown = noised.latents[gated][:, part], clean.detach()[:, part]
        x = pixels.reshape(len(clean), -1, *pixels.shape[2:]) if len(clean) else pixels
        points, visible = self._faces(truth, chosen, x) if self.face_weight else (x, [[False]] * len(x))
        own = {"gated_images": latent.new_full((), x.shape[0] * x.shape[1]), "faces": latent.new_full((), sum(map(sum, visible)))}
        counts = torch.stack(list(own.values())) if counts is None else counts.to(latent)
        weights = torch.stack([counts.new_full((), self.pixel_weight), counts.new_full((), self.face_weight)])

        def terms(k: int, one: Tensor) -> Tensor:
            """Pixel and face error of part k, decoded from its clean latents."""
            decoded = self.decode(one)[0] if part is None else self.decode(one, part)[0]
            pixel = pixel_loss(x[k], decoded).sum()
            if not any(visible[k]):
                return torch.stack([pixel, torch.zeros_like(pixel)])
            return torch.stack([pixel, identity_loss(self.embed_face, x[k], decoded, points[k], torch.tensor(visible[k]))[0]])

        image, (pixel, face) = sum_one_by_one(terms, clean, weights / counts.clamp_min(1e-6))
        frames = x.shape[1]
        sums = {"pixel": pixel, "clean_latent": latent_loss(shown, x_0).sum() * frames}
        sums |= {"face": face} if self.face_weight else {}
        logs = {name: total / own[WEIGHTS[name]].clamp_min(1) for name, total in sums.items()}
        return self.latent_weight * latent + self.image_weight * image, {"latent": latent.detach(), **logs, **own}

    def _faces(self, truth: Truth, chosen: Tensor, x: Tensor) -> tuple[Tensor, list[list[bool]]]:
        """Landmarks (p v 5 2) of the chosen samples' parts' frames, and which of them show a face; x (p v 3 H W)."""
        if truth.landmarks is None or truth.face_visible is None or self.embed_face is None:
            raise UserError("loss.face_weight: above 0, it needs a face embedder and data with face landmarks")
        points, visible = (all_of[chosen.to(all_of.device)] for all_of in (truth.landmarks, truth.face_visible))
        return points.reshape(*x.shape[:2], 5, 2), visible.reshape(x.shape[:2]).tolist()


def _decodable(latents: Tensor, pixels: Tensor) -> Tensor:
    """Latents (k f' c h w) in parts (p u c h w) that can be decoded by themselves: single frames where each has a latent of its
    own (f' = f of the pixels, k f ...), whole clips otherwise."""
    return latents.flatten(0, 1)[:, None] if latents.shape[1] == pixels.shape[1] else latents
