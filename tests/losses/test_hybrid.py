import weakref

import pytest
import torch

from meta_animator.diffusion.process import DDPM, Flow, Noised
from meta_animator.errors import UserError
from meta_animator.losses.hybrid import HybridLoss, Truth
from meta_animator.losses.identity import identity_loss
from meta_animator.losses.pixel import pixel_loss

SD15 = DDPM.from_betas("scaled_linear", 0.00085, 0.012)


def decode(latents):
    """Three of four channels, twice as large: linear, so that losses can be worked out by hand."""
    return latents[..., :3, :, :].float().repeat_interleave(2, -2).repeat_interleave(2, -1)


def embed_face(images, landmarks):
    return images[:, :, 0, 0]


def batch(*shape, t, process=SD15, seed=0):
    """Everything that `evaluate` takes, of images (b 4 h w) or clips (b f 4 h w); the prediction is wrong by a little and needs
    its gradient."""
    shape = (shape[0], 1, *shape[1:]) if len(shape) == 4 else shape
    generator = torch.Generator().manual_seed(seed)
    latents, noise, error = (torch.randn(shape, generator=generator) for _ in range(3))
    t = torch.tensor(t)
    lead = shape[:2]
    target = process.target(latents, noise, t)
    return {
        "process": process,
        "prediction": (target + 0.1 * error).requires_grad_(),
        "x_t": process.add_noise(latents, noise, t),
        "t": t,
        "target": target,
        "latents": latents,
        "pixels": decode(latents),
        "landmarks": torch.zeros(*lead, 5, 2),
        "face_visible": torch.ones(lead, dtype=torch.bool),
        "step": 0,
        "decode": decode,
        "embed_face": embed_face,
    }


def evaluate(data, counts=None, **weights):
    """(loss, logs)"""
    loss = HybridLoss(process=data["process"], decode=data["decode"], embed_face=data["embed_face"], **weights)
    noised = Noised(**{name: data[name] for name in ("latents", "x_t", "t", "target")})
    truth = Truth(**{name: data[name] for name in ("pixels", "landmarks", "face_visible")})
    return loss(data["prediction"], noised, truth, data["step"], counts=counts)


def refuse(*_):
    raise AssertionError("must not be called")


def test_the_value_by_hand():
    data = batch(2, 4, 2, 2, t=[100, 900])
    weights = {"latent_weight": 2.0, "image_weight": 0.5, "pixel_weight": 3.0, "face_weight": 0.25}
    data["prediction"] = data["prediction"].detach()
    loss, logs = evaluate(data, **weights)
    latent = (data["prediction"] - data["target"]).square().mean()
    clean = SD15.to_x0(data["prediction"], data["x_t"], data["t"])[:1, 0]
    pixel = (clean[:, :3] - data["latents"][:1, 0, :3]).square().mean()
    face = 1 - torch.cosine_similarity(clean[:, :3, 0, 0], data["latents"][:1, 0, :3, 0, 0]).mean()
    torch.testing.assert_close(loss, 2 * latent + 0.5 * (3 * pixel + 0.25 * face))
    expected = {"latent": latent, "pixel": pixel, "face": face, "gated_images": 1.0, "faces": 1.0}
    for name, value in expected.items():
        assert logs[name].item() == pytest.approx(float(value), rel=1e-4), name
    assert logs["clean_latent"].item() == pytest.approx((clean - data["latents"][:1, 0]).square().mean().item(), rel=1e-4)
    data["prediction"].requires_grad_()
    assert not any(value.requires_grad for value in evaluate(data)[1].values())


def test_the_gate_lets_in_124_and_not_125():
    _, logs = evaluate(batch(4, 4, 2, 2, t=[0, 124, 125, 999]))
    assert logs["gated_images"].item() == 2
    _, logs = evaluate({**batch(1, 4, 2, 2, t=[125]), "decode": refuse, "embed_face": refuse})
    assert logs["gated_images"].item() == 0


def test_only_gated_samples_are_decoded():
    sizes = []
    data = batch(3, 4, 2, 2, t=[900, 10, 900])

    def counted(latents):
        sizes.append(len(latents))
        return decode(latents)

    loss, _ = evaluate({**data, "decode": counted})
    loss.backward()
    assert sizes == [1]


@pytest.mark.parametrize("options", [{"start_step": 1}, {"image_weight": 0.0}, {"max_noise_level": 0.0}])
def test_without_an_image_term_nothing_is_decoded(options):
    data = {**batch(2, 4, 2, 2, t=[10, 900]), "decode": refuse, "embed_face": refuse}
    loss, logs = evaluate(data, **options)
    torch.testing.assert_close(loss, (data["prediction"] - data["target"]).square().mean())
    loss.backward()
    assert not any(float(logs.get(name, 0)) for name in ("pixel", "face", "gated_images"))


