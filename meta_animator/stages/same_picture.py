"""Whether plain diffusers makes of what was extracted the picture that is made here: same seed, noise, condition and photo.

Shapes: latents `1 f' c h w`, behind those of photos; pixels `1 f 3 H W` in [0, 1].
"""

import dataclasses
import gc
import importlib.util
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from meta_animator.checkpoints.extracted import CONTROLNET_WEIGHTS, METADATA, load_control_folder, load_loras, read_metadata
from meta_animator.checkpoints.files import find_checkpoint, read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.checkpoints.metadata import check_metadata
from meta_animator.conversion.adapters import CONTROLNET, PERSON_FILE
from meta_animator.conversion.lora import extract
from meta_animator.conversion.motion import load_motion
from meta_animator.conversion.wan import base_folder
from meta_animator.data.samples import to_pixels
from meta_animator.devices import compute_device
from meta_animator.diffusion.randomness import noise_for, rng
from meta_animator.diffusion.samplers import sampler_for
from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.backbones.wan import read_process
from meta_animator.models.person import NAME as PERSON
from meta_animator.sampling.animate import prompt_for
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.settings import ExtractConfig, ModelConfig, SampleConfig
from meta_animator.weights import load_tensors

INDEX = "model_index.json"  # of a whole pipeline
SAME = 2 / 255  # of pixels in [0, 1]: what nobody sees
TEXT_ROUNDING = {"fp32": 1e-4, "bf16": 0.05}  # of embeddings, relative to their largest: theirs is padded before it is embedded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """What is made twice: a short clip under a condition that is noise of a few pixels, by UniPC."""

    task: str
    frames: int = 5
    height: int = 256
    width: int = 256
    steps: int = 5
    guidance_scale: float = 5.0
    references: int = 1
    seed: int = 0

    def pictures(self, count: int, stream: str) -> np.ndarray:
        """uint8 (count H W 3): soft blots, another in each frame"""
        coarse = rng(self.seed, stream).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
        size = (self.width, self.height)
        return np.stack([np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BICUBIC)) for one in coarse])


class Made(NamedTuple):
    latents: Tensor
    pixels: Tensor


class Embedded(NamedTuple):
    """prompt and text of the unguided branch (1 n d)"""

    context: Tensor
    null_context: Tensor


class Verdict(NamedTuple):
    """The largest differences: of text embeddings relative to the largest of them, of latents, and of pixels in [0, 1]."""

    text: float
    latents: float
    pixels: float
    same: bool

    def __str__(self) -> str:
        said = "the same picture" if self.same else "NOT the same picture"
        return (
            f"largest differences: text embeddings {self.text:.2g} (relative), latents {self.latents:.2g}, pixels "
            f"{255 * self.pixels:.2g} of 255: {said}"
        )


def check(ours: Path, theirs: Path | None, model: ModelConfig, trial: Trial) -> Verdict:
    """`ours` made here against `theirs` made by diffusers alone.

    ours     a run or checkpoint, what `extract` wrote of one, or its pipeline
    theirs   what `extract` wrote: LoRAs for the base, or a pipeline; None: `ours`, for a run what is extracted from it now
    model    the base of both
    Raises UserError where one of them is not that, or does not fit.
    """
    with tempfile.TemporaryDirectory() as folder:
        if theirs is None:
            made = (ours / INDEX).is_file() or (ours / CONTROLNET).is_dir()
            theirs = ours if made else _extracted(ours, model, trial.task, Path(folder))
        if (theirs / INDEX).is_file() and not model.flow_shift:
            model = dataclasses.replace(model, flow_shift=read_process(theirs).shift)
        models, loras, prompt = load_ours(ours, model, trial.task)
        multiple = models.backbone.size_multiple
        if trial.height % multiple or trial.width % multiple:
            raise UserError(f"--height, --width: {trial.height} x {trial.width}; this base takes multiples of {multiple}")
        models.to(compute_device())
        texts = Embedded(*(models.backbone.embed_text([text]) for text in (prompt, "")))
        models.backbone.release(text=True, encoder=False)
        made_here = make_ours(models, loras, trial, texts)
        length = models.backbone.text_shape[0]
        del models
        gc.collect()
        pipeline = load_theirs(theirs, model, trial.task)
    if torch.cuda.is_available():
        pipeline.enable_model_cpu_offload()
    embedded = embed_theirs(pipeline, prompt, length)
    return compare(made_here, make_theirs(pipeline, trial, texts), texts, embedded, TEXT_ROUNDING[model.text_precision])


def _extracted(run: Path, model: ModelConfig, task: str, folder: Path) -> Path:
    """The run's LoRA or, where a LoRA on the base goes with it, a whole pipeline, somewhere below `folder`."""
    if model.motion_from:
        return extract(ExtractConfig(checkpoint=str(run), merge=task), model, folder)[0]
    extract(ExtractConfig(checkpoint=str(run), tasks=[task]), model, folder)
    return folder


