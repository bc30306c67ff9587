"""Training with poses that lack parts: how often, which, the same at every resume, and out of the cache as drawn."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch

from meta_animator.data import keypoints as kp
from meta_animator.data.pose_drop import PoseDrop, drop_parts
from meta_animator.data.tasks import Draw
from meta_animator.diffusion.randomness import rng
from meta_animator.errors import UserError
from tests import tiny
from tests.data.people import standing_person

PERSON = standing_person(512, 512)


def parts_lost(random: np.random.Generator, points: np.ndarray = PERSON) -> frozenset[str]:
    gone = (points[:, 2] > 0) & (drop_parts(points, random)[:, 2] == 0)
    names = {"dots": kp.FACE, "ears": slice(3, 5), "nose": slice(0, 1), "left hand": kp.LEFT_HAND, "right hand": kp.RIGHT_HAND}
    names |= {"arm": slice(7, 11), "leg": slice(13, 17)}
    return frozenset(name for name, where in names.items() if gone[where].any())


def test_face_hands_and_limbs_are_lost_alone_and_together():
    lost = Counter(parts_lost(rng(0, "test", k)) for k in range(2000))
    share = {name: sum(n for some, n in lost.items() if name in some) / 2000 for name in frozenset().union(*lost)}
    assert 0.5 < share["dots"] < 0.75 and share["nose"] < share["ears"] < share["dots"]
    for side in ("left hand", "right hand"):
        assert 0.3 < share[side] < 0.6
    assert 0.1 < share["arm"] < 0.4 and 0.1 < share["leg"] < 0.4
    for alone in ({"dots"}, {"left hand"}, {"right hand"}, {"leg"}, {"left hand", "right hand"}):
        assert lost[frozenset(alone)] > 10, alone


def test_what_stays_is_untouched_and_something_that_was_seen_is_always_lost():
    face = PERSON.copy()
    face[[*range(5, 23), *range(91, 133)], 2] = 0  # nothing but a head
    for k in range(200):
        for points in (PERSON, face):
            left = drop_parts(points, rng(0, "test", k))
            assert (left[:, 2] < points[:, 2]).any() and np.array_equal(left[:, :2], points[:, :2])
            assert np.isin(left[:, 2], [0, np.float32(0.9)]).all()
            assert (left[[5, 6, 11, 12], 2] == points[[5, 6, 11, 12], 2]).all(), "a person has shoulders and hips"


def pictures(samples, task: str, count: int = 60) -> torch.Tensor:
    """What samples without a cache show of frame 2 of the first clip, drawn `count` times."""
    return torch.stack([samples[Draw(k, task, 2)]["control_pixels"] for k in range(count)])


@pytest.mark.parametrize("variants", [0, 1, 3])
def test_a_stated_share_of_poses_lacks_parts_and_nothing_else_does(make_config, variants):
    config = make_config(data__pose_drop=0.4, data__pose_variants=variants, data__cache_latents=False)
    _, samples, _ = tiny.make_stage(config)
    _, whole, _ = tiny.make_stage(make_config(data__cache_latents=False))
    poses, wholes = pictures(samples, "dwpose"), pictures(whole, "dwpose", 1)
    lacking = (poses != wholes).flatten(1).any(1)
    assert 0.2 < lacking.float().mean() < 0.6
    assert (poses[lacking] > -0.5).sum() < (wholes > -0.5).sum() * lacking.sum(), "less is drawn"
    kinds = len({one.numpy().tobytes() for one in poses[lacking]})
    assert kinds > 3 if variants == 0 else kinds <= variants
    assert torch.equal(poses, pictures(samples, "dwpose")), "a function of the draw's number"
    assert torch.equal(pictures(samples, "blurred", 8), pictures(whole, "blurred", 1).expand(8, -1, -1, -1, -1))
    assert all(samples[Draw(k, "dwpose", 2)]["face_visible"] == whole[Draw(k, "dwpose", 2)]["face_visible"] for k in range(8))


def test_off_nothing_is_lost(make_config):
    _, samples, _ = tiny.make_stage(make_config(data__cache_latents=False))
    poses = pictures(samples, "dwpose")
    assert (poses == poses[:1]).all()


def test_frames_lack_different_parts_and_a_clip_of_stage_1_the_same(make_config, prepared):
    changes = {"data__pose_drop": 1.0, "data__cache_latents": False}
    _, frames, _ = tiny.make_stage(make_config(**changes))
    _, clips, _ = tiny.make_stage(make_config("motion", model__control_from=prepared, model__tasks="[dwpose]", **changes))
    draw = Draw(0, "dwpose", 0)
    asked = {clips: [], frames: []}
    for samples, seen in asked.items():
        drop, points = samples._drop(samples.clips[0], draw), samples.clips[0].load_keypoints(0)
        seen += [tuple(drop.apply(points, k)[:, 2] > 0) for k in range(4)]
    assert len(set(asked[clips])) == 1 and len(set(asked[frames])) > 1


def test_a_clip_lacks_the_same_parts_where_a_frame_shows_fewer_of_them():
    turned = PERSON.copy()
    turned[[*range(kp.FACE.start, kp.FACE.stop), *range(91, 133), kp.NOSE], 2] = 0  # seen from behind, hands before the body
    for k in range(100):
        drop = PoseDrop(0, f"clip {k}", per_frame=False)
        stays, fewer = (drop.apply(points, 0)[:, 2] > 0 for points in (PERSON, turned))
        assert np.array_equal(fewer, stays & (turned[:, 2] > 0)) and not np.array_equal(stays, PERSON[:, 2] > 0)


@pytest.mark.parametrize("stage", ["control", "motion"])
def test_cached_poses_lack_what_drawn_ones_lack(make_config, prepared, stage):
    changes = {"data__pose_drop": 0.5, "data__pose_variants": 2, "data__cache_precision": "fp32"}
    changes |= {"model__control_from": prepared} if stage == "motion" else {}
    trained, cached, _ = tiny.make_stage(make_config(stage, **changes))
    _, drawn, _ = tiny.make_stage(make_config(stage, **{**changes, "data__cache_latents": False}))
    for number in range(12):
        draw = Draw(number, "dwpose", number % len(cached))
        pixels = drawn[draw]["control_pixels"]
        with torch.no_grad():
            latents = trained.models.backbone.encode_condition(pixels if pixels.ndim == 4 else pixels[None])
        torch.testing.assert_close(cached[draw]["control_latents"], latents.view_as(cached[draw]["control_latents"]))


def test_the_cache_holds_the_drawings_that_can_be_drawn_and_no_others(make_config):
    _, samples, _ = tiny.make_stage(make_config(data__pose_drop=0.5, data__pose_variants=2))
    part = samples.cache.parts[0]
    part = dataclasses.replace(part, path=part.path.with_name("none.safetensors"))
    assert Counter(view.name for view in samples.cache.missing(part)) == {"frame": 1, "dwpose": 3, "seg": 1, "blurred": 1}


def test_a_new_drawing_at_every_draw_cannot_be_cached(make_config):
    with pytest.raises(UserError, match=r"data.cache_latents: cannot hold poses that lack .*set data.pose_variants to a number"):
        tiny.make_stage(make_config(data__pose_drop=0.5, data__pose_variants=0))
