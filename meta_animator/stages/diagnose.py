"""Where an animation goes wrong: the parts of stage 3 one by one, with the truth in place of the others."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_animator.data.keypoints import face_box
from meta_animator.data.samples import to_pixels
from meta_animator.errors import UserError
from meta_animator.evaluation.frames import frame_metrics
from meta_animator.models.kernels import kernels_of
from meta_animator.sampling.animate import Animator
from meta_animator.sampling.opening import open_inputs, open_references
from meta_animator.settings import RunConfig
from meta_animator.stages.checks import check_run
from meta_animator.stages.sample import load_animator

START_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of the noise process, from where the truth is denoised
VARIANTS = {  # section, key and value of the setting that differs
    "as configured": (),
    "guidance 1": ("sample", "guidance_scale", 1.0),
    "first latent as it is": ("sample", "init_noise_scale", 1.0),
    "no motion module": ("model", "motion_from", ""),
    "from noise, not inversion": ("sample", "init_noise", "random"),
    "no control": ("sample", "controlnet_conditioning_scale", 0.0),
}


def diagnose(config: RunConfig) -> tuple[dict[str, dict[str, Any]], list[list[np.ndarray]]]:
    """({what: `frame_metrics`}, a row of frames for each), for a stage-3 config whose driving clip is a data set's and
    shows the same person: its frames are the truth.

    "decoder"              the truth encoded and decoded: what no sampling can exceed
    "truth with noise s"   the truth with the noise that sampling starts from, up to the share s of the process, denoised
    the names of VARIANTS  all of stage 3, with one setting changed; those that would change nothing are left out

    The rows: truth, then each of these, with four frames. The pose is not fitted to the reference: it is the truth's own. Raises
    UserError where the clip has no frames.
    """
    if config.sample.fit_pose != "no":
        print("note: sample.fit_pose is left out: fitted poses would not be those of the truth")
        config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, fit_pose="no"))
    check_run(config)
    with kernels_of(config):
        return _diagnose(config)


def _diagnose(config: RunConfig) -> tuple[dict[str, dict[str, Any]], list[list[np.ndarray]]]:
    driving, reference = open_inputs(config.sample, config.data, config.seed, config.model)
    if "frame" not in driving.clip.layers:
        raise UserError(f"driving {config.sample.driving}: shows no frames to compare with; give a data set of the person")
    layers = [driving.layers(k) for k in range(len(driving))]
    truth = np.stack([layer.frame for layer in layers])
    masks = None if layers[0].mask is None else np.stack([layer.mask for layer in layers])
    boxes = [None if layer.keypoints is None else face_box(layer.keypoints) for layer in layers]
    shown = np.linspace(0, len(truth) - 1, 4).round().astype(int)
    numbers, rows = {}, [list(truth[shown])]

    def keep(name: str, frames: np.ndarray) -> None:
        numbers[name] = frame_metrics(frames, truth, masks, boxes)
        rows.append(list(frames[shown]))

    animator, shown_to = load_animator(config), config.sample
    if config.model.text_cache:  # from here on texts are on disk
        animator.embed_texts()
        animator.models.backbone.release(text=True, encoder=False)
    photos = open_references(
        shown_to.reference, shown_to.reference_clip, shown_to.references, driving.size, config.data.person_margin
    )  # fmt: skip
    latents = _encode(animator, truth)
    frames_of = lambda latents: np.stack(list(itertools.islice(animator.decode(latents), len(truth))))  # noqa: E731
    keep("decoder", frames_of(latents))
    for share in START_SHARES:
        started = animator.denoise_from(latents, share, driving, reference, photos)
        keep(f"truth with noise {share}", frames_of(started))
    for name, changes in VARIANTS.items():
        if changes and getattr(getattr(config, changes[0]), changes[1]) == changes[2]:
            continue  # that is as configured
        variant = animator if not changes else _changed(config, animator, *changes)
        keep(name, np.stack(list(variant.animate(driving, reference, photos).frames)))
    return numbers, rows


def _changed(config: RunConfig, animator: Animator, section: str, key: str, value: Any) -> Animator:
    """The same with one setting changed; networks are loaded again only for a setting of theirs."""
    if section == "model":
        return load_animator(dataclasses.replace(config, model=dataclasses.replace(config.model, **{key: value})))
    told = animator.models, animator.template, animator.person, animator.description
    return Animator(dataclasses.replace(animator.sample, **{key: value}), animator.seed, *told)


@torch.no_grad()
def _encode(animator: Any, frames: np.ndarray) -> Tensor:
    """Latents (1 f' c h w); the last frame is held where the base takes other numbers of frames."""
    backbone = animator.models.backbone
    held = [*frames, *[frames[-1]] * (backbone.next_clip(len(frames)) - len(frames))]
    pixels = torch.stack([to_pixels(frame) for frame in held]).to(animator.device)
    parts = pixels.split(8) if backbone.frames_apart else [pixels]
    return torch.cat([backbone.encode(part[None]) for part in parts], dim=1)
