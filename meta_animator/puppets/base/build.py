"""The data and networks of the runs that train the embedded base model."""

from pathlib import Path

from accelerate import Accelerator

from meta_animator.data.batch import Batch, collate
from meta_animator.data.samples import FRAME, SampleSet, of_one_size, read_clips
from meta_animator.data.tasks import Draw, TaskPlan
from meta_animator.json_files import read_json
from meta_animator.models.face import FaceConfig, FaceEmbedder
from meta_animator.puppets.base import unet, wan_transformer, wan_vae
from meta_animator.puppets.base.growing import check_base_config
from meta_animator.puppets.base.vae_and_face import BaseStage, FaceStage, TinyVAEStage, VAEStage, as_images
from meta_animator.settings import RunConfig
from meta_animator.stages.data import Training


def build_base_stage(config: RunConfig, accelerator: Accelerator) -> Training:
    """base_vae or base_face with frames of many people, no conditions."""
    check_base_config(config.stage, config.model, config.train)
    clips = read_clips(config.data.train, config.data.split)
    samples = SampleSet(clips, config.data, seed=config.seed, identifiers={})
    plan = TaskPlan(
        samples={FRAME: list(range(len(samples)))}, batch_size=config.train.batch_size, seed=config.seed,
        micro_batches=config.train.gradient_accumulation_steps, world_size=accelerator.num_processes,
        buckets=samples.buckets(),
    )  # fmt: skip
    chosen = of_one_size(range(len(samples)), samples, 8)
    examples = as_images(collate([samples[Draw(10**9 + k, FRAME, index)] for k, index in enumerate(chosen)]))
    return Training(stage=_make_stage(config, examples, samples), samples=samples, plan=plan)


def _make_stage(config: RunConfig, examples: Batch, samples: SampleSet) -> BaseStage:
    if config.stage == "base_vae":
        return (TinyVAEStage if config.train.trainable == "tiny_vae" else VAEStage)(config, examples)
    shape = read_json(Path(config.model.architecture) / "face" / "config.json")
    people = sorted({clip.identity for clip in samples.clips})
    start = config.model.base_from
    embedder = FaceEmbedder.from_pretrained(Path(start) / "face") if start else FaceEmbedder(FaceConfig(**shape))
    return FaceStage(config, examples, people, embedder)


STAGES = {
    "base_vae": build_base_stage, "base_unet": unet.build, "base_face": build_base_stage, "base_wan_vae": wan_vae.build,
    "base_wan": wan_transformer.build,
}  # fmt: skip
