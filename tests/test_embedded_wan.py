"""The embedded Wan that is shipped: does it show puppets, do its words and poses count, and is it a pipeline of diffusers'?"""

from pathlib import Path

import pytest
from diffusers import WanVACEPipeline

from meta_animator.models.backbones import load_backbone
from meta_animator.puppets.base.wan_judge import judge_wan, judge_wan_vae
from meta_animator.puppets.dataset import describe
from meta_animator.settings import ModelConfig

BASE = Path(__file__).parent.parent / "assets" / "base_wan"


def test_its_files_stay_within_their_budget():
    assert sum(file.stat().st_size for file in BASE.rglob("*") if file.is_file()) <= 14e6


def test_its_vae_shows_people_whom_it_has_not_seen():
    numbers, _ = judge_wan_vae(BASE, people=4, shown=0)
    assert numbers["photo"] > 23 and numbers["later frames"] > 22 and numbers["later frames person"] > 18.5


@pytest.mark.timeout(300)
def test_it_makes_whom_the_words_say_in_the_pose_that_is_shown():
    numbers, _ = judge_wan(BASE, people=4, shown=1, steps=6)
    assert numbers["posed person"] > max(12.5, numbers["shuffled person"] + 0.8)


def test_diffusers_loads_it_and_its_prompts_fit():
    pipeline = WanVACEPipeline.from_pretrained(BASE)
    assert (pipeline.vae_scale_factor_spatial, pipeline.vae_scale_factor_temporal) == (8, 4)
    backbone = load_backbone(ModelConfig(backbone="wan", base=str(BASE)))
    assert backbone.brings_control(BASE) and all(backbone.fits(describe(seed)) for seed in (0, 999, 1_000_700))
