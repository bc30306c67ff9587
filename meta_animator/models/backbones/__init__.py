"""The registry of base models."""

from meta_animator.models.backbones.base import Backbone
from meta_animator.settings import ModelConfig


def load_backbone(config: ModelConfig) -> Backbone:
    """The base model named by `config.backbone`, frozen, in float32 on the CPU. Raises UserError where it is incomplete."""
    from meta_animator.models.backbones.sd import StableDiffusion

    return {"sd": StableDiffusion.load}[config.backbone](config)


def backbone_without_weights(config: ModelConfig) -> Backbone:
    """The same on the meta device, from its config files alone: for counting."""
    from meta_animator.models.backbones.sd import StableDiffusion

    return {"sd": StableDiffusion.without_weights}[config.backbone](config)
