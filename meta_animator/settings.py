"""Every field of a run's YAML: type, default, meaning, and the stages that use it. Plain dataclasses; no heavy imports."""

import dataclasses
from typing import Any

TASKS = (
    "dwpose", "pose_hamer", "depth", "normal", "seg", "fg_inpainting", "bg_outpainting", "canny", "blurred",
)  # fmt: skip

STAGES = ("control", "motion", "reference", "sample", "extract", "base_vae", "base_unet", "base_face", "base_wan_vae", "base_wan")
BASE = ("base_vae", "base_unet", "base_face", "base_wan_vae", "base_wan")  # train the embedded base models
METHOD = ("control", "motion", "reference", "sample")  # stages 0 to 3, which take a base model as it is
NETWORKS = ("control", "motion", "reference", "base_unet")  # train what denoises
TRAINING = ("control", "motion", "reference", *BASE)
WAN = ("base_wan_vae", "base_wan")  # train the embedded Wan, on clips
DENOISING = (*NETWORKS, "base_wan")


def setting(
    default: Any, meaning: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None,
    path: bool | str = False, yes: str = "", stages: tuple[str, ...] = (),
) -> Any:  # fmt: skip
    """A dataclass field with one line of meaning, optional allowed values and optional bounds, both included.

    path   whether the text (each of a list, each name of a mapping) is the path of a file or folder, which on a command line
           starts where the user stands; "name" where it may be a name on the hub instead
    yes    which of the choices `true` stands for, as `false` does for "no"
    stages the stages that use it; empty: those of its section
    """
    metadata = {"meaning": meaning, "choices": choices, "low": low, "high": high, "path": path, "yes": yes, "stages": stages}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(kind: type, meaning: str, stages: tuple[str, ...]) -> Any:
    """A dataclass field that holds settings, and the stages that use those which do not say it themselves."""
    return dataclasses.field(default_factory=kind, metadata={"meaning": meaning, "stages": stages})