def compare(ours: Made, theirs: Made, texts: Embedded, their_texts: Embedded, text_rounding: float) -> Verdict:
    text = max(_difference(a, b) / float(a.abs().max()) for a, b in zip(texts, their_texts, strict=True))
    latents, pixels = (_difference(a, b) for a, b in zip(ours, theirs, strict=True))
    return Verdict(text, latents, pixels, same=text <= text_rounding and pixels <= SAME)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one.cpu() - other.cpu()).abs().max())


# ours


def load_ours(source: Path, model: ModelConfig, task: str) -> tuple[Assembly, Mapping[str, float] | None, str]:
    """(networks, active LoRAs instead of the task's own, prompt)"""
    extracted = next((folder for folder in (source, source / CONTROLNET) if (folder / METADATA).is_file()), None)
    metadata = read_metadata(extracted) if extracted else read_weights(find_checkpoint(source))[0]
    if not extracted:
        check_metadata(metadata, str(source))
    pipeline = (source / INDEX).is_file()
    model = dataclasses.replace(
        model, tasks=[task], lora_rank=metadata["lora_rank"], base=str(source) if pipeline else model.base,
        condition_range=metadata.get("condition_range", "signed"),
    )  # fmt: skip
    if model.motion_from:
        model = dataclasses.replace(model, motion_lora_rank=_motion_rank(model.motion_from))
    if extracted and (person := _person_folder(source)):
        model = dataclasses.replace(model, base_loras={**model.base_loras, str(person): 1.0})
    models, loras = Assembly(model, load_backbone(model), with_motion=bool(model.motion_from)), None
    if model.motion_from:
        load_motion(models, model.motion_from)
    if pipeline:
        models.identifiers.update(metadata["identifiers"])
    elif extracted:
        load_control_folder(models, extracted)
        loras = load_loras(models, {_lora_folder(source, task): 1.0})
    else:
        load_control(models, *read_weights(source), str(source))
    told = (metadata.get(key, "") for key in ("prompt", "person", "description"))
    prompt = prompt_for(SampleConfig(), models.identifiers, *told, models.backbone.fits)
    return models.eval(), loras, prompt


def _motion_rank(run: str) -> int:
    downs = [len(w) for n, w in read_weights(run)[1].items() if n.startswith("motion.") and n.endswith(".lora_A.weight")]
    if not downs:
        raise UserError(f"--motion: {run} holds no LoRA on the base; give a stage-1 run with model.motion_lora_rank")
    return downs[0]


@torch.no_grad()
def make_ours(models: Assembly, loras: Mapping[str, float] | None, trial: Trial, texts: Embedded) -> Made:
    """As stage 3 makes it."""
    backbone, like = models.backbone, texts.context
    show = lambda pictures: torch.stack([to_pixels(one) for one in pictures])[None].to(like)  # noqa: E731
    shown = backbone.encode_condition(show(trial.pictures(trial.frames, "condition")))
    photos = [backbone.encode(show([photo])) for photo in trial.pictures(trial.references, "photo")] if trial.references else []
    control_input = backbone.control_input(shown, torch.cat(photos, dim=1) if photos else None)
    denoiser = Denoiser(
        backbone=backbone, control=models.control, tasks={trial.task: 1.0}, loras=loras, context=texts.context,
        null_context=texts.null_context, control_latents={trial.task: control_input}, references=trial.references,
        guidance_scale=trial.guidance_scale,
    )  # fmt: skip
    timesteps = backbone.process.sampling_timesteps(trial.steps)
    x_T = first_noise(trial, tuple(shown.shape[1:])).to(like)
    latents = sampler_for("unipc")(denoiser, x_T, backbone.process, timesteps)
    pixels = backbone.decode(latents[:, trial.references :].to(like)) / 2 + 0.5
    return Made(latents, pixels.clamp(0, 1))


def first_noise(trial: Trial, shape: Sequence[int]) -> Tensor:
    """(1 r+f' c h w) for a clip of `shape` (f' c h w)"""
    return noise_for(trial.seed, torch.zeros(1, dtype=torch.int64), (trial.references + shape[0], *shape[1:]))


# theirs: from here on diffusers' own classes