def test_the_start_step_is_included():
    _, logs = evaluate({**batch(1, 4, 2, 2, t=[3]), "step": 5}, start_step=5)
    assert logs["gated_images"].item() == 1


class Decoder(torch.nn.Module):
    """Small, but not linear; remembers how many images it was given, and which of its answers are still in memory."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layer = torch.nn.Conv2d(4, 3, 3, padding=1).requires_grad_(False)
        self.answers, self.alive = [], []

    def forward(self, latents):
        self.alive.append(sum(answer() is not None for answer in self.answers))
        flat = self.layer(latents.flatten(0, 1).to(self.layer.weight.dtype)).tanh()
        images = flat.repeat_interleave(2, 2).repeat_interleave(2, 3).unflatten(0, latents.shape[:2])
        self.answers.append(weakref.ref(images))
        return images


def all_at_once(decode, data, weights):
    """The image terms of a batch whose samples are all gated, in one graph."""
    clean = data["process"].to_x0(data["prediction"], data["x_t"], data["t"])
    decoded, pixels = decode(clean).flatten(0, 1), data["pixels"].flatten(0, 1)
    pixel = pixel_loss(pixels, decoded).mean()
    seen = data["face_visible"].flatten()
    total, faces = identity_loss(data["embed_face"], pixels, decoded, data["landmarks"].flatten(0, 1), seen)
    return weights["pixel_weight"] * pixel + weights["face_weight"] * total / faces


@pytest.mark.parametrize("process", [SD15, Flow()])
def test_images_one_by_one_are_worth_what_they_are_together(process):
    """Losses and gradients in float64, while no image outlives the next one's decoding."""
    data, decoder = batch(5, 4, 3, 3, t=[3, 50, 80, 120, 7], process=process), Decoder().double()
    data |= {k: v.detach().double() for k, v in data.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    data |= {"face_visible": torch.tensor([True, False, True, True, False])[:, None], "decode": decoder}
    weights = {"pixel_weight": 3.0, "face_weight": 0.5}
    found, gradients = [], []
    for loss in (lambda d: evaluate(d, latent_weight=0.0, **weights)[0], lambda d: all_at_once(decoder, d, weights)):
        prediction = data["prediction"].clone().requires_grad_()
        value = loss({**data, "prediction": prediction})
        (3 * value).backward()
        found.append(value.item())
        gradients.append(prediction.grad)
    assert found[0] == pytest.approx(found[1], rel=1e-6)
    assert (gradients[0] - gradients[1]).norm() <= 1e-6 * gradients[1].norm() and gradients[1].flatten(1).any(1).all()
    assert decoder.alive[:5] == [0] * 5, "every image is gone when the next one is decoded"


@pytest.mark.parametrize("gain", [1.0, 1e4])
def test_gradients_through_half_precision_are_neither_lost_nor_infinite(gain):
    """A pixel error is a mean over many pixels: its gradient is below what float16 can hold, or, with large values, above
    it once a scale has been put on it."""
    decoder, gradients = Decoder(), []
    data = batch(2, 4, 64, 64, t=[3, 50])
    data |= {"pixels": decoder(data["latents"]).detach(), "decode": lambda x: decoder(x / gain) * gain}
    data["pixels"] = data["pixels"] * gain
    for enabled in (True, False):
        prediction = data["prediction"].detach().clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=enabled):
            loss, _ = evaluate({**data, "prediction": prediction}, latent_weight=0.0, face_weight=0.0)
        loss.backward()
        gradients.append(prediction.grad)
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


def test_without_gradients_the_value_is_the_same():
    data = batch(3, 4, 2, 2, t=[5, 60, 120])
    with torch.no_grad():
        plain, _ = evaluate(data)
    torch.testing.assert_close(plain, evaluate(data)[0].detach(), rtol=0, atol=0)


def test_faceless_images_are_left_out_of_the_mean():
    data = batch(3, 4, 2, 2, t=[5, 60, 120])
    only = {"latent_weight": 0.0, "pixel_weight": 0.0}
    alone = {**data, **{k: data[k][1:2] for k in data if isinstance(data[k], torch.Tensor)}}
    data["face_visible"] = torch.tensor([[False], [True], [False]])
    loss, logs = evaluate(data, **only)
    torch.testing.assert_close(loss, evaluate(alone, **only)[0])
    assert logs["faces"].item() == 1 and loss.item() > 0
    data["face_visible"] = torch.zeros(3, 1, dtype=torch.bool)
    loss, logs = evaluate({**data, "embed_face": refuse}, **only)
    assert loss.item() == 0 and logs["faces"].item() == 0