@dataclasses.dataclass(kw_only=True)
class ModelConfig:
    backbone: str = setting(
        "sd", "family of the base model: Stable Diffusion 1 and 2, or Wan 2.1", choices=("sd", "wan"),
        stages=(*NETWORKS, "sample", "extract"),
    )  # fmt: skip
    base: str = setting(
        "assets/base", "base model: diffusers folder, .safetensors or .ckpt file or name on the hub", path="name",
        stages=(*DENOISING, "sample", "extract"),
    )  # fmt: skip
    base_loras: dict[str, float] = setting(
        {}, "people's LoRAs (files or folders) and weights, folded into the base as it is loaded", path=True,
        stages=(*METHOD, "extract"),
    )  # fmt: skip
    architecture: str = setting(
        "", "folder with the base's config files, for --dry-run and single files; empty: the base itself", path=True,
        stages=STAGES,
    )  # fmt: skip
    base_from: str = setting(
        "", "base model whose part a base_* stage goes on training, or whose VAE a small one learns from; empty: from random "
        "weights", path=True,
        stages=BASE,
    )  # fmt: skip
    vae: str = setting("", "VAE instead of the base's own: diffusers folder or file", path=True, stages=(*METHOD, "extract"))
    tiny_vae: str = setting(
        "", "AutoencoderTiny (TAESD) that decodes what is only looked at, previews and stage 3's frames, in the VAE's place: "
        "folder or name on the hub; empty: the VAE does", path="name", stages=METHOD,
    )  # fmt: skip
    tokenizer: str = setting(
        "", "tokenizer folder or name on the hub; empty: the base's own, for a file SD1's from the hub", path="name",
        stages=METHOD,
    )  # fmt: skip
    flow_shift: float = setting(
        0.0, "wan: shift of the sampling steps to high noise (3 for 480p, 5 for 720p); 0: the base's own", low=0.0,
        stages=(*METHOD, "extract"),
    )  # fmt: skip
    text_cache: str = setting(
        "", "wan: folder where embedded prompts are kept, so that the encoder is loaded once; empty: they are not", path=True,
        stages=METHOD,
    )  # fmt: skip
    text_precision: str = setting(
        "fp32", "wan: precision of the text encoder (the published one takes 11 GB in bf16)", choices=("fp32", "bf16"),
        stages=METHOD,
    )  # fmt: skip
    face: str = setting(
        "", "face embedder: folder of ours, .onnx (SFace, ArcFace) or iResNet .pth; needed where loss.face_weight > 0",
        path=True, stages=NETWORKS,
    )  # fmt: skip
    tasks: list[str] = setting(list(TASKS), "Meta-Tasks of this run, one LoRA each", stages=(*NETWORKS, *WAN))
    lora_rank: int = setting(128, "rank of every LoRA", low=1)
    condition_range: str = setting("signed", "range of condition images for the VAE", choices=("signed", "unit"))
    condition_posterior: str = setting(
        "mode", "latent of a condition in training; sampling: mode", choices=("mode", "sample"), stages=NETWORKS
    )
    control_from: str = setting("", "run or checkpoint with Meta ControlNet and LoRAs; empty: from the base", path=True)
    motion_from: str = setting(
        "", "run, checkpoint, diffusers MotionAdapter folder, or file of AnimateDiff's; empty: a fresh motion module",
        path=True, stages=("motion", "sample", "extract"),
    )  # fmt: skip
    motion_mid_block: bool = setting(
        False, "motion module in the UNet's mid block too, as AnimateDiff v2 has it",
        stages=("motion", "sample"),
    )  # fmt: skip
    motion_max_seq_length: int = setting(32, "positions of the motion module, in frames", low=1, stages=("motion", "sample"))
    motion_lora_rank: int = setting(
        0, "wan: rank of a LoRA on the base's self-attention, which stage 1 trains beside or without the tasks' LoRAs; 0: none",
        low=0, stages=("motion", "sample"),
    )  # fmt: skip
    person_lora_rank: int = setting(
        0, "rank of a LoRA on all linear layers and convolutions of the base, which learns along; stage 3 finds it in the "
        "checkpoint; 0: none", low=0, stages=("reference",),
    )  # fmt: skip
    attention: str = setting(
        "auto", "PyTorch's kernel for attention, where it can; auto: PyTorch chooses (scripts/bench.py attention measures them)",
        choices=("auto", "flash", "efficient", "cudnn", "math"), stages=(*METHOD, *BASE),
    )  # fmt: skip
    beta_schedule: str = setting(
        "", "noise schedule instead of the base's own", choices=("", "linear", "scaled_linear"), stages=METHOD
    )


@dataclasses.dataclass(kw_only=True)
class PuppetsConfig:
    root: str = setting("", "folder where the demo's rendered data sets are made when missing; empty: none are", path=True)
    identities: int = setting(24, "people of the train set", low=2)
    clips: int = setting(1, "clips per identity", low=1)
    frames: int = setting(16, "frames per clip", low=1)
    fps: int = setting(12, "frames per second", low=1)
    photos: int = setting(8, "reference photos of the held-out person", low=1)
    driving_frames: int = setting(24, "frames of the held-out motion", low=1)
    height: int = setting(128, "pixels", low=16)
    width: int = setting(128, "pixels", low=16)
    camera_motion: float = setting(0.0, "how much cameras move, as if held by hand; 0: they stand", low=0.0, high=1.0)
    seed: int = setting(0, "first seed of identities, motions and scenes", low=0)


