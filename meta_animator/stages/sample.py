"""Stage 3 from a config: load the checkpoints of stages 2 and 1, animate, write the video and its frames."""

import copy
import itertools
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from meta_animator.config import save_config
from meta_animator.conversion.lora import METADATA, load_control_folder, load_extracted
from meta_animator.conversion.motion import load_motion
from meta_animator.data.layers import Layers
from meta_animator.data.manifest import MANIFEST, read_manifest
from meta_animator.media.images import write_image
from meta_animator.media.timeline import even
from meta_animator.media.video import write_video
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.precision import HALF, PRECISIONS
from meta_animator.pipelines.animate import Animator, shared_noise_of
from meta_animator.pipelines.driving import Driving, open_inputs
from meta_animator.settings import RunConfig, SampleConfig
from meta_animator.stages.check_checkpoints import check_control_folder
from meta_animator.stages.checks import check_run, check_size
from meta_animator.training.checkpoint import read_weights
from meta_animator.weights import write_json

TIMES = "times.json"  # which frame of the driving each frame belongs to


def sample(config: RunConfig) -> Path:
    """Writes <output_dir>/{<output>.mp4, frames/, driving/, times.json, config.yaml} and returns the video's path."""
    for note in check_run(config):
        print(f"note: {note}")
    inputs = open_inputs(config)
    animator = load_animator(copy.deepcopy(config))
    if other := other_person(config, animator.person, animator.template):
        print(f"note: sample.reference shows '{other}', the prompt calls '{animator.person}', whom the checkpoint was tuned on")
    return _sample(config, animator, *inputs)


def _sample(config: RunConfig, animator: Animator, driving: Driving, reference: Layers | None) -> Path:
    with tqdm(total=config.sample.num_inference_steps, desc="sampling", unit="step", dynamic_ncols=True) as bar:
        animation = animator.animate(driving, reference, progress=lambda step, x_t: bar.update(), last=True)
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    task = next(iter(config.sample.tasks))
    conditions = (animation.driving.condition(task, k) for k in range(len(animation.driving)))
    for _ in _write_frames(folder / "driving", conditions):
        pass
    frames = _write_frames(folder / "frames", animation.frames)
    rate = config.sample.fps or max(animation.fps, driving.clip.timeline.rate)
    timeline = driving.clip.timeline
    shown = round(timeline.duration * rate) if not (config.sample.fps or config.sample.max_frames) else 0
    video = write_video(folder / config.sample.output, held(frames, len(driving), animation.fps, rate, shown), rate)
    write_json(folder / TIMES, {"fps": animation.fps, "driving_frames": driving.shown})
    save_config(config, folder / "config.yaml")
    return video


def other_person(config: RunConfig, person: str, template: str) -> str:
    """The person in the reference data set where that is somebody else than the one whom the prompt calls, else ''."""
    calls = person and not config.sample.identity and "{identifier}" in (config.sample.prompt or template)
    if not calls or not (Path(config.sample.reference) / MANIFEST).is_file():
        return ""
    shown = read_manifest(Path(config.sample.reference))[0].identity
    return shown if shown != person else ""


def load_animator(config: RunConfig) -> Animator:
    """The networks of sampling, on the GPU if there is one."""
    config.model.tasks = list(config.sample.tasks)
    models = Assembly(config.model, load_backbone(config.model), with_motion=bool(config.model.motion_from))
    check_size(config.data, models.backbone.divisor)
    manifest = _load_control(models, config)
    if config.model.motion_from:
        load_motion(models, config.model.motion_from)
        _note_shared_noise(config.sample, models.shared_noise)
    if config.sample.loras:
        config.sample.loras = {load_extracted(models, Path(f)): w for f, w in config.sample.loras.items()}
    if (precision := PRECISIONS[config.train.mixed_precision]) in HALF:
        models.requires_grad_(False).hold_frozen_in(precision, keep_exact=False)
    models.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    told = {"template": "prompt", "person": "person", "description": "description"}
    return Animator(config, models, **{name: manifest.get(key, "") for name, key in told.items()})


def _note_shared_noise(sample: SampleConfig, trained: float | None) -> None:
    """Say where sampling starts from another kind of noise than the motion module has learned from, or without the photo."""
    wanted = sample.shared_noise
    if sample.init_noise == "inversion" and shared_noise_of(sample, trained) == 0:
        whose = "stage 1 was trained so" if wanted < 0 else "sample.shared_noise=0"
        print(f"note: every frame starts from noise of its own, none from the inverted photo ({whose})")
    if trained is not None and wanted >= 0 and wanted != trained:
        print(f"note: sample.shared_noise is {wanted:g}, the motion module was trained with train.shared_noise {trained:g}")


def _load_control(models: Assembly, config: RunConfig) -> dict:
    """Fill the Meta ControlNet from a run, or from a folder that `extract` wrote; returns what that says of itself."""
    source = config.model.control_from
    if (Path(source) / METADATA).is_file():
        check_control_folder(config)
        return load_control_folder(models, source)
    manifest, weights = read_weights(source)
    models.load_control(manifest, weights, source)
    return manifest


def held(frames: Iterable[np.ndarray], count: int, fps: float, rate: float, shown: int = 0) -> Iterator[np.ndarray]:
    """`count` frames of `fps` frames per second, each as often as it takes to last as long at `rate` frames per second; the
    last one until there are `shown`."""
    times = Counter(even(count, fps).at(rate))
    times[count - 1] += max(0, shown - times.total())
    for index, frame in enumerate(frames):
        yield from itertools.repeat(frame, times[index])


def _write_frames(folder: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass frames on, one by one, while they are written as numbered pictures."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_image(folder / f"{index:06d}.png", frame)
        yield frame
