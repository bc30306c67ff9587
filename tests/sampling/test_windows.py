"""Overlapping windows, and frames in batches."""

import dataclasses
import itertools

import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.models.backbones import load_backbone
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.sharing import Shares
from meta_animator.sampling.windows import predict_in_windows, temporal_windows, window_weights
from tests import tiny

CASES = [(5, 8, 2), (8, 8, 2), (9, 8, 2), (40, 8, 4), (41, 8, 0), (23, 6, 5), (100, 16, 4), (17, 16, 15), (7, 1, 0)]


@pytest.mark.parametrize(("frames", "window", "overlap"), CASES)
def test_windows_cover_the_clip_and_weights_sum_to_1(frames, window, overlap):
    windows = temporal_windows(frames, window, overlap)
    assert windows[0][0] == 0 and windows[-1][1] == frames
    assert {stop - start for start, stop in windows} == {min(window, frames)}
    for (start, stop), (next_start, next_stop) in itertools.pairwise(windows):
        assert start < next_start <= stop - overlap and stop < next_stop
    weights = window_weights(frames, windows, overlap)
    assert weights.shape == (len(windows), frames) and (weights >= 0).all()
    torch.testing.assert_close(weights.sum(0), torch.ones(frames, dtype=torch.float64), rtol=0, atol=1e-12)
    for (start, stop), row in zip(windows, weights, strict=True):
        assert not row[:start].any() and not row[stop:].any() and (row[start:stop] > 0).all()


@pytest.mark.parametrize(("window", "overlap"), [(4, 4), (4, 5), (4, -1)])
def test_an_overlap_that_does_not_fit_is_refused(window, overlap):
    with pytest.raises(UserError, match=r"sample.overlap: .* less than sample.window \(4\)"):
        temporal_windows(10, window, overlap)


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_a_clip_that_fits_one_window_is_exact(frames):
    x_t, seen = torch.randn(2, frames, 3, 2, 2), []

    def predict(x, part):
        seen.append((x, part))
        return x.sin()

    windows = temporal_windows(frames, 8, 2)
    answer = predict_in_windows(predict, x_t, windows, window_weights(frames, windows, 2))
    assert torch.equal(answer, x_t.sin())
    assert len(seen) == 1 and torch.equal(seen[0][0], x_t) and seen[0][1] == slice(0, frames)


@pytest.mark.parametrize(("frames", "window", "overlap"), CASES)
def test_windows_that_agree_change_nothing(frames, window, overlap):
    x_t = torch.randn(1, frames, 2, 2, 2)
    windows = temporal_windows(frames, window, overlap)
    answer = predict_in_windows(lambda x, _: 3 * x, x_t, windows, window_weights(frames, windows, overlap))
    torch.testing.assert_close(answer, 3 * x_t, rtol=0, atol=1e-5)


def test_the_seam_of_windows_that_disagree_is_a_slope():
    """Windows that predict their own number: no step is larger than 1 / (overlap + 1)."""
    windows = temporal_windows(28, 12, 4)
    x_t, numbers = torch.zeros(1, 28, 1, 1, 1, dtype=torch.float64), {start: float(k) for k, (start, _) in enumerate(windows)}
    answer = predict_in_windows(
        lambda x, part: torch.full_like(x, numbers[part.start]), x_t, windows, window_weights(28, windows, 4)
    )  # fmt: skip
    steps = answer.flatten().diff()
    assert answer[0, 0] == 0 and answer[0, -1] == len(windows) - 1 > 1
    assert steps.min() > -1e-12 and steps.max() <= 1 / 5 + 1e-12


def test_every_window_sees_the_photos_before_the_clip():
    """They are at the front of each part; what is predicted of them is the mean, and of the clip what it would be without."""
    windows, x_t, seen = temporal_windows(10, 4, 1), torch.randn(1, 12, 2, 1, 1, dtype=torch.float64), []
    weights = window_weights(10, windows, 1)

    def predict(x, places):
        seen.append(places.tolist())
        assert torch.equal(x, x_t[:, places])
        return x + len(seen)

    answer = predict_in_windows(predict, x_t, windows, weights, references=2)
    assert len(windows) > 2 and seen == [[0, 1, *range(2 + start, 2 + stop)] for start, stop in windows]
    mean = (len(windows) + 1) / 2
    torch.testing.assert_close(answer[:, :2], x_t[:, :2] + mean)
    counts = iter(range(1, len(windows) + 1))
    torch.testing.assert_close(
        answer[:, 2:], predict_in_windows(lambda x, _: x + next(counts), x_t[:, 2:], windows, weights)
    )  # fmt: skip


@pytest.fixture(scope="module")
def scene(tiny_base):
    """A backbone with motion, a control network of random weights, and inputs of two clips of five frames."""
    from meta_animator.settings import ModelConfig

    torch.manual_seed(0)
    backbone = load_backbone(ModelConfig(base=str(tiny_base)))
    control = tiny.randomise_zeros(backbone.make_control(tiny.TASKS, 4))
    tiny.randomise_zeros(backbone.with_motion(8))
    x_t = torch.randn(2, 5, 4, 8, 8)
    conditions = {task: torch.randn_like(x_t) for task in tiny.TASKS}
    return backbone, control, x_t, torch.tensor([40, 700]), torch.randn(2, 2, 6, 16), conditions


def denoiser(backbone, control, conditions, texts, tasks, **options):
    latents = {task: conditions[task] for task in tasks}
    context, null = texts
    return Denoiser(
        backbone=backbone, control=control, tasks=tasks, control_latents=latents, context=context, null_context=null, **options
    )


