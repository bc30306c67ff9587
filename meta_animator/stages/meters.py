"""Meters that run along in a training: whether the condition is obeyed, and of a person's photos that are not learned, how near
they are to what is generated, and whether training photos are copied.

All of it is measured on the same few samples, with the same noise at every measurement, and draws nothing that the training
draws. Shapes: pixels `b f 3 H W`, latents `b f' c h w`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from meta_animator.data.batch import Batch, collate
from meta_animator.data.manifest import Clip
from meta_animator.data.samples import SampleSet, of_one_size
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.diffusion.process import Noised
from meta_animator.diffusion.timesteps import shifted
from meta_animator.losses.identity import identity_loss
from meta_animator.losses.latent import latent_loss
from meta_animator.models.assembly import Assembly
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import RunConfig
from meta_animator.stages.held_out import main_task
from meta_animator.stages.previews import generate
from meta_animator.training.watch import GUARD

METER_DRAWS = 2 * 10**9  # numbers of the meters' draws, beyond those of training and previews
LEVELS = (0.3, 0.6, 0.9)  # of the timesteps, before the shift
SAMPLES, CLIPS = 4, 2  # that are measured, of single frames and of clips; fewer samples have several noises each
SMALL, MOST_PHOTOS = 32, 64  # sides of the pictures that are compared, and how many training photos they are compared with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """What is measured: samples of a task.

    batch     with pixels and condition pixels
    wrong     condition pixels like the batch's, of other samples; None where there is no other
    held_out  whether the training does not see them
    photos    (m, 3, SMALL, SMALL), what of the training they may be a copy of; None: that is not measured
    """

    task: str
    batch: Batch
    wrong: Tensor | None
    held_out: bool
    photos: Tensor | None = None


def choose_measured(samples: SampleSet, plan: TaskPlan, held: Sequence[Clip], photos: bool = False) -> Measured:
    """Samples of the clips that are `held` out, or, where none of them can show the main task, of what is trained on.

    photos   whether the training is on the photos of one person, of which copies may be made
    """
    task = main_task(list(plan.samples))
    own = _plain(samples, samples.clips)
    held = [clip for clip in held if task in clip.available_tasks()]
    there = _plain(samples, held) if held else own
    pool = there.by_task([task])[task] if held else plan.samples[task]
    count = CLIPS if samples.num_frames else SAMPLES
    chosen = dict.fromkeys(of_one_size(pool, there, count))
    shown = [there[Draw(METER_DRAWS + k, task, index)] for k, index in enumerate(chosen)]
    others = dict.fromkeys(_evenly(plan.samples[task], 2 * count))
    conditions = [own[Draw(METER_DRAWS, task, index)]["control_pixels"] for index in others]
    batch = collate(shown)
    wrong = _farthest(batch.control_pixels, [*conditions, *batch.control_pixels])
    small = None
    if photos and held:
        seen = dict.fromkeys(_evenly(plan.samples[task], MOST_PHOTOS))
        small = torch.cat([_small(own[Draw(METER_DRAWS, task, index)]["pixels"][:1]) for index in seen])
    return Measured(task=task, batch=batch, wrong=wrong, held_out=bool(held), photos=small)


def _plain(samples: SampleSet, clips: Sequence[Clip]) -> SampleSet:
    """Samples of clips as they are: whole poses, no crops, no flips, and their prompts."""
    settings = dataclasses.replace(samples.config, prompt_drop=0.0, pose_drop=0.0, random_crop=0.0, flip=0.0)
    return SampleSet(
        list(clips), settings, seed=samples.seed, identifiers=samples.identifiers, num_frames=samples.num_frames,
        photos=samples.photos, every=samples.every,
    )  # fmt: skip


def _evenly(pool: Sequence[int], count: int) -> list[int]:
    return [pool[k * len(pool) // count] for k in range(count)]


def _farthest(own: Tensor, others: Sequence[Tensor]) -> Tensor | None:
    """For each of the images (b f 3 H W) that of the others (f 3 H W), of those of its size, which differs most; None where
    none does."""
    alike = [other for other in others if other.shape == own.shape[1:]]
    rows = [max(alike, key=lambda other, one=one: float((other - one).abs().mean())) for one in own]
    return torch.stack(rows) if all(not torch.equal(one, row) for one, row in zip(own, rows, strict=True)) else None


class Meters:
    """`measure()` -> {meter: value} of the networks as they are.

    texts     prompts and a device -> context: `Texts`, or of a text encoder that learns, what it says now
    noise     unit normal noise of draws, as the stage trains with it: `Parts.noise`
    measured  None: nothing is
    """

    def __init__(
        self, config: RunConfig, models: Assembly, texts: Callable[[Sequence[str], torch.device], Tensor],
        noise: Callable[[Tensor, tuple[int, ...]], Tensor], measured: Measured | None,
    ):  # fmt: skip
        self.config, self.models, self.texts, self.noise, self.measured = config, models, texts, noise, measured
        self.latents: dict[str, Tensor] = {}  # of the frames, and of right and wrong conditions

    @property
    def prompts(self) -> list[str]:
        """Those that are embedded."""
        return [] if self.measured is None else list(self.measured.batch.prompts)

    def encode(self) -> None:
        """For good, while the encoder is there."""
        if self.measured is None or self.latents:
            return
        backbone, batch = self.models.backbone, self.measured.batch
        conditions = {"right": batch.control_pixels, "wrong": self.measured.wrong}
        self.latents = {"frames": backbone.encode(batch.pixels.to(self._device)).cpu()}
        for name, pixels in conditions.items():
            if pixels is not None:
                self.latents[name] = backbone.encode_condition(pixels.to(self._device)).cpu()

    @property
    def _device(self) -> torch.device:
        return next(self.models.control.parameters()).device

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """obedience         by how much the error under a wrong condition exceeds that under the right one, as a share of it
        control_gain      the same of none
        fixed_noise_error under the right one; held_out_error: the same, of photos of the person that are not learned
        copying           of such photos: how much nearer what is generated is to a training photo than to the
                          truth, in dB
        held_out_face     and how like the truth its face is: the cosine of their embeddings

        Errors are those of the network's prediction in the latents, and means over LEVELS, shares over those of each level.
        """
        if self.measured is None:
            return {}
        self.encode()
        right, none, *wrong = self._errors().unbind(1)
        numbers = {"obedience": float((wrong[0] / right - 1).mean())} if wrong else {}
        numbers["control_gain"] = float((none / right - 1).mean())
        guards = self.measured.photos is not None
        numbers[GUARD if guards else "fixed_noise_error"] = float(right.mean())
        return numbers | (self._likeness() if guards else {})

    def _errors(self) -> Tensor:
        """(levels, 2 or 3): mean errors under the right condition, under none and, where there is one, under a wrong one."""
        batch, rows = self.measured.batch, len(self.measured.batch.prompts)
        tries = max(rows, CLIPS if self.latents["frames"].shape[1] > 1 else SAMPLES)
        noise = self.noise(METER_DRAWS + torch.arange(tries), tuple(self.latents["frames"].shape[1:]))
        kinds = [kind for kind in ("right", "none", "wrong") if kind == "none" or kind in self.latents]
        errors = torch.zeros(len(LEVELS), len(kinds), dtype=torch.float64)
        for k in range(tries):
            row = slice(k % rows, k % rows + 1)
            context = self.texts(batch.prompts[row], self._device)
            frames, own = self.latents["frames"][row].to(context), noise[k : k + 1].to(context)
            for level, t in enumerate(self._timesteps()):
                noised = Noised.of(self.models.backbone.process, frames, own, t[None].to(frames.device))
                for column, kind in enumerate(kinds):
                    prediction = self._denoiser(kind, row, context)(noised.x_t, noised.t)
                    errors[level, column] += latent_loss(prediction, noised.target).item()
        return errors / tries

    def _timesteps(self) -> Tensor:
        first, last = self.models.backbone.process.timestep_bounds
        shares = shifted(torch.tensor(LEVELS), self.config.train.timestep_shift)
        return (first + shares * (last - first)).round().long()

    def _denoiser(self, kind: str, row: slice, context: Tensor) -> Denoiser:
        task, shown = self.measured.task, {}
        if kind in self.latents:
            shown = {task: self.models.backbone.control_input(self.latents[kind][row].to(context))}
        return Denoiser(
            backbone=self.models.backbone, control=self.models.control, tasks={task: 1.0}, context=context, control_latents=shown
        )

    def _likeness(self) -> dict[str, float]:
        """Of generated pictures, to training photos and to the truth."""
        batch = self.measured.batch
        context = self.texts(batch.prompts, self._device)
        made = generate(self.models, self.measured.task, context, self.latents["right"], self.config.seed).float().cpu()
        made, truth = made.clamp(-1, 1).flatten(0, 1), batch.pixels.flatten(0, 1)
        small, photos = _small(made), self.measured.photos
        nearest = torch.stack([_psnr(photos, one[None]).max() for one in small])
        numbers = {"copying": float((nearest - _psnr(_small(truth), small)).mean())}
        visible = self.models.usable_faces(batch.landmarks, batch.face_visible)
        if self.models.face is not None and visible is not None and visible.any():
            device = self._device
            points, seen = batch.landmarks.flatten(0, 1), visible.flatten()
            total, count = identity_loss(self.models.embed_face, truth.to(device), made.to(device), points, seen)
            numbers["held_out_face"] = 1 - float(total) / float(count)
        return numbers


def _small(pixels: Tensor) -> Tensor:
    """(n 3 H W) -> (n 3 SMALL SMALL)"""
    return F.adaptive_avg_pool2d(pixels, SMALL)


def _psnr(one: Tensor, other: Tensor) -> Tensor:
    """In dB (n,), of pictures (n 3 h w) in [-1, 1]; 100 for equal ones."""
    error = (one - other).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error.clamp_min(4e-10))


def what_is_measured(measured: Measured, stage: str) -> str:
    """A line on what meters measure where it is not what a user would wish, else ''."""
    if measured.held_out:
        return ""
    guard = "; with data.held_out=1, one photo guards against over-fitting" if stage == "reference" else ""
    return f"meters measure on {len(measured.batch.prompts)} samples that are trained on, since nothing is held out{guard}"
