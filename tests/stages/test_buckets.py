"""Aspect buckets: batches of one size each, stage 2 and stage 3 with photos of other shapes than the config's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from meta_animator.data.writer import DatasetWriter
from meta_animator.errors import UserError
from meta_animator.media.images import read_image
from meta_animator.puppets.rendering.render import render_clip
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train
from tests import tiny
from tests.stages.test_resume import same_runs

TALL, WIDE = (96, 64), (48, 88)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    """<folder>/train: a square, a tall and a wide clip of three people; <folder>/person: five tall photos, one wide."""
    folder = tmp_path_factory.mktemp("shapes")
    with DatasetWriter(folder / "train") as writer:
        for person, size in enumerate([(64, 64), TALL, WIDE]):
            writer.add(id=f"p{person}", identity=f"p{person}", layers=render_clip(person, person, 4, 12, size), fps=12)
    with DatasetWriter(folder / "person") as writer:
        for k, size in enumerate([TALL] * 5 + [WIDE]):
            (layers,) = render_clip(9, 9 + k, 1, 12, size)
            writer.add(id=f"photo-{k}", identity="anna", layers=[layers], fps=1, kind="photo")
    return folder


@pytest.mark.parametrize("stage", ["control", "motion", "reference"])
def test_training_in_buckets_stops_and_resumes_as_ever(make_config, prepared, shapes, stage):
    """Latents come from the cache, faces weigh more, images count: all of them at each batch's own size."""
    settings = {
        "data__train": f"[{shapes / ('person' if stage == 'reference' else 'train')}]", "data__aspect_buckets": 8,
        "train__gradient_accumulation_steps": 2, "train__ema_decay": 0.9, "loss__face_region_weight": 3.0,
        "loss__image_weight": 0.1 if stage == "reference" else 0.0, "train__batch_size": 1, "train__checkpoint_every": 2,
    }  # fmt: skip
    settings |= {"data__auxiliary": f"[{shapes / 'train'}]"} if stage == "reference" else {}
    settings |= {"model__control_from": prepared} if stage != "control" else {}
    whole = make_config(stage, "whole", train__max_steps=4, train__preview_every=4, train__measure_every=0, **settings)
    train(whole)
    for last in (2, 4):
        train(make_config(stage, "parts", train__max_steps=last, **settings))
    same_runs(whole.output_dir, Path(whole.output_dir).with_name("parts"))
    _, samples, plan = tiny.make_stage(whole)
    seen = {tuple(batch.latents.shape[-2:]) for batch in tiny.batches(whole, samples, plan)(0, 12)}
    assert {(18, 14)} < seen <= {(16, 16), (18, 14), (12, 22)}


def test_cached_latents_are_of_the_clip_s_own_bucket(make_config, shapes, capsys):
    more = {"data__aspect_buckets": 8, "data__cache_precision": "fp32"}
    module, samples, _ = tiny.make_stage(make_config(data__train=f"[{shapes / 'train'}]", **more))
    assert "note: of 3 clips and photos, 1 at 64x64, 1 at 56x72, 1 at 88x48 (width x height)" in capsys.readouterr().out
    for index, size in ((0, (64, 64)), (4, (72, 56)), (8, WIDE)):
        pixels = tiny.collate([samples[tiny.Draw(0, "dwpose", index)]])
        assert pixels.pixels.shape[-2:] == size
        torch.testing.assert_close(pixels.latents, module.models.backbone.encode(pixels.pixels), rtol=0, atol=1e-5)


def test_stage_3_takes_the_bucket_of_the_photo_and_says_so(make_config, prepared, puppet_data, shapes, capsys):
    config = make_config(
        "sample", model__control_from=prepared, sample__reference=shapes / "person", sample__driving=puppet_data / "train",
        sample__num_inference_steps=2, sample__identity="p0", sample__max_frames=2, data__aspect_buckets=8,
    )  # fmt: skip
    sample(config)
    assert "note: frames are 56x72, the bucket of" in capsys.readouterr().out
    assert read_image(Path(config.output_dir) / "frames" / "000000.png").shape == (72, 56, 3)
    assert np.array_equal(read_image(Path(config.output_dir) / "driving" / "000001.png").shape, (72, 56, 3))


def test_buckets_must_suit_the_base(make_config):
    with pytest.raises(UserError, match=r"data\.aspect_buckets: 12 is not divisible by 8, the base's factor"):
        tiny.make_stage(make_config(data__aspect_buckets=12))