GUIDES = {
    "one task": {"tasks": {"dwpose": 1.0}},
    "guided": {"tasks": {"dwpose": 1.0}, "guidance_scale": 7.5},
    "two tasks": {"tasks": {"dwpose": 0.5, "seg": 1.5}, "guidance_scale": 2.0, "controlnet_conditioning_scale": 0.8},
    "weighted LoRAs": {"tasks": {"dwpose": 1.0}, "loras": {"seg": 0.3, "blurred": 0.7}},
}


@pytest.mark.parametrize("name", GUIDES)
def test_batched_frames_equal_frames_one_by_one(scene, name):
    backbone, control, x_t, t, (context, null), conditions = scene
    folded = {task: c.flatten(0, 1)[:, None] for task, c in conditions.items()}
    texts = (context.repeat_interleave(5, 0), null.repeat_interleave(5, 0))
    with torch.no_grad():
        denoise = denoiser(backbone, control, folded, texts, **GUIDES[name])
        together = denoise(x_t.flatten(0, 1)[:, None], t.repeat_interleave(5)).unflatten(0, (2, 5))[:, :, 0]
        for clip in range(2):
            for k in range(5):
                one = {task: c[clip : clip + 1, k : k + 1] for task, c in conditions.items()}
                place = slice(clip, clip + 1)
                alone = denoiser(backbone, control, one, (context[place], null[place]), **GUIDES[name])
                torch.testing.assert_close(together[place, k], alone(x_t[place, k : k + 1], t[place])[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GUIDES)
def test_batched_clips_equal_clips_one_by_one(scene, name):
    backbone, control, x_t, t, (context, null), conditions = scene
    with torch.no_grad():
        together = denoiser(backbone, control, conditions, (context, null), **GUIDES[name])(x_t, t)
        for k in range(2):
            place = slice(k, k + 1)
            one = {task: c[place] for task, c in conditions.items()}
            alone = denoiser(backbone, control, one, (context[place], null[place]), **GUIDES[name])(x_t[place], t[place])
            torch.testing.assert_close(together[place], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", GUIDES)
@torch.no_grad()
def test_control_sees_each_frame_once_and_gives_every_window_what_it_needs(scene, name, monkeypatch):
    backbone, control, x_t, t, texts, conditions = scene
    seen = []
    forward = type(control).forward
    monkeypatch.setattr(type(control), "forward", lambda self, x, *more: seen.append(x.shape[1]) or forward(self, x, *more))
    denoise = denoiser(backbone, control, conditions, texts, window=3, overlap=2, **GUIDES[name])
    shared = denoise(x_t, t)
    branches = len(GUIDES[name]["tasks"]) * (2 if "guidance_scale" in GUIDES[name] else 1)
    assert sum(seen) == 5 * branches, "three windows, and five frames"
    monkeypatch.setattr(type(control), "sees_noise", True)
    torch.testing.assert_close(shared, denoise(x_t, t), rtol=1e-5, atol=1e-5)


def test_frames_of_a_clip_see_each_other(scene):
    backbone, control, x_t, t, (context, null), conditions = scene
    with torch.no_grad():
        clip = denoiser(backbone, control, conditions, (context, null), **GUIDES["one task"])(x_t, t)
        first = {name: latents[:, :3] for name, latents in conditions.items()}
        shorter = denoiser(backbone, control, first, (context, null), **GUIDES["one task"])(x_t[:, :3], t)
    assert not torch.allclose(clip[:, :3], shorter, atol=1e-4)


def test_guidance_is_equation_6_and_the_unguided_branch_keeps_the_pose(scene):
    backbone, control, x_t, t, (context, null), conditions = scene
    plain = denoiser(backbone, control, conditions, (context, null), tasks={"dwpose": 1.0})
    with torch.no_grad():
        conditional = plain(x_t, t)
        unconditional = dataclasses.replace(plain, context=null)(x_t, t)
        answer = dataclasses.replace(plain, guidance_scale=3.0)(x_t, t)
    torch.testing.assert_close(answer, unconditional + 3 * (conditional - unconditional), rtol=1e-5, atol=1e-5)


def test_control_strength_scales_the_residuals(scene):
    backbone, control, x_t, t, (context, null), conditions = scene
    answers = {}
    with torch.no_grad():
        for scale in (0.0, 0.5, 1.0):
            scaled = {"tasks": {"dwpose": 1.0}, "controlnet_conditioning_scale": scale}
            answers[scale] = denoiser(backbone, control, conditions, (context, null), **scaled)(x_t, t)
        torch.testing.assert_close(answers[0.0], backbone.predict(x_t, t, context), rtol=0, atol=1e-6)
    assert not torch.allclose(answers[0.5], answers[1.0], atol=1e-3)


class Rank(Shares):
    """One of several processes, without any: what it would send is kept."""

    def total(self, part):
        return part


@pytest.mark.parametrize(("count", "ranks"), [(7, 1), (7, 2), (7, 3), (2, 3), (8, 4)])
def test_processes_share_the_windows_among_them(count, ranks):
    shares = [Rank(rank, ranks).own(count) for rank in range(ranks)]
    assert [number for share in shares for number in share] == list(range(count)), "neighbours stay together"
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("references", [0, 2])
def test_the_sum_of_the_processes_is_the_prediction_of_one(references):
    windows = temporal_windows(11, 4, 2)
    weights, x_t = window_weights(11, windows, 2), torch.randn(1, references + 11, 2, 3, 3)
    seen = []

    def predict(part, places):
        seen.append(places)
        return part * 2 + part.mean()

    whole = predict_in_windows(predict, x_t, windows, weights, references)
    count = len(seen)
    parts = [predict_in_windows(predict, x_t, windows, weights, references, Rank(rank, 3)) for rank in range(3)]
    torch.testing.assert_close(sum(parts), whole)
    assert len(seen) == 2 * count == 2 * len(windows), "each window once"
