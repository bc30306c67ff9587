"""The Dual Space Hybrid Loss: noise error in latent space, and what the eye sees of it in image space.

Letters in shapes: b samples, f frames, k gated samples, n = k f gated images.
"""

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from meta_animator.diffusion.process import Process
from meta_animator.errors import UserError
from meta_animator.losses.identity import EmbedFace, identity_loss
from meta_animator.losses.latent import latent_loss
from meta_animator.losses.one_by_one import sum_one_by_one
from meta_animator.losses.pixel import pixel_loss

# Lies between the noise levels of timesteps 124 (0.36958) and 125 (0.37138) of Stable Diffusion 1.5.
SD15_GATE = 0.3707
WEIGHTS = {"pixel": "gated_images", "clean_latent": "gated_images", "face": "faces"}  # what each log is a mean over


@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridLoss:
    """L = latent_weight L_latent + image_weight (pixel_weight L_pixel + face_weight L_face).

    L_latent is a mean over all samples. The image terms see only the gated samples, those with little enough noise for
    one step to show the image; L_pixel is a mean over their images, L_face over their visible faces. A term that no
    sample takes part in is 0. Gradients reach the prediction through `decode` and `embed_face`, whose own weights get none.
    Images are decoded one by one: how many are gated makes no difference to the memory that this takes.

    image_weight     lambda
    max_noise_level  the gate, included, in the unit of the process's `noise_level`
    start_step       the first step with the image terms
    """

    image_weight: float = 1.0
    face_weight: float = 1.0
    pixel_weight: float = 1.0
    latent_weight: float = 1.0
    max_noise_level: float = SD15_GATE
    start_step: int = 0

    def __post_init__(self) -> None:
        for name in ("image_weight", "face_weight", "pixel_weight", "latent_weight", "start_step"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: expected a value >= 0, got {getattr(self, name)}")
        if not 0 <= self.max_noise_level <= 1:
            raise UserError(f"max_noise_level: expected a value in [0, 1], got {self.max_noise_level}")

    def image_active(self, step: int) -> bool:
        """Whether the image terms count in this step: what they need can be left out of a batch otherwise."""
        return step >= self.start_step and self.image_weight * (self.pixel_weight + self.face_weight) > 0

    def gated(self, process: Process, t: Tensor) -> Tensor:
        """Which of the timesteps (b,) the image terms see: bool (b,)."""
        return process.noise_level(t) <= self.max_noise_level

    def counts(self, process: Process, t: Tensor, face_visible: Tensor | None, frames: int = 1) -> Tensor:
        """float32 (2,): a batch's gated images and the visible faces in them; arguments as for a call."""
        gated = self.gated(process, t)
        faces = 0 if face_visible is None else face_visible[gated.to(face_visible.device)].sum()
        return torch.tensor([float(gated.sum() * frames), float(faces)])

    def __call__(
        self,
        *,
        process: Process,
        prediction: Tensor,
        x_t: Tensor,
        t: Tensor,
        target: Tensor,
        latents: Tensor,
        pixels: Tensor | None,
        landmarks: Tensor | None,
        face_visible: Tensor | None,
        step: int,
        decode: Callable[[Tensor], Tensor],
        embed_face: EmbedFace | None,
        place_weights: Tensor | None = None,
        divisors: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a float32 scalar, and its parts.

        prediction, x_t, target, latents  `b c h w` or `b f c h w`; latents are the clean ones
        t               (b,), shared by a clip's frames
        pixels          `b 3 H W` or `b f 3 H W` in [-1, 1]; only read where the image terms are active
        landmarks       (b, 5, 2) or (b, f, 5, 2), in pixels; only read where face_weight is not 0
        face_visible    bool (b,) or (b, f): faces seen, and large enough for the embedder
        decode          latents `1 c h w` -> images `1 3 H W` in [-1, 1]; called with the gated ones, if any
        embed_face      as for `identity_loss`
        place_weights   how much the latent error counts at each place, see `weights` of `latent_loss`
        divisors        (2,): what to divide the image terms' sums by, this batch's own `counts` by default. Where a
                        gradient is averaged over micro-batches and processes, the mean over all gated images and faces
                        needs the means of their counts.

        The logs are detached float32 scalars. `pixel`, `face` and `clean_latent` (error of the implied clean latents)
        are means over this batch's `gated_images`, `faces` and `gated_images`, and 0 where those are 0: weigh by them
        (WEIGHTS names them) to average over batches.
        """
        latent = latent_loss(prediction, target, place_weights).mean()
        if not self.image_active(step):
            return self.latent_weight * latent, {"latent": latent.detach()}
        gated = self.gated(process, t).nonzero().squeeze(1).to(prediction.device)
        x, x_0 = _fold(pixels[gated], 3), _fold(latents[gated], 3)
        clean = _fold(process.to_x0(prediction[gated], x_t[gated], t[gated.to(t.device)]), 3)
        points, visible = self._faces(landmarks, face_visible, embed_face, gated) if self.face_weight else (x, [False] * len(x))
        counts = {"gated_images": latent.new_tensor(len(x)), "faces": latent.new_tensor(sum(visible))}
        divisors = torch.stack(list(counts.values())) if divisors is None else divisors.to(latent)
        weights = torch.stack([divisors.new_tensor(self.pixel_weight), divisors.new_tensor(self.face_weight)])

        def terms(k: int, one: Tensor) -> Tensor:
            """Pixel and face error of gated image k, decoded from its clean latent."""
            decoded = decode(one)
            pixel = pixel_loss(x[k : k + 1], decoded).sum()
            if not visible[k]:
                return torch.stack([pixel, torch.zeros_like(pixel)])
            seen = torch.ones(1, dtype=torch.bool, device=decoded.device)
            return torch.stack([pixel, identity_loss(embed_face, x[k : k + 1], decoded, points[k : k + 1], seen)[0]])

        image, (pixel, face) = sum_one_by_one(terms, clean, weights / divisors.clamp_min(1e-6))
        sums = {"pixel": pixel, "clean_latent": latent_loss(clean.detach(), x_0).sum()}
        sums |= {"face": face} if self.face_weight else {}
        logs = {name: total / counts[WEIGHTS[name]].clamp_min(1) for name, total in sums.items()}
        return self.latent_weight * latent + self.image_weight * image, {"latent": latent.detach(), **logs, **counts}

    def _faces(
        self, landmarks: Tensor | None, visible: Tensor | None, embed_face: EmbedFace | None, gated: Tensor
    ) -> tuple[Tensor, list[bool]]:
        """Landmarks (n, 5, 2) of the gated images, and which of them show a face."""
        if landmarks is None or visible is None or embed_face is None:
            raise UserError("face_weight: above 0, it needs a face embedder and data with face landmarks")
        return _fold(landmarks[gated], 2), visible[gated].flatten().tolist()


def _fold(x: Tensor, dims: int) -> Tensor:
    """`k f ...` -> `(k f) ...` where `...` has `dims` dimensions; `k ...` stays."""
    return x.flatten(0, 1) if x.ndim == dims + 2 else x