@dataclasses.dataclass(kw_only=True)
class DataConfig:
    train: list[str] = setting(
        [], "data sets: folders with a manifest.jsonl, or folders and URLs (s3://, hf://) of tar shards", path=True
    )
    auxiliary: list[str] = setting(
        [], "data sets of other people that keep stage 2 from overfitting", path=True,
        stages=("reference",),
    )  # fmt: skip
    auxiliary_sets: int = setting(20, "how many frames of the auxiliary data sets are used", low=0, stages=("reference",))
    auxiliary_fraction: float = setting(0.5, "share of draws from the auxiliary frames", low=0.0, high=1.0, stages=("reference",))
    split: str = setting("train", "split of the manifest that is trained on")
    held_out: int = setting(
        0, "stage 2: so many of the person's photos are not learned but measured: the step at which they come out best is "
        "the one that stage 3 and extract take; 0: none, and the last step", low=0, stages=("reference",),
    )  # fmt: skip
    held_out_share: int = setting(
        0, "stage 2 with data.held_out: which photos these are, the first so many of a shuffled order, or with 1 the next, "
        "and so on", low=0, stages=("reference",),
    )  # fmt: skip
    height: int = setting(512, "pixels; divisible by the base's factor", low=8, stages=(*TRAINING, "sample"))
    width: int = setting(512, "pixels; divisible by the base's factor", low=8, stages=(*TRAINING, "sample"))
    person_margin: float = setting(
        0.0, "zoom in until the person, with this share of their size around, fills the crop; 0: the largest crop",
        low=0.0, high=2.0, stages=(*TRAINING, "sample"),
    )  # fmt: skip
    aspect_buckets: int = setting(
        0, "clips of other shapes get sizes of the same area, sides multiples of so many pixels (64 for SD1.5); 0: all one size",
        low=0, stages=(*TRAINING, "sample"),
    )  # fmt: skip
    random_crop: float = setting(0.0, "largest random zoom of the crop (0: none), which never cuts the face", low=0.0)
    crops: int = setting(
        0, "random crops of each clip, the first is the one without zoom; 0: a new one per draw, not with cached latents", low=0
    )
    crop_until: float = setting(
        1.0, "share of the run's steps that see random crops; the others, at its end, see the whole picture", low=0.0, high=1.0,
        stages=(*METHOD[:3], "base_unet"),
    )  # fmt: skip
    flip: float = setting(0.0, "probability of a mirror image, left and right swapped in all layers", low=0.0, high=1.0)
    pose_drop: float = setting(
        0.0, "probability that a pose drawn from keypoints lacks parts (face, hands, limbs), so that a model learns to fill in "
        "what a pose does not show", low=0.0, high=1.0, stages=DENOISING,
    )  # fmt: skip
    pose_variants: int = setting(
        1, "drawings of each frame that lack parts (in stage 1 the same parts in a whole clip), to choose from with pose_drop; "
        "0: a new one per draw, not with cached latents", low=0, stages=DENOISING,
    )  # fmt: skip
    num_frames: int = setting(16, "frames per clip in stage 1; wan, base_wan_*: 4k + 1", low=1, stages=("motion", *WAN))
    clip_frames: int = setting(
        1, "wan: frames of each sample of a film in stages 0 and 2, 4k + 1 of them; 1: single frames. Photos are one frame each",
        low=1, stages=("control", "reference"),
    )  # fmt: skip
    fps: float = setting(
        0.0, "frames per second of the clips that samples are, as nearly as leaving out frames makes them; 0: the clip's own",
        low=0.0, stages=(*METHOD[:3], *WAN),
    )  # fmt: skip
    stride: int = setting(1, "stored frames between two frames of a clip, where fps is 0", low=1, stages=(*METHOD[:3], *WAN))
    prompt: str = setting(
        "Person looks like {identifier}", "prompt; {identifier} and {description} are filled in",
        stages=DENOISING,
    )  # fmt: skip
    prompt_drop: float = setting(0.01, "probability of an empty prompt", low=0.0, high=1.0, stages=DENOISING)
    cache_latents: bool = setting(True, "encode every frame and condition once, before the first step", stages=NETWORKS)
    cache_precision: str = setting(
        "fp16", "how cached latents are stored; fp16 is off by at most 0.05 % of each value", choices=("fp16", "bf16", "fp32"),
        stages=DENOISING,
    )  # fmt: skip
    cache_dir: str = setting("", "where cached latents live; empty: <output_dir>/cache", path=True, stages=DENOISING)
    task_weights: dict[str, int] = setting(
        {}, "how often a task comes in a cycle of all tasks; 1 for those not named",
        stages=(*NETWORKS, *WAN),
    )  # fmt: skip
    task_per_rank: bool = setting(False, "several processes: each draws a task of its own at every step", stages=NETWORKS)
    num_workers: int = setting(0, "data-loader processes", low=0)
    video_reader: str = setting(
        "pyav", "what reads films; decord: only those where it gives the same pictures, with more memory",
        choices=("pyav", "decord"),
    )  # fmt: skip
    puppets: PuppetsConfig = section(PuppetsConfig, "rendered people to learn from", TRAINING)


