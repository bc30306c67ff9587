"""Whether the settings of a run are those of its base's family."""

from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.models.backbones.frames import latent_frames
from meta_animator.settings import NETWORKS, DataConfig, ModelConfig, SampleConfig, TrainConfig
from meta_animator.weights import read_json

TIME = (False, True, True)  # which levels of Wan's published VAE halve time


def check_family(stage: str, model: ModelConfig, data: DataConfig, train: TrainConfig, sample: SampleConfig) -> None:
    """Raises UserError for a setting that the family does not have, and for numbers of frames that it does not take."""
    (_check_wan if model.backbone == "wan" else _check_sd)(stage, model, data, train, sample)


def _check_sd(stage: str, model: ModelConfig, data: DataConfig, train: TrainConfig, sample: SampleConfig) -> None:
    wan_only = {
        "train.timestep_shift": stage in NETWORKS and train.timestep_shift != 1, "model.motion_lora_rank": model.motion_lora_rank,
        "data.clip_frames": stage in ("control", "reference") and data.clip_frames > 1,
        "sample.references": stage == "sample" and sample.references,
    }  # fmt: skip
    _refuse(wan_only, "is for model.backbone=wan; leave it as it is by default")


def _check_wan(stage: str, model: ModelConfig, data: DataConfig, train: TrainConfig, sample: SampleConfig) -> None:
    sd_only = {
        "model.beta_schedule": model.beta_schedule, "model.motion_mid_block": model.motion_mid_block,
        "model.tokenizer": model.tokenizer,
        "sample.init_noise=inversion": stage == "sample" and sample.init_noise == "inversion",
        "sample.shared_noise": stage == "sample" and sample.shared_noise != 0,
        "train.shared_noise": stage == "motion" and train.shared_noise,
    }  # fmt: skip
    instead = {"sample.init_noise=inversion": "random", "sample.shared_noise": "0", "train.shared_noise": "0"}
    _refuse(sd_only, "is for model.backbone=sd", instead)
    if stage == "motion" and not (train.train_lora_in_motion or model.motion_lora_rank):
        raise UserError(
            "stage 1 has nothing to train: set train.train_lora_in_motion=true (the tasks' LoRAs on clips), "
            "model.motion_lora_rank (a LoRA on the base's self-attention), or both"
        )
    if stage in ("motion", "sample") and model.motion_from and not model.motion_lora_rank:
        raise UserError(f"model.motion_from: {model.motion_from} holds a LoRA; set model.motion_lora_rank to its rank")
    file = Path(model.vae or Path(model.architecture or model.base) / "vae") / "config.json"
    each = 2 ** sum(read_json(file).get("temperal_downsample", TIME) if file.is_file() else TIME)
    frames = {
        "motion": {"data.num_frames": data.num_frames}, "control": {"data.clip_frames": data.clip_frames},
        "reference": {"data.clip_frames": data.clip_frames},
        "sample": {"sample.window": sample.window, "sample.window - sample.overlap": sample.window - sample.overlap},
    }  # fmt: skip
    for key, count in frames.get(stage, {}).items():
        try:
            latent_frames(max(1, count), each)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def _refuse(settings: dict, why: str, instead: dict | None = None) -> None:
    for key, value in settings.items():
        if value:
            advice = f"; set {key.split('=')[0]}={instead[key]}" if instead and key in instead else ""
            raise UserError(f"{key}: {why}{advice}")
