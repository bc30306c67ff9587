"""The cache of latents: what is encoded anew and what stays, by whom, and what an interruption leaves."""

import copy
import os
import signal
from collections import Counter
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from meta_animator.data.clips import Clip
from meta_animator.data.conditions import image
from meta_animator.data.latents import FRAME, LatentCache, View, name_of
from meta_animator.data.manifest import read_manifest
from meta_animator.data.samples import SampleSet
from meta_animator.errors import Stopped, UserError
from meta_animator.models.backbones.sd import StableDiffusion
from meta_animator.stages import cache as filling
from meta_animator.stages.data import make_plan, with_cached_latents
from tests import tiny

NAMES = {FRAME, *tiny.TASKS}


def singly(count: int) -> list[tuple[int]]:
    """Each of the first frames by itself."""
    return [(frame,) for frame in range(count)]


@pytest.fixture
def encoded(monkeypatch) -> Counter:
    """How many images of each name were encoded; `encoded.clear()` starts again."""
    count, real = Counter(), filling.encode

    def encode(config, models, view, pictures, part):
        count[view.name] += len(pictures)
        return real(config, models, view, pictures, part)

    monkeypatch.setattr(filling, "encode", encode)
    return count


@pytest.fixture(scope="module")
def models(tiny_base, puppet_data, tmp_path_factory):
    config = tiny.make_config(tmp_path_factory.mktemp("models"), tiny_base, puppet_data)
    return tiny.make_models(config.model)


@pytest.fixture
def fill(make_config, models):
    """fill(wanted, **changes of the config) -> the filled cache of the four puppets of the train set."""

    def fill(wanted=None, **changes) -> LatentCache:
        config = make_config(**changes)
        kept = [(clip, singly(clip.num_frames)) for clip in read_manifest(config.data.train[0])]
        folder = Path(config.output_dir) / "cache"
        networks = SimpleNamespace(config=config.model, backbone=models.backbone)
        return filling.make_cache(
            config.data, networks, kept, config.model.tasks, Accelerator(cpu=True), folder=folder, seed=config.seed, wanted=wanted
        )

    return fill


def latents(cache: LatentCache, task: str = "blurred", crop: int = 0) -> torch.Tensor:
    return cache.read(cache.kept[0][0], task, [0, 1, 2, 3], crop)


def test_only_what_has_changed_is_encoded_anew(fill, encoded, monkeypatch):
    first = latents(fill(model__tasks="[dwpose,blurred]"))
    assert encoded == dict.fromkeys([FRAME, "dwpose", "blurred"], 16)
    encoded.clear()
    fill()
    assert encoded == {"seg": 16}, "another task"
    encoded.clear()
    monkeypatch.setattr(image, "BLUR_SIGMA", 0.3)
    assert not torch.allclose(latents(fill()), first, atol=0.01)
    assert encoded == {"blurred": 16}, "another way of drawing"
    encoded.clear()
    monkeypatch.setattr(filling, "crop_of", lambda clip, *_: (0, 0, 40, 40) if clip.id == "p2" else (0, 0, tiny.SIZE, tiny.SIZE))
    fill()
    assert encoded == dict.fromkeys(NAMES, 4), "another crop of one clip"
    encoded.clear()
    monkeypatch.undo()
    torch.testing.assert_close(latents(fill()), first, rtol=0, atol=0)
    assert not encoded