@dataclasses.dataclass(kw_only=True)
class LossConfig:
    latent_weight: float = setting(1.0, "weight of the latent noise error", low=0.0)
    image_weight: float = setting(0.1, "lambda: weight of the whole image loss (pixels + face)", low=0.0)
    pixel_weight: float = setting(1.0, "weight of the pixel error inside the image loss", low=0.0)
    face_weight: float = setting(0.0, "weight of the face term inside the image loss", low=0.0)
    face_region_weight: float = setting(
        1.0, "how much more the latent noise error counts where a face is seen than elsewhere", low=0.0, stages=DENOISING
    )
    person_region_weight: float = setting(
        1.0, "the same for the box around the person; a face has both", low=0.0, stages=DENOISING
    )
    max_noise_level: float = setting(
        0.3707, "image loss only where noise / sqrt(signal^2 + noise^2) <= this (t <= 124 in SD1.5)", low=0.0, high=1.0
    )
    image_latent_frames: int = setting(
        0, "wan: so many latent frames of a clip are decoded for the image loss, others at each step; 0: all", low=0
    )  # fmt: skip
    start_step: int = setting(-1, "first step with the image loss; -1: after half an epoch", low=-1)


@dataclasses.dataclass(kw_only=True)
class TrainConfig:
    max_steps: int = setting(1000, "optimizer steps", low=1)
    batch_size: int = setting(8, "samples per device and micro-batch", low=1)
    gradient_accumulation_steps: int = setting(1, "micro-batches per optimizer step; all of one task", low=1)
    trainable: str = setting(
        "all", "all of a stage's modules, its LoRAs only, a base's VAE's decoder only (its latents stay as they are), or a small "
        "VAE for a base's latents (model.tiny_vae)", choices=("all", "lora", "decoder", "tiny_vae"),
        stages=("control", "reference", "base_vae", "base_wan_vae"),
    )  # fmt: skip
    optimizer: str = setting(
        "adamw", "adamw, or with momenta in 8 bits, a quarter of the memory: adamw8bit (pip install torchao)",
        choices=("adamw", "adamw8bit"),
    )  # fmt: skip
    lora_tasks: list[str] = setting(
        [], "with trainable=lora, or in stage 1 with train_lora_in_motion: the tasks of model.tasks whose LoRAs are trained, and "
        "that are drawn; the others' are kept as they are; empty: all", stages=METHOD[:3],
    )  # fmt: skip
    learning_rate: float = setting(1e-5, "AdamW learning rate", low=0.0)
    lora_learning_rate: float = setting(
        0.0, "learning rate of LoRAs; 0: learning_rate", low=0.0,
        stages=("control", "motion", "reference"),
    )  # fmt: skip
    person_learning_rate: float = setting(
        0.0, "learning rate of the person's LoRA on the base (model.person_lora_rank); 0: that of the LoRAs", low=0.0,
        stages=("reference",),
    )  # fmt: skip
    adam_beta1: float = setting(0.9, "AdamW", low=0.0, high=0.9999)
    adam_beta2: float = setting(0.999, "AdamW", low=0.0, high=0.99999)
    adam_epsilon: float = setting(1e-8, "AdamW")
    weight_decay: float = setting(1e-2, "AdamW", low=0.0)
    max_skipped_steps: int = setting(10, "steps that may be skipped because loss or gradient is not finite", low=0)
    max_grad_norm: float = setting(1.0, "gradient clipping; 0: off", low=0.0)
    lr_scheduler: str = setting(
        "constant_with_warmup", "learning-rate schedule",
        choices=("constant", "constant_with_warmup", "linear", "cosine"),
    )  # fmt: skip
    lr_warmup_steps: int = setting(0, "steps", low=0)
    mixed_precision: str = setting(
        "no", "arithmetic of the forward pass", choices=("no", "fp16", "bf16"),
        stages=(*TRAINING, "sample"),
    )  # fmt: skip
    allow_tf32: bool = setting(
        False, "matrix products of float32 in TF32, on NVIDIA GPUs that have it: faster, to three digits (convolutions are so "
        "anyway, by PyTorch's default)", stages=(*TRAINING, "sample"),
    )  # fmt: skip
    gradient_checkpointing: bool = setting(False, "less memory for about a third more time", stages=NETWORKS)
    compile: str = setting(
        "", "regional: torch.compile for each repeated block, minutes before the first step for faster ones on a GPU; empty: not",
        choices=("", "regional"), stages=NETWORKS,
    )  # fmt: skip
    ema_decay: float = setting(0.0, "moving average of the trained weights; 0: off", low=0.0, high=0.99999)
    ema_device: str = setting(
        "", "where the moving average is kept; empty: with the weights; cpu: what is trained is copied there in every step",
        choices=("", "cpu"),
    )  # fmt: skip
    timestep_bias_multiplier: float = setting(
        1.0, "how much likelier the noisiest timesteps are than the others", low=0.0,
        stages=NETWORKS,
    )  # fmt: skip
    timestep_bias_portion: float = setting(
        0.1, "share of the timesteps that are the noisiest", low=0.0, high=0.99,
        stages=NETWORKS,
    )  # fmt: skip
    timestep_shift: float = setting(
        1.0, "wan, base_wan: how much training timesteps are shifted to high noise, where the control decides; 1: not", low=0.01,
        stages=DENOISING,
    )  # fmt: skip
    shared_noise: float = setting(
        0.0, "stage 1: share of the noise's variance that all frames of a clip have in common; stage 3 samples with it",
        low=0.0, high=1.0, stages=("motion",),
    )
    control_drop: float = setting(
        0.0, "base_unet, base_wan: probability of a sample (of a step) without control, from which text alone is learned",
        low=0.0, high=1.0, stages=("base_unet", "base_wan"),
    )  # fmt: skip
    train_lora_in_motion: bool = setting(False, "stage 1 also trains the LoRA of its task", stages=("motion",))
    checkpoint_every: int = setting(500, "steps; the last step is always saved", low=1)
    keep_checkpoints: int = setting(2, "older checkpoints are deleted", low=1)
    preview_every: int = setting(500, "steps; 0: no previews", low=0)
    measure_every: int = setting(
        -1, "steps between measurements by the meters (is control obeyed, are photos copied); -1: with previews; 0: none",
        low=-1, stages=(*METHOD[:3], "base_unet"),
    )  # fmt: skip
    early_stop: int = setting(
        0, "stage 2 with data.held_out: stop after so many measurements without a better one; 0: never", low=0,
        stages=("reference",),
    )  # fmt: skip
    best_step: int = setting(
        0, "stage 2: the step that stage 3 and extract take, where it is known from elsewhere (scripts/leave_one_out.py); 0: "
        "what data.held_out says, or the last", low=0, stages=("reference",),
    )  # fmt: skip
    log_every: int = setting(10, "steps between lines of metrics, which are means over these steps, one line per task", low=1)
    wandb_project: str = setting("", "also log to this Weights & Biases project")


