"""The networks of a training run: put together, named, started from checkpoints, and freed of what is needed no more."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from meta_animator.checkpoints.files import read_weights, trained_fps
from meta_animator.checkpoints.loading import go_on, load_control, note_posterior
from meta_animator.conversion.motion import load_motion
from meta_animator.losses.hybrid import HybridLoss
from meta_animator.media.timeline import same_rate
from meta_animator.models import identifiers
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import LossConfig, ModelConfig
from meta_animator.stages.check_settings import wants_face
from meta_animator.stages.meters import Meters
from meta_animator.stages.previews import Previews
from meta_animator.stages.texts import Texts
from meta_animator.training.processes import main_first


def load_networks(
    model: ModelConfig, loss: LossConfig, *, with_motion: bool = False, with_person: bool = False,
    backbone: nn.Module | None = None,
) -> Assembly:  # fmt: skip
    """Base, Meta ControlNet, motion module, the person's LoRA and face embedder as far as they are needed, started from
    `model.control_from` and `model.motion_from`. LoRAs that `control_from` lacks start fresh, except beside a motion module.

    backbone   instead of the config's
    """
    networks = Assembly(
        model, backbone or load_backbone(model), with_motion=with_motion, face=wants_face(loss), with_person=with_person
    )  # fmt: skip
    if model.control_from:
        metadata, weights = read_weights(model.control_from)
        load_control(networks, metadata, weights, model.control_from, fresh_loras=not with_motion)
        note_posterior(networks, metadata, model.control_from)
    if networks.motion is not None and model.motion_from:
        load_motion(networks, model.motion_from)
    return networks


def name_people(networks: Assembly, run_folder: str, identities: Iterable[str], person: str = "") -> None:
    """Give everybody an identifier, those that the run gave before it was interrupted first. person: whom a stage 2 learns."""
    go_on(networks, Path(run_folder))
    words = networks.backbone.rare_words()
    networks.identifiers = identifiers.name_people(networks.identifiers, words, identities, person)


def make_loss(
    loss: LossConfig, networks: Assembly, steps_per_epoch: float, max_steps: int, say: Callable[[str], None]
) -> HybridLoss:  # fmt: skip
    """The hybrid loss of these networks, with its first step in figures."""
    start = loss.start_step if loss.start_step >= 0 else int(steps_per_epoch / 2)
    if loss.image_weight > 0:
        late = " (after the last step; set loss.start_step)" if start >= max_steps else ""
        say(f"the image loss starts at step {start}{late}")
    backbone = networks.backbone
    return HybridLoss(
        process=backbone.process, decode=backbone.decode, embed_face=networks.embed_face, image_weight=loss.image_weight,
        face_weight=loss.face_weight, pixel_weight=loss.pixel_weight, latent_weight=loss.latent_weight,
        max_noise_level=loss.max_noise_level, start_step=start,
    )  # fmt: skip


def note_rate(motion_from: str, fps: float, say: Callable[[str], None]) -> None:
    """Say where a motion module goes on at another rate than it was trained at."""
    before = trained_fps(motion_from)
    if before and not same_rate(before, fps):
        say(f"note: {motion_from} was trained at {before:.3g} frames per second, this run's clips have {fps:.3g} (data.fps)")


def release(
    networks: Assembly, texts: Texts, previews: Previews, meters: Meters, prompts: Sequence[str], cached: bool,
    accelerator: Accelerator,
) -> None:  # fmt: skip
    """Free what training no longer needs: the text encoder, once all `prompts` that there are (if not too many) are embedded,
    and where latents are cached the VAE's encoder. Where embeddings are kept on disk, the other processes wait for those of the
    first and read them, without an encoder of their own."""
    on_disk, prompts = bool(networks.config.text_cache), [*dict.fromkeys([*prompts, *meters.prompts])]
    if on_disk:
        main_first(accelerator, lambda: texts.embed_all(prompts, on_disk))
    text = texts.embed_all(prompts, on_disk)
    networks.backbone.release(text=text, encoder=False)  # before the VAE needs room
    if cached:
        previews.keep_conditions()
        meters.encode()
    networks.backbone.release(text=False, encoder=cached)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
