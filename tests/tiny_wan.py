"""A random Wan model small enough to build in a second, as diffusers saves one."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanTransformer3DModel, WanVACEPipeline, WanVACETransformer3DModel

from meta_animator.puppets.dataset import describe
from meta_animator.settings import ModelConfig, RunConfig
from tests.tiny import make_config

LATENT_CHANNELS, TEXT_WIDTH, TOKENS, IDENTIFIERS = 4, 16, 24, 12
SHAPE = {
    "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": LATENT_CHANNELS, "out_channels": LATENT_CHANNELS,
    "text_dim": TEXT_WIDTH, "freq_dim": 16, "ffn_dim": 32, "num_layers": 3,
}  # fmt: skip
BRANCH = {"vace_layers": [0, 2], "vace_in_channels": 2 * LATENT_CHANNELS + 64}


def make_wan(folder: Path, seed: int = 0, vace: bool = True) -> Path:
    """A random model in `folder`: a VACE model whose branch adds something, or a T2V model without one."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = make_tokenizer()
        text = UMT5Config(
            vocab_size=len(tokenizer), d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2, pad_token_id=0,
            eos_token_id=1,
        )  # fmt: skip
        pipeline = WanVACEPipeline(
            tokenizer=tokenizer, text_encoder=UMT5EncoderModel(text).eval(), vae=tiny_vae(),
            scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
            transformer=WanVACETransformer3DModel(**SHAPE, **BRANCH) if vace else WanTransformer3DModel(**SHAPE),
        )  # fmt: skip
        pipeline.save_pretrained(folder)
    return folder


def tiny_vae(**changes: Any) -> AutoencoderKLWan:
    """Three levels: 8 x in space, 4 x in time; every channel has a mean and a deviation of its own."""
    statistics = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.5, 2.0, 0.8]}
    shape = {"base_dim": 4, "z_dim": LATENT_CHANNELS, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1, **statistics}
    return AutoencoderKLWan(**(shape | changes)).eval().requires_grad_(False)


def make_tokenizer() -> Any:
    """A SentencePiece-like tokenizer of words, with identifiers as tokens of their own."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in [*map(describe, range(3)), "Person looks like"] for word in text.lower().split()})
    vocabulary = ["<pad>", "</s>", "<unk>", *(f"▁{word}" for word in words)]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_tokens([AddedToken(f"<id{k:03d}>") for k in range(IDENTIFIERS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TOKENS
    )


def wan_model(folder: Path, **changes: Any) -> ModelConfig:
    return ModelConfig(backbone="wan", base=str(folder), lora_rank=2, tasks=["dwpose", "depth"], **changes)


def wan_config(folder: Path, wan: Path, data: Path, stage: str, **overrides: Any) -> RunConfig:
    """A config of two steps on clips of five frames; stages start from those whose folders are beside theirs, `<prefix>control`,
    `<prefix>motion` and `<prefix>reference`, as `tiny.make_config` spells its overrides."""
    beside = {name: folder.with_name(folder.name.replace(stage, name)) for name in ("control", "motion", "reference")}
    values = {
        "model__backbone": "wan", "model__text_cache": folder.parent / "text", "model__motion_lora_rank": 0,
        "train__max_steps": 2, "model__face": "", "data__cache_dir": folder.parent / "cache",
    }  # fmt: skip
    values |= {
        "control": {"data__clip_frames": 5, "loss__image_latent_frames": 1},
        "motion": {
            "data__num_frames": 5, "train__train_lora_in_motion": True, "model__motion_lora_rank": 2,
            "model__control_from": beside["control"],
        },
        "reference": {"data__clip_frames": 5, "model__control_from": beside["motion"], "train__trainable": "lora"},
        "sample": {
            "model__control_from": beside["reference"], "model__motion_from": beside["motion"], "model__motion_lora_rank": 2,
            "sample__reference": data / "person", "sample__driving": data / "train", "sample__references": 2,
            "sample__init_noise": "random", "sample__shared_noise": 0, "sample__window": 5, "sample__overlap": 0,
            "sample__num_inference_steps": 2, "sample__sampler": "unipc", "sample__fit_pose": "limbs",
        },
    }[stage]  # fmt: skip
    return make_config(folder, wan, data, stage, **(values | overrides))
