"""Which kernel computes attention, and what is said where it cannot."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from meta_animator.errors import UserError
from meta_animator.models.attention import KERNELS, attention_by, attention_preferring
from meta_animator.models.backbones.sd import StableDiffusion
from meta_animator.stages.sample import sample
from meta_animator.stages.train import train


def attend() -> tuple[str, torch.Tensor]:
    """(who computed it, as its gradient says; the result)"""
    one = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = F.scaled_dot_product_attention(one, one, one)
    return type(result.grad_fn).__name__, result


def test_the_named_kernel_computes_and_ends_with_its_region():
    before, result = attend()
    with attention_by("math"):
        by_math, same = attend()
    with attention_by("flash"):
        by_flash, _ = attend()
    with attention_by("auto"):
        assert attend()[0] == before
    assert attend()[0] == before
    assert "Flash" in by_flash and "Attention" not in by_math
    torch.testing.assert_close(same, result)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has these kernels")
@pytest.mark.parametrize("kernel", ["efficient", "cudnn"])
def test_a_kernel_that_is_not_there_is_said(kernel):
    said = rf"^model\.attention={kernel}: this device cannot compute .*take auto, or"
    with pytest.raises(UserError, match=said), attention_by(kernel):
        attend()


def test_other_errors_are_left_alone():
    with pytest.raises(RuntimeError, match=r"^mine$"), attention_by("math"):
        raise RuntimeError("mine")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has these kernels")
def test_training_and_sampling_take_it(make_config, prepared, puppet_data):
    assert set(KERNELS) == {"flash", "efficient", "cudnn", "math"}
    with pytest.raises(UserError, match=r"model\.attention=cudnn"):
        train(config := make_config(model__attention="cudnn", train__max_steps=1))
    assert not (Path(config.output_dir) / "cache").exists(), "said before anything is encoded"
    shown = {"sample__reference": puppet_data / "person", "sample__driving": puppet_data / "train", "sample__identity": "p0"}
    with pytest.raises(UserError, match=r"model\.attention=cudnn"):
        sample(make_config("sample", model__attention="cudnn", model__control_from=prepared, **shown))


@pytest.mark.parametrize("allowed", [False, True])
def test_products_are_in_tf32_where_a_run_allows_it(make_config, prepared, puppet_data, monkeypatch, allowed):
    """In trainings and in stage 3, and afterwards as before."""
    seen, predict = [], StableDiffusion.predict
    monkeypatch.setattr(
        StableDiffusion, "predict", lambda *x: (seen.append(torch.get_float32_matmul_precision()), predict(*x))[1]
    )
    train(make_config(train__max_steps=1, train__allow_tf32=allowed))
    first = set(seen)
    seen.clear()
    sample(make_config(
        "sample", "stage3", model__control_from=prepared, sample__driving=puppet_data / "train", sample__identity="p0",
        sample__init_noise="random", sample__num_inference_steps=1, sample__max_frames=1, train__allow_tf32=allowed,
    ))  # fmt: skip
    assert first == set(seen) == {"high" if allowed else "highest"}
    assert torch.get_float32_matmul_precision() == "highest"


def uneven() -> torch.Tensor:
    """What no fast kernel takes: values of another width."""
    one, wide = torch.ones(1, 2, 16, 8), torch.ones(1, 2, 16, 12)
    return F.scaled_dot_product_attention(one, one, wide)


def test_what_the_preferred_kernel_cannot_goes_to_another():
    """As a VAE's one wide head, or a text encoder in float32, beside a GPU's fast kernels."""
    with pytest.raises(UserError, match=r"^model\.attention=flash"), attention_by("flash"):
        uneven()
    with attention_preferring("flash", "cpu", torch.float32):
        assert uneven().shape[-1] == 12 and "Flash" in attend()[0]
    with attention_preferring("math", "cpu", torch.float32):
        assert "Flash" not in attend()[0]


@pytest.mark.parametrize("kernel", ["efficient", "cudnn"])
def test_a_kernel_that_the_device_has_not_at_all_is_refused_before_anything_is_computed(kernel):
    said = rf"model\.attention={kernel}: this device"
    with pytest.raises(UserError, match=said), attention_preferring(kernel, "cpu", torch.float32):
        pytest.fail("it began")
