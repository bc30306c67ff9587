"""The registry of base models."""

from typing import Any

from meta_animator.models.backbones.base import Backbone
from meta_animator.settings import ModelConfig


def load_backbone(config: ModelConfig) -> Backbone:
    """The base model named by `config.backbone`, frozen, in float32 on the CPU. Raises UserError where it is incomplete."""
    return family(config.backbone).load(config)


def backbone_without_weights(config: ModelConfig) -> Backbone:
    """The same on the meta device, from its config files alone: for counting."""
    return family(config.backbone).without_weights(config)


def family(name: str) -> Any:
    """The class of the bases of a family, `model.backbone`; no other is imported."""
    if name == "wan":
        from meta_animator.models.backbones.wan import Wan

        return Wan
    from meta_animator.models.backbones.sd import StableDiffusion

    return StableDiffusion