def test_what_is_not_wanted_is_not_encoded_until_it_is(fill, encoded):
    clip = fill(name="whole").kept[0][0]
    whole = latents(fill(name="whole"))
    encoded.clear()
    of_it = (*name_of(clip), "blurred", 0, 0)
    some = fill({of_it: {(3,), (1,)}})
    assert encoded == {"blurred": 2}
    assert torch.equal(some.read(clip, "blurred", [1, 3]), whole[[1, 3]])
    with pytest.raises(UserError, match="no cached latents any more"):
        some.read(clip, "blurred", [2])
    encoded.clear()
    more = fill({of_it: {(0,), (1,)}, (*name_of(clip), "seg", 0, 0): {(2,)}})
    assert encoded == {"blurred": 1, "seg": 1}
    assert torch.equal(more.read(clip, "blurred", [0, 1, 3]), whole[[0, 1, 3]]), "what was there stays"
    encoded.clear()
    assert torch.equal(latents(fill()), whole)
    assert encoded == {FRAME: 16, "dwpose": 16, "seg": 15, "blurred": 13}


@pytest.mark.parametrize("num_frames", [None, 2])
def test_a_short_run_encodes_what_it_draws_alone_and_a_longer_one_the_rest(make_config, models, encoded, num_frames):
    config = make_config(data__random_crop=0.5, data__crops=2, data__pose_drop=0.5)
    samples = SampleSet(read_manifest(config.data.train[0]), config.data, seed=1, identifiers={}, num_frames=num_frames)
    plan = make_plan(samples, config.model.tasks, config.train, 1)

    def cached(steps: int) -> SampleSet:
        return with_cached_latents(
            samples, plan, SimpleNamespace(config=config.model, backbone=models.backbone), Accelerator(cpu=True),
            run_folder=config.output_dir, sees_pixels=None, steps=steps,
        )  # fmt: skip

    def drawn(steps: int) -> list:
        return [draw for batch in plan.batches(0, steps) for draw in batch]

    short = cached(2)
    pictures = sum(len(units) for units in samples.wanted(drawn(2), together=False).values())
    assert encoded.total() == pictures <= 2 * len(drawn(2)) * (num_frames or 1)
    taken = [short[draw] for draw in drawn(2)]
    encoded.clear()
    longer = cached(9)
    assert 0 < encoded.total() <= 2 * len(drawn(9)[len(taken) :]) * (num_frames or 1)
    taken += [longer[draw] for draw in drawn(9)[len(taken) :]]
    every = cached(10_000)
    assert len(every.cache.missing(every.cache.parts[0])) == 0 and every.cache.wanted is None
    for draw, item in zip(drawn(9), taken, strict=True):
        assert torch.equal(item["latents"], every[draw]["latents"])
        assert torch.equal(item["control_latents"], every[draw]["control_latents"])


def test_the_cache_is_another_with_another_encoder_not_with_another_decoder(make_config):
    backbone = tiny.make_models(make_config().model).backbone
    before = backbone.encoder_fingerprint()
    with torch.no_grad():
        for part in (backbone.vae.decoder, backbone.vae.post_quant_conv):
            [p.add_(1) for p in part.parameters()]
        assert backbone.encoder_fingerprint() == before
        [p.add_(1) for p in backbone.vae.quant_conv.parameters()]
    assert backbone.encoder_fingerprint() != before


@pytest.mark.parametrize("workers", [0, 2])
def test_each_frame_is_read_once_for_all_tasks_and_crops(fill, monkeypatch, tmp_path, workers):
    real = Clip.load

    def load(self, index, *names):
        with (tmp_path / "reads").open("a") as file:
            file.write(f"{self.id} {index}\n")
        return real(self, index, *names)

    monkeypatch.setattr(Clip, "load", load)
    fill(data__random_crop=0.5, data__crops=3, data__num_workers=workers)
    assert Counter((tmp_path / "reads").read_text().splitlines()) == {f"p{p} {k}": 1 for p in range(4) for k in range(4)}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_filling_at_once_and_whole_files_stay(fill, encoded, monkeypatch, workers, number):
    counting = filling.encode

    def interrupted(*arguments):
        if encoded.total() >= 40:
            os.kill(os.getpid(), number)
        return counting(*arguments)

    monkeypatch.setattr(filling, "encode", interrupted)
    with pytest.raises(Stopped, match=f"{number.name} while latents were encoded; .*the same command continues") as stopped:
        fill(data__num_workers=workers)
    assert stopped.value.signal_number == number and encoded.total() == 40
    before = Counter(encoded)
    monkeypatch.setattr(filling, "encode", counting)
    cache = fill()
    assert 64 < encoded.total() <= 64 + 2 * 16, "what was not in a whole file is encoded again, at most a clip per worker"
    assert encoded != before and not cache.missing(cache.parts[0])
    assert not list(cache.folder.glob("*.part*"))