@dataclasses.dataclass(kw_only=True)
class SampleConfig:
    reference: str = setting("", "photo file, or data set with the reference photos", path=True)
    reference_clip: str = setting("", "which clip or photo of the reference data set; empty: its first")
    driving: str = setting(
        "", "data set, drawn pose video, keypoint .npz or keypoint JSON (OpenPose, MMPose; a file or a folder) that gives the "
        "motion", path=True,
    )  # fmt: skip
    driving_fps: float = setting(0.0, "frames per second of a driving that does not say its own: keypoint JSON", low=0.0)
    driving_clip: str = setting("", "which clip of the driving data set; empty: its first")
    identity: str = setting("", "whose identifier is used; empty: the person the checkpoint was fine-tuned on")
    prompt: str = setting("", "prompt instead of the checkpoint's own template")
    negative_prompt: str = setting("", "text of the unguided branch, which keeps the pose")
    tasks: dict[str, float] = setting({"dwpose": 1.0}, "conditions in use and the strength of each")
    loras: dict[str, float] = setting({}, "extracted LoRA folders and weights, instead of the checkpoint's LoRAs", path=True)
    controlnet_conditioning_scale: float = setting(1.0, "strength of all control residuals together", low=0.0)
    num_inference_steps: int = setting(50, "sampling steps", low=1)
    sampler: str = setting(
        "ddim", "ddim, dpm_solver_2m or unipc (need fewer steps), lcm (for distilled motion modules), or another of SAMPLERS in "
        "diffusion/samplers.py"
    )
    timestep_spacing: str = setting(
        "", "where the steps lie, for motion modules that were distilled for few: trailing (AnimateDiff-Lightning), lcm "
        "(AnimateLCM); empty: as the base has it", choices=("", "leading", "trailing", "linspace", "lcm"),
    )  # fmt: skip
    guidance_scale: float = setting(7.5, "classifier-free guidance; 1: off", low=0.0)
    eta: float = setting(0.0, "stochasticity, 0 to 1; 0 with samplers that draw no noise", low=0.0)
    init_noise: str = setting(
        "inversion", "what all frames share in the first latent: the inverted photo, or noise", choices=("inversion", "random")
    )
    shared_noise: float = setting(
        -1.0, "share of the first latent's variance that all frames have in common, as train.shared_noise of stage 1; below 0: "
        "what the motion module was trained with, 1 where it does not say", low=-1.0, high=1.0,
    )  # fmt: skip
    init_noise_scale: float = setting(1.0, "factor of the first latent; below 1: smoother, the photo shows through less", low=0.0)
    window: int = setting(16, "frames denoised together", low=1)
    overlap: int = setting(4, "frames shared by neighbouring windows", low=0)
    frame_batch_size: int = setting(8, "frames encoded and decoded at once", low=1)
    max_frames: int = setting(0, "stop after so many frames; 0: all", low=0)
    fit_pose: str = setting(
        "no", "bring the driving skeleton to the reference person: limbs (also: true), each limb and the face in the reference's "
        "own lengths and shape; whole, one scale and one shift for the clip", choices=("no", "whole", "limbs"), yes="limbs",
    )  # fmt: skip
    read_pose: bool = setting(
        True, "read drawn pose videos back into keypoints, which are fitted and drawn anew as others are; what cannot be read is "
        "used as it is"
    )
    smooth_pose: float = setting(
        1.0, "with fit_pose limbs: how much of what looks like jitter is averaged away, without a lag; also bridges gaps of up "
        "to 0.3 s; 0: nothing", low=0.0,
    )  # fmt: skip
    fps: float = setting(
        0.0, "frames per second generated and shown, the driving resampled by time to them; 0: generated at the rate that the "
        "motion module was trained at, if it says so, and shown at the driving's. It lasts as long as the driving", low=0.0,
    )  # fmt: skip
    references: int = setting(
        0, "wan: so many photos of the reference data set, or the one photo, are shown to the base beside the pose", low=0
    )
    shuffle_driving: bool = setting(False, "control experiment: the poses in a wrong order; wan: of whole latent frames")
    output: str = setting("animation.mp4", "file name inside output_dir")


