"""What the stages that learn to denoise have in common: what they train on, and by what loss. What learns is theirs to say."""

import dataclasses
import functools
from collections.abc import Sequence

from accelerate import Accelerator

from meta_animator.data.batch import Batch
from meta_animator.data.manifest import Clip
from meta_animator.data.prompts import fit_descriptions
from meta_animator.data.samples import SampleSet
from meta_animator.data.tasks import TaskPlan
from meta_animator.losses.hybrid import HybridLoss
from meta_animator.models.assembly import Assembly
from meta_animator.settings import RunConfig
from meta_animator.stages.check_settings import trained_tasks
from meta_animator.stages.data import Auxiliary, Training, make_plan, make_samples, with_cached_latents
from meta_animator.stages.denoising import DenoisingStage, Parts
from meta_animator.stages.draws import PixelGate
from meta_animator.stages.meters import Measured, Meters, choose_measured, what_is_measured
from meta_animator.stages.networks import make_loss, name_people, release
from meta_animator.stages.previews import Previews, preview_examples
from meta_animator.stages.texts import Texts
from meta_animator.training.watch import measure_every


@dataclasses.dataclass(kw_only=True)
class DenoisingRun:
    """The samples (with their latents, where these are cached), the plan of who is drawn when, the loss, and the networks whose
    parts may learn."""

    config: RunConfig
    accelerator: Accelerator
    networks: Assembly
    samples: SampleSet
    plan: TaskPlan
    loss: HybridLoss

    def examples(self) -> dict[str, Batch]:
        """{task: samples} to preview; empty where `train.preview_every` is 0."""
        return preview_examples(self.samples, self.plan) if self.config.train.preview_every else {}

    def measured(self, held: Sequence[Clip], photos: bool = False) -> Measured | None:
        """What the run's meters measure, which is said; None where nothing is ever measured. See `choose_measured`."""
        if not measure_every(self.config.train):
            return None
        backbone, data = self.networks.backbone, self.config.data
        fit_descriptions(held, data.prompt, self.networks.identifiers, backbone.fits)
        measured = choose_measured(self.samples, self.plan, held, photos)
        if note := what_is_measured(measured, self.config.stage):
            self.accelerator.print(note)
        return measured

    def training(self, parts: Parts, frees: tuple[Texts, Previews, Meters] | None = None) -> Training:
        """The training of `parts`.

        frees   who embed and encode by the frozen base: what they need no more is freed before the first step
        """
        stage = DenoisingStage(self.config, self.networks, self.loss, parts).to(self.accelerator.device)
        if self.config.train.compile:
            count = self.networks.compile_blocks()
            self.accelerator.print(f"{count} blocks are compiled as they are first used: the first steps take minutes")
        training = Training(stage=stage, samples=self.samples, plan=self.plan)
        if frees:
            cached = self.samples.cache is not None
            training.release = functools.partial(
                release, self.networks, *frees, self.samples.prompts(), cached, self.accelerator
            )
        return training


def denoising_run(
    config: RunConfig, clips: Sequence[Clip], networks: Assembly, accelerator: Accelerator, *, num_frames: int | None = None,
    photos: bool = False, person: str = "", own_clips: int | None = None, auxiliary: Auxiliary | None = None,
) -> DenoisingRun:  # fmt: skip
    """Clips -> samples of named people -> plan -> loss -> cached latents.

    num_frames   samples are clips of so many frames; None: single frames
    photos       with `num_frames`: photos are samples too
    person       whom a stage 2 learns
    own_clips    so many of the first clips are what is learned; None: all
    auxiliary    which of the samples of the other clips are drawn beside them
    Raises UserError for what the user can mend.
    """
    train, say = config.train, accelerator.print
    name_people(networks, config.output_dir, [clip.identity for clip in clips], person)
    every = 1 if networks.backbone.frames_apart else max(1, (num_frames or 1) // 2)
    samples = make_samples(clips, config.data, config.seed, networks, say, num_frames, photos, every)
    tasks = trained_tasks(config.stage, config.model, train)
    plan = make_plan(samples, tasks, train, accelerator.num_processes, own_clips, auxiliary)
    samples.cropped_draws = round(config.data.crop_until * train.max_steps) * plan.draws_per_step
    loss = make_loss(config.loss, networks, plan.steps_per_epoch, train.max_steps, say)
    gate = PixelGate.of(loss, config.seed, train, plan.draws_per_step)
    samples = with_cached_latents(
        samples, plan, networks, accelerator, run_folder=config.output_dir, sees_pixels=gate, steps=train.max_steps
    )  # fmt: skip
    return DenoisingRun(config=config, accelerator=accelerator, networks=networks, samples=samples, plan=plan, loss=loss)