def load_theirs(source: Path, model: ModelConfig, task: str) -> Any:
    """A WanVACEPipeline: the one in `source`, or the base with the LoRA in `source` loaded as users load it."""
    from diffusers import UniPCMultistepScheduler, WanVACEPipeline

    dtypes = {"default": torch.float32, "text_encoder": {"fp32": torch.float32, "bf16": torch.bfloat16}[model.text_precision]}
    if (source / INDEX).is_file():
        pipeline = WanVACEPipeline.from_pretrained(source, torch_dtype=dtypes)
    else:
        folder, lora = base_folder(model), _lora_folder(source, task)
        transformer = _their_transformer(folder, source / CONTROLNET)
        pipeline = WanVACEPipeline.from_pretrained(folder, transformer=transformer, torch_dtype=dtypes)
        pipeline.load_lora_weights(lora, adapter_name=task)
        if person := _person_folder(source):
            pipeline.load_lora_weights(person, weight_name=PERSON_FILE, adapter_name=PERSON)
            pipeline.set_adapters([task, PERSON])
    if not isinstance(pipeline.scheduler, UniPCMultistepScheduler) or model.flow_shift:
        shift = model.flow_shift or read_process(base_folder(model)).shift
        told = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        pipeline.scheduler = UniPCMultistepScheduler.from_config(pipeline.scheduler.config, **told)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _their_transformer(base: Path, control: Path) -> Any:
    """The base's own with the branch in `control`, which is said where it is not the base's own."""
    from diffusers import WanTransformer3DModel, WanVACETransformer3DModel

    branch = load_tensors(control / CONTROLNET_WEIGHTS)
    config = WanVACETransformer3DModel.load_config(control)
    if "vace_layers" in WanVACETransformer3DModel.load_config(base / "transformer"):
        transformer = WanVACETransformer3DModel.from_pretrained(base / "transformer", torch_dtype=torch.float32)
        own = transformer.state_dict()
        if all(torch.equal(own[name], weight) for name, weight in branch.items()):
            return transformer
        state = own | branch
    else:
        plain = WanTransformer3DModel.from_pretrained(base / "transformer", torch_dtype=torch.float32)
        transformer, state = WanVACETransformer3DModel.from_config(config), plain.state_dict() | branch
    print("note: the control branch is not the base's own: diffusers needs a pipeline (extract.merge), a LoRA alone does not do")
    transformer.load_state_dict(state, strict=True)
    return transformer.eval()


@torch.no_grad()
def embed_theirs(pipeline: Any, prompt: str, length: int) -> Embedded:
    if importlib.util.find_spec("ftfy"):
        texts = pipeline.encode_prompt(prompt, "", max_sequence_length=length, device=pipeline._execution_device)
        return Embedded(*(text.float() for text in texts))
    print("note: WanVACEPipeline needs ftfy for prompts (pip install ftfy); here they go to its text encoder as they are")
    return Embedded(*(_encode(pipeline, text, length) for text in (prompt, "")))


def _encode(pipeline: Any, text: str, length: int) -> Tensor:
    given = pipeline.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids, mask = (one.to(pipeline._execution_device) for one in (given.input_ids, given.attention_mask))
    return (pipeline.text_encoder(ids, mask).last_hidden_state * mask[..., None]).float()


@torch.no_grad()
def make_theirs(pipeline: Any, trial: Trial, texts: Embedded) -> Made:
    as_images = lambda pictures: [Image.fromarray(one) for one in pictures]  # noqa: E731
    factor, each = pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal
    shape = (1 + (trial.frames - 1) // each, pipeline.vae.config.z_dim, trial.height // factor, trial.width // factor)
    kept: dict[str, Tensor] = {}

    def keep(_: Any, step: int, t: Tensor, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        kept.update(tensors)
        return tensors

    pixels = pipeline(
        video=as_images(trial.pictures(trial.frames, "condition")),
        reference_images=as_images(trial.pictures(trial.references, "photo")) if trial.references else None,
        prompt_embeds=texts.context, negative_prompt_embeds=texts.null_context, height=trial.height, width=trial.width,
        num_frames=trial.frames, num_inference_steps=trial.steps, guidance_scale=trial.guidance_scale, output_type="pt",
        latents=first_noise(trial, shape).transpose(1, 2), callback_on_step_end=keep,
    ).frames  # fmt: skip
    return Made(kept["latents"].transpose(1, 2), pixels)


def _person_folder(source: Path) -> Path | None:
    """That of the person's LoRA on the base, where one was extracted. Raises UserError for one that an older extraction left."""
    folder = source / PERSON
    if not (folder / PERSON_FILE).is_file():
        return None
    belongs, own = (read_json(home / METADATA).get("control") for home in (folder, source / CONTROLNET))
    if belongs != own:
        raise UserError(f"{folder}: is from another extraction than {source / CONTROLNET}; delete it, or extract anew")
    return folder


def _lora_folder(source: Path, task: str) -> Path:
    if not (source / task / METADATA).is_file():
        raise UserError(f"{source}: has no folder '{task}' of a LoRA; expected what extract_LoRA_weights.sh wrote, or --task")
    return source / task
