"""Whether the settings of a run are those of its base's family."""

from pathlib import Path

from meta_animator.errors import UserError
from meta_animator.json_files import read_json
from meta_animator.models.backbones.frames import TEMPORAL, latent_frames
from meta_animator.models.backbones.tiny_vae import check_name
from meta_animator.sampling.windows import temporal_windows
from meta_animator.settings import DataConfig, LossConfig, ModelConfig, SampleConfig, TrainConfig


def check_family(
    stage: str, model: ModelConfig, data: DataConfig, loss: LossConfig, train: TrainConfig, sample: SampleConfig
) -> None:  # fmt: skip
    """Raises UserError for a setting that the family does not have, and for numbers of frames that it does not take."""
    if missing := [path for path in model.base_loras if not Path(path).exists()]:
        raise UserError(f"model.base_loras: {missing[0]}: no such file or folder")
    if model.backbone == "wan":
        _check_wan(stage, model, data, train, sample)
    else:
        _check_sd(stage, model, data, loss, train, sample)


def _check_sd(
    stage: str, model: ModelConfig, data: DataConfig, loss: LossConfig, train: TrainConfig, sample: SampleConfig
) -> None:  # fmt: skip
    if model.tiny_vae:
        check_name(model.tiny_vae)
    wan_only = {"model.flow_shift": model.flow_shift, "model.text_cache": model.text_cache}
    if stage != "sample":
        wan_only |= {"train.timestep_shift": train.timestep_shift != 1, "loss.image_latent_frames": loss.image_latent_frames}
    if stage in ("control", "reference"):
        wan_only["data.clip_frames"] = data.clip_frames > 1
    else:
        wan_only["model.motion_lora_rank"] = model.motion_lora_rank > 0
    if stage == "sample":
        wan_only["sample.references"] = sample.references > 0
    for key, there in wan_only.items():
        if there:
            raise UserError(f"{key}: is for model.backbone=wan; leave it out")
    together = {"data.num_frames": data.num_frames} if stage == "motion" else {}
    if stage == "sample" and model.motion_from:
        together["sample.window"] = sample.window
    for key, frames in together.items():
        if frames > (limit := model.motion_max_seq_length):
            raise UserError(f"{key}: {frames} is more than model.motion_max_seq_length, {limit}")


def _check_wan(stage: str, model: ModelConfig, data: DataConfig, train: TrainConfig, sample: SampleConfig) -> None:
    sd_only = {f"model.{name}=''": getattr(model, name) for name in ("beta_schedule", "tokenizer", "tiny_vae")}
    if stage in ("motion", "sample"):
        sd_only["model.motion_mid_block=false"] = model.motion_mid_block
    if stage == "motion":
        sd_only["train.shared_noise=0"] = train.shared_noise
    if stage == "sample":
        sd_only["sample.init_noise=random"] = sample.init_noise == "inversion"
        sd_only["sample.shared_noise=0"] = sample.shared_noise
        sd_only["sample.timestep_spacing=''"] = sample.timestep_spacing
    for right, wrong in sd_only.items():
        if wrong:
            raise UserError(f"{right.split('=')[0]}: is for model.backbone=sd; set {right}")
    if stage == "motion" and not (train.train_lora_in_motion or model.motion_lora_rank):
        raise UserError(
            "stage 1 has nothing to train: set train.train_lora_in_motion=true (the tasks' LoRAs on clips), "
            "model.motion_lora_rank (a LoRA on the base's self-attention), or both"
        )
    if stage in ("motion", "sample") and model.motion_from and not model.motion_lora_rank:
        raise UserError(f"model.motion_from: {model.motion_from} holds a LoRA; set model.motion_lora_rank to its rank")
    for key, count in _frames(stage, data, sample).items():
        try:
            latent_frames(max(1, count), _frames_per_latent(model))
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def _frames(stage: str, data: DataConfig, sample: SampleConfig) -> dict[str, int]:
    """The numbers of frames that a stage encodes together, by their settings."""
    if stage == "motion":
        return {"data.num_frames": data.num_frames}
    if stage == "sample":
        temporal_windows(sample.window, sample.window, sample.overlap)  # refuses an overlap that is none
        return {"sample.window": sample.window, "sample.window - sample.overlap": sample.window - sample.overlap}
    return {"data.clip_frames": data.clip_frames}


def _frames_per_latent(model: ModelConfig) -> int:
    file = Path(model.vae or Path(model.architecture or model.base) / "vae") / "config.json"
    return 2 ** sum(read_json(file).get("temperal_downsample", TEMPORAL) if file.is_file() else TEMPORAL)