@dataclasses.dataclass(kw_only=True)
class ExtractConfig:
    checkpoint: str = setting("", "run folder or checkpoint", path=True)
    tasks: list[str] = setting([], "LoRAs to take out; empty: all")
    merge: str = setting(
        "", "instead, write what has this task's LoRA folded in (sd: the ControlNet; wan: a whole pipeline, which diffusers "
        "runs); empty: do not",
    )  # fmt: skip


@dataclasses.dataclass(kw_only=True)
class RunConfig:
    stage: str = setting("control", "what this run does", choices=STAGES, stages=STAGES)
    output_dir: str = setting("outputs/run", "everything that this run writes", path=True, stages=STAGES)
    seed: int = setting(0, "noise, timesteps, crops and order are functions of it", low=0, stages=(*METHOD, *BASE))
    model: ModelConfig = section(ModelConfig, "the networks, and what they start from", (*NETWORKS, "sample"))
    data: DataConfig = section(DataConfig, "what is learned from, and how it is shown", TRAINING)
    loss: LossConfig = section(LossConfig, "the Dual Space Hybrid Loss", NETWORKS)
    train: TrainConfig = section(TrainConfig, "how it is learned", TRAINING)
    sample: SampleConfig = section(SampleConfig, "what is animated, and how", ("sample",))
    extract: ExtractConfig = section(ExtractConfig, "what is taken out of a checkpoint", ("extract",))