def test_processes_share_the_frames_out(make_config):
    config = make_config()
    clips = read_manifest(config.data.train[0])
    kept = [(clips[0], singly(300)), (clips[1], singly(9)), (clips[2], singly(90))]
    cache = LatentCache(config.output_dir / filling.Path("cache"), {}, kept, [], None)
    shares = [cache.share(rank, 3) for rank in range(3)]
    assert Counter(part for share in shares for part in share) == Counter(cache.parts), "each part once"
    loads = [sum(part.num_frames for part in share) for share in shares]
    assert sum(loads) == 399 and max(loads) - min(loads) <= 64 and max(part.num_frames for part in cache.parts) == 64


def _add(cache: LatentCache, names: list[str]) -> None:
    for name in names:
        cache.add(cache.parts[0], {cache.view(None, name, 0, 0): (range(4), torch.full((4, 1, 2, 2), float(name)))})


def _view(clip, name: str, crop: int, drop: int) -> View:
    return View(name, (0, 0, 1, 1), (8, 8))


def test_two_processes_add_to_one_file_without_loss(make_config, tmp_path):
    clip = read_manifest(make_config().data.train[0])[0]
    cache = LatentCache(tmp_path, {}, [(clip, singly(4))], [], _view)
    names = [str(k) for k in range(40)]
    started = [get_context("fork").Process(target=_add, args=(cache, names[k::2])) for k in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert all(bool((cache.read(clip, name, [2]) == float(name)).all()) for name in names)


def test_no_file_stays_open(make_config, tmp_path):
    clip = read_manifest(make_config().data.train[0])[0]
    cache = LatentCache(tmp_path, {}, [(clip, singly(64 * 30))], [], _view)
    for part in cache.parts:
        numbers = torch.tensor(part.units, dtype=torch.float16)
        cache.add(part, {_view(clip, FRAME, 0, 0): (range(len(part.units)), numbers.view(-1, 1, 1, 1))})
    before = len(os.listdir("/proc/self/fd"))
    read = cache.read(clip, FRAME, [1900, 3, 70, 71, 3])
    kept = [cache.read(clip, FRAME, [first]) for first in range(0, 64 * 30, 64)]
    assert read.flatten().tolist() == [1900, 3, 70, 71, 3] and read.dtype == torch.float32
    assert len(kept) == 30 and len(os.listdir("/proc/self/fd")) == before


def test_a_damaged_file_is_encoded_anew_and_said(fill, encoded, capsys):
    cache = fill()
    before, path = latents(cache), cache.parts[0].path
    path.write_bytes(path.read_bytes()[:-100])
    encoded.clear()
    again = fill()
    assert encoded == dict.fromkeys(NAMES, 4) and torch.equal(latents(again), before)
    assert f"note: {path}: is damaged; its latents are encoded anew" in capsys.readouterr().out


def test_a_file_whose_list_of_places_is_damaged_is_encoded_anew(fill, encoded, capsys):
    clip = fill(name="whole").kept[0][0]
    of_it = {(*name_of(clip), "blurred", 0, 0): {(3,), (1,)}}
    cache = fill(of_it)
    before, path = cache.read(clip, "blurred", [1]), cache.parts[0].path
    path.write_bytes(path.read_bytes().replace(b"[1, 3]", b"[1; 3]"))
    with pytest.raises(UserError, match="no cached latents any more"):
        cache.read(clip, "blurred", [1])
    encoded.clear()
    assert torch.equal(fill(of_it).read(clip, "blurred", [1]), before)
    assert encoded == {"blurred": 2} and f"note: {path}: is damaged" in capsys.readouterr().out


def test_a_file_that_goes_away_is_said(fill):
    cache = fill()
    cache.parts[0].path.unlink()
    with pytest.raises(UserError, match=f"{cache.parts[0].path}: no cached latents any more .*; the same command makes them"):
        latents(cache)


@pytest.mark.parametrize(("precision", "off"), [("fp32", 0), ("fp16", 2**-11), ("bf16", 2**-8)])
def test_latents_are_stored_as_precisely_as_asked(fill, precision, off):
    exact = latents(fill(name="exact", data__cache_precision="fp32"))
    stored = latents(fill(name="stored", data__cache_precision=precision))
    error = ((stored - exact).abs() / exact.abs().clamp(min=1e-3)).max()
    assert off / 4 <= error <= off


def test_latents_too_large_for_the_precision_are_refused(fill, monkeypatch):
    monkeypatch.setattr(StableDiffusion, "encode", lambda self, pixels, noise=None: torch.full_like(pixels, 1e5))
    with pytest.raises(UserError, match=r"data.cache_precision=fp16: clip 'p0', .* reach 1e\+05, .*use bf16 or fp32"):
        fill()


class TwoFramesToOne(torch.nn.Module):
    """Encodes as a video VAE does: the first frame by itself, then two frames to a latent frame, here their mean."""

    def __init__(self):
        super().__init__()
        self.vae = torch.nn.Linear(1, 1)

    def encode(self, pixels):
        later = pixels[:, 1:].unflatten(1, (-1, 2)).mean(2) if pixels.shape[1] > 1 else pixels[:, :0]
        return torch.cat([pixels[:, :1], later], dim=1)

    encode_condition = encode

    def encoder_fingerprint(self):
        return "two"


def test_frames_that_share_latents_are_encoded_as_clips_and_photos_as_photos(make_config, tmp_path):
    config = make_config()
    clip, backbone = read_manifest(config.data.train[0])[0], TwoFramesToOne()
    networks = SimpleNamespace(config=config.model, backbone=backbone)

    def make(units, tasks=()):
        return filling.make_cache(config.data, networks, [(clip, units)], tasks, Accelerator(cpu=True), folder=tmp_path, seed=0)

    clips, photos = make([(0, 1, 2), (1, 2, 3)], ["seg"]), make(singly(4))
    first, second = (clips.read(clip, FRAME, frames) for frames in ([0, 1, 2], [1, 2, 3]))
    assert first.shape == clips.read(clip, "seg", [0, 1, 2]).shape == (2, 3, tiny.SIZE, tiny.SIZE)
    each = photos.read(clip, FRAME, [0, 1, 2, 3])
    assert each.shape == (4, 3, tiny.SIZE, tiny.SIZE)
    wanted = torch.stack([each[0], each[1:3].mean(0), each[1], each[2:].mean(0)])
    torch.testing.assert_close(torch.cat([first, second]), wanted, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("device", "at_once"), [("cpu", {1}), ("meta", {4})])
def test_as_many_at_once_as_suit_the_device_of_the_vae(fill, models, monkeypatch, device, at_once):
    """The VAE alone is on the GPU by then; "meta" stands for it."""
    seen, vae = set(), copy.deepcopy(models.backbone.vae).to(device)
    monkeypatch.setitem(models.backbone._modules, "vae", vae)
    monkeypatch.setattr(models.backbone, "encoder_fingerprint", lambda: "same")
    none = torch.zeros(1, 1, 4, 8, 8, dtype=torch.float16)

    def encode(precision, backbone, view, pictures, part):
        seen.add(len(pictures))
        return none.expand(len(pictures), -1, -1, -1, -1)

    monkeypatch.setattr(filling, "encode", encode)
    fill()
    assert seen == at_once