@pytest.mark.parametrize("term", ["latent_weight", "pixel_weight", "face_weight"])
@pytest.mark.parametrize("process", [SD15, Flow()])
def test_each_term_alone_has_a_gradient(term, process):
    weights = {"latent_weight": 0.0, "pixel_weight": 0.0, "face_weight": 0.0, term: 1.0}
    data = batch(2, 4, 2, 2, t=[100, 900], process=process)
    evaluate(data, **weights)[0].backward()
    gradient = data["prediction"].grad.flatten(1).abs().sum(1)
    assert gradient[0] > 0
    assert (gradient[1] > 0) == (term == "latent_weight")


def test_a_clip_counts_as_its_frames():
    clip = batch(2, 3, 4, 2, 2, t=[100, 900])
    clip["face_visible"] = torch.tensor([[True, False, True], [True, True, True]])
    tensors = ("prediction", "x_t", "target", "latents", "pixels", "landmarks", "face_visible")
    images = {**clip, **{k: clip[k].flatten(0, 1)[:, None] for k in tensors}, "t": clip["t"].repeat_interleave(3)}
    loss, logs = evaluate(clip)
    folded_loss, folded_logs = evaluate(images)
    torch.testing.assert_close(loss, folded_loss)
    assert {k: v.item() for k, v in logs.items()} == pytest.approx({k: v.item() for k, v in folded_logs.items()})
    assert logs["gated_images"].item() == 3 and logs["faces"].item() == 2


def test_mean_counts_make_the_mean_over_micro_batches_and_processes():
    data = batch(4, 4, 2, 2, t=[3, 50, 120, 7])
    data["face_visible"] = torch.tensor([True, False, False, False])[:, None]
    whole, _ = evaluate(data)
    halves = []
    for part in (slice(0, 2), slice(2, 4)):
        half = {k: v[part] if isinstance(v, torch.Tensor) else v for k, v in data.items()}
        halves.append(evaluate(half, counts=torch.tensor([4.0, 1.0]) / 2)[0])
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole)


def test_counts_are_those_of_the_call():
    for clip in (False, True):
        data = batch(4, *([3] if clip else []), 4, 2, 2, t=[3, 900, 120, 125])
        visible = torch.arange(12 if clip else 4).view(data["face_visible"].shape) % 3 == 0
        logs = evaluate(data | {"face_visible": visible})[1]
        counted = HybridLoss(process=SD15, decode=decode).counts(data["t"], visible, frames=3 if clip else 1)
        assert counted.tolist() == [logs["gated_images"], logs["faces"]]
        assert counted[0] == (6 if clip else 2) and counted[1] > 0


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match=r"^loss\.image_weight: "):
        HybridLoss(process=SD15, decode=decode, image_weight=-1)
    with pytest.raises(UserError, match=r"^loss\.max_noise_level: "):
        HybridLoss(process=SD15, decode=decode, max_noise_level=124)
    with pytest.raises(UserError, match=r"^loss\.face_weight: "):
        evaluate({**batch(1, 4, 2, 2, t=[3]), "landmarks": None})


def test_a_clip_that_shares_latents_between_frames_is_decoded_as_a_whole():
    """As a video VAE has it: 5 frames in 2 latent frames."""
    data, seen = batch(2, 2, 4, 2, 2, t=[100, 900]), []

    def decode_clip(latents):
        seen.append(tuple(latents.shape))
        return decode(latents)[:, [0, 0, 1, 1, 1]]

    shown = {"landmarks": torch.zeros(2, 5, 5, 2), "face_visible": torch.tensor([[True, False, True, False, False]] * 2)}
    data |= {"decode": decode_clip, "pixels": decode_clip(data["latents"]), **shown}
    seen.clear()
    loss, logs = evaluate(data)
    loss.backward()
    assert seen == [(1, 2, 4, 2, 2)] and logs["gated_images"] == 5 and logs["faces"] == 2
    clean = SD15.to_x0(data["prediction"], data["x_t"], data["t"])[:1]
    wanted = (decode_clip(clean) - data["pixels"][:1]).square().mean()
    torch.testing.assert_close(logs["pixel"], wanted.detach())
    torch.testing.assert_close(logs["clean_latent"], (clean - data["latents"][:1]).square().mean().detach())
