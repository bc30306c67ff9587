"""Stage 3 from a config: load the checkpoints of stages 2 and 1, animate, write the video and its frames."""

import dataclasses
import itertools
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from meta_animator import __version__
from meta_animator.checkpoints.extracted import METADATA, load_control_folder, load_loras
from meta_animator.checkpoints.files import read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.config import save_config
from meta_animator.conversion.motion import load_motion
from meta_animator.data.manifest import find_clip, is_data_set
from meta_animator.devices import compute_device
from meta_animator.fingerprints import short
from meta_animator.json_files import write_json
from meta_animator.media.images import write_image
from meta_animator.media.timeline import even
from meta_animator.media.video import write_video
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.kernels import kernels_of
from meta_animator.models.precision import HALF, PRECISIONS
from meta_animator.sampling.animate import Animation, Animator, shared_noise_of
from meta_animator.sampling.driving import Driving
from meta_animator.sampling.fitting import fit_sheet
from meta_animator.sampling.opening import open_inputs, open_references
from meta_animator.settings import RunConfig, SampleConfig
from meta_animator.stages.check_checkpoints import check_control_folder
from meta_animator.stages.check_settings import check_size
from meta_animator.stages.checks import check_run
from meta_animator.training.processes import leave_together, main_first, make_accelerator, several_processes

FITTED = "retarget.png"  # how the motion was fitted to the reference person
WAITING = 16  # pictures that may wait to be written
TIMES = "times.json"  # which frame of the driving each frame belongs to


def sample(config: RunConfig) -> Path:
    """Writes <output_dir>/{<output>.mp4, frames/, driving/, times.json, config.yaml} and returns the video's path; where
    `sample.fit_pose` fits the motion, also retarget.png, before anything else. Of several processes (torch.distributed), each
    denoises some of the windows, and the first one writes."""
    accelerator = make_accelerator("no") if several_processes() else None
    for note in check_run(config):
        print(f"note: {note}")
    inputs = open_inputs(config.sample, config.data, config.seed, config.model)
    first = accelerator is None or accelerator.is_main_process
    if config.sample.fit_pose != "no" and first:
        write_image(Path(config.output_dir) / FITTED, fit_sheet(*inputs, next(iter(config.sample.tasks))))
    with kernels_of(config):  # or says now that it cannot
        pass
    animator = load_animator(config, None if accelerator is None else accelerator.device)
    if other := other_person(config, animator.person, animator.template):
        print(f"note: sample.reference shows '{other}', the prompt calls '{animator.person}', whom the checkpoint was tuned on")
    shown, size = config.sample, inputs[0].size
    references = open_references(
        shown.reference, shown.reference_clip, shown.references, size, config.data.person_margin
    )  # fmt: skip
    if config.model.text_cache:  # from here on texts are on disk, and the VAE has the room
        if accelerator is None:
            animator.embed_texts()
        else:  # one of them loads the text encoder, the others read
            main_first(accelerator, animator.embed_texts)
        animator.models.backbone.release(text=True, encoder=False)
    with kernels_of(config):
        with tqdm(total=config.sample.num_inference_steps, desc="sampling", unit="step", dynamic_ncols=True) as bar:
            animation = animator.animate(*inputs, references, lambda step, x_t: bar.update(), last=True)
        video = _write(config, animator, animation, inputs[0]) if first else Path(config.output_dir) / config.sample.output
    if accelerator is not None:
        leave_together(accelerator)
    return video


def _write(config: RunConfig, animator: Animator, animation: Animation, driving: Driving) -> Path:
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
    held_frames = held(frames, len(driving), animation.fps, rate, shown)
    video = write_video(folder / config.sample.output, held_frames, rate, metadata=origin(config, animator))
    write_json(folder / TIMES, {"fps": animation.fps, "driving_frames": driving.shown})
    save_config(config, folder / "config.yaml")
    return video


def origin(config: RunConfig, animator: Animator) -> dict[str, str]:
    """Where a video comes from, as texts for its file: that it is generated, by which program and weights, and from what."""
    models = animator.models
    program = f"Meta-Animator {__version__}"
    loras = [f"{task} {short(models.fingerprint(f'lora.{task}'))}" for task in models.control.bank.tasks]
    return {
        "comment": f"Generated by {program}: not a recording of the person shown",
        "software": program,
        "base": short(models.backbone.fingerprint()),
        "control": f"{Path(config.model.control_from).name} {short(models.fingerprint('control'))}",
        "loras": ", ".join(loras),
        "seed": str(config.seed),
        "driving": Path(config.sample.driving).name,
    }


def other_person(config: RunConfig, person: str, template: str) -> str:
    """The person in the reference data set where that is somebody else than the one whom the prompt calls, else ''."""
    calls = person and not config.sample.identity and "{identifier}" in (config.sample.prompt or template)
    if not calls or not is_data_set(config.sample.reference):
        return ""
    shown = find_clip(config.sample.reference, config.sample.reference_clip).identity
    return shown if shown != person else ""


def load_animator(config: RunConfig, device: torch.device | None = None) -> Animator:
    """The networks of sampling, on `device`, or else on the GPU if there is one."""
    sample, model = config.sample, dataclasses.replace(config.model, tasks=list(config.sample.tasks))
    models = Assembly(model, load_backbone(model), with_motion=bool(model.motion_from))
    check_size(config.data, models.backbone.size_multiple)
    metadata = _load_control(models, config)
    if config.model.motion_from:
        load_motion(models, config.model.motion_from)
        _note_shared_noise(sample, models.shared_noise)
        if models.backbone.frames_apart and (trained := models.trained_frames) and sample.window > trained:
            print(f"note: sample.window is {sample.window}, the motion module was trained on clips of {trained} frames")
    if sample.loras:
        sample = dataclasses.replace(sample, loras=load_loras(models, sample.loras))
    if (precision := PRECISIONS[config.train.mixed_precision]) in HALF:
        models.requires_grad_(False).hold_frozen_in(precision, keep_exact=False)
    models.to(device or compute_device()).eval()
    told = {"template": "prompt", "person": "person", "description": "description"}
    return Animator(sample, config.seed, models, **{name: metadata.get(key, "") for name, key in told.items()})


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
        check_control_folder(source, config.sample)
        return load_control_folder(models, source)
    metadata, weights = read_weights(source)
    load_control(models, metadata, weights, source)
    return metadata


def held(frames: Iterable[np.ndarray], count: int, fps: float, rate: float, shown: int = 0) -> Iterator[np.ndarray]:
    """`count` frames of `fps` frames per second, each as often as it takes to last as long at `rate` frames per second; the
    last one until there are `shown`."""
    times = Counter(even(count, fps).at(rate))
    times[count - 1] += max(0, shown - times.total())
    for index, frame in enumerate(frames):
        yield from itertools.repeat(frame, times[index])


def _write_frames(folder: Path, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pass frames on, one by one; a thread writes them as numbered pictures, while the next ones are decoded."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ThreadPoolExecutor(1) as writer:
        waiting: deque[Future] = deque()
        for index, frame in enumerate(frames):
            waiting.append(writer.submit(write_image, folder / f"{index:06d}.png", frame))
            if len(waiting) > WAITING:
                waiting.popleft().result()
            yield frame
        for written in waiting:
            written.result()
