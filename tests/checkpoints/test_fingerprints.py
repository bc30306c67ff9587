"""Names of weights, of today and of earlier versions, and what is said where they differ."""

import hashlib
import math

import numpy as np
import pytest
import torch

from meta_animator.checkpoints.files import find_checkpoint, read_weights
from meta_animator.checkpoints.loading import load_control
from meta_animator.checkpoints.metadata import metadata_of
from meta_animator.checkpoints.old_fingerprints import old_fingerprint, same_old, short_old
from meta_animator.checkpoints.origin import check_origin
from meta_animator.errors import UserError
from meta_animator.fingerprints import fingerprint, is_fingerprint, short
from meta_animator.json_files import read_json, write_json
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ModelConfig
from meta_animator.stages.train import train
from tests import tiny


def state(dtype=torch.float32, **changes):
    return {name: p.detach().to(dtype) for name, p in tiny.tiny_unet(**changes).state_dict().items()}


def test_the_name_is_the_hash_of_what_the_docstring_says():
    strange = torch.tensor([-1], dtype=torch.int32).view(torch.float32)  # a NaN with a sign and all its bits set
    weights = {"b": torch.tensor([[1e-9, 0], [-1e6, math.inf]]), "a": torch.tensor(1 / 3, dtype=torch.float64)}
    weights["b"][0, 1] = strange
    third = np.array(1 / 3, "<f2").tobytes()
    text = b"a();" + third + b"b(2, 2);" + b"\x00\x00" + b"\x00\x7e" + b"\xff\xfb" + b"\xff\x7b"
    assert fingerprint(weights) == f"sha256:{hashlib.sha256(text).hexdigest()}"


def test_what_a_precision_keeps_names_the_weights():
    own = state()
    own["conv_in.weight"][0, 0, 0] = torch.tensor([1e6, math.nan, -math.inf])
    half, brain = ({name: w.to(dtype) for name, w in own.items()} for dtype in (torch.float16, torch.bfloat16))
    assert fingerprint(own) == fingerprint(half) == fingerprint({name: w.float() for name, w in half.items()})
    assert fingerprint(brain) != fingerprint(own), "a bfloat16 copy has lost bits"
    assert fingerprint(brain) == fingerprint({name: w.float() for name, w in brain.items()}), "of weights born in bfloat16"
    assert fingerprint(brain) == fingerprint(own, rounded_to=torch.bfloat16)
    assert is_fingerprint(fingerprint(own)) and len(short(fingerprint(own))) == 12


def test_one_value_one_shape_and_one_name_make_other_weights():
    own = state()
    names = [fingerprint(own), *(fingerprint(other) for other in (state(seed=1), state(block_out_channels=(32, 64)), {}))]
    for name, weight in own.items():
        changed = weight.clone()
        changed.flatten()[-1] += 0.01
        names.append(fingerprint(own | {name: changed}))
    first = next(iter(own))
    names += [fingerprint(own | {first: own[first].transpose(0, 1)}), fingerprint(own | {"another": own[first]})]
    assert len(set(names)) == len(names)


def test_parts_of_large_tensors_and_of_views_count(monkeypatch):
    weight = torch.randn(37, 5)
    whole = fingerprint({"w": weight})
    monkeypatch.setattr("meta_animator.fingerprints.AT_ONCE", 10)
    assert fingerprint({"w": weight}) == whole == fingerprint({"w": weight.T.contiguous().T})


# what earlier versions wrote


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_old_names_bear_the_rounding_of_copies_and_nothing_else(dtype):
    own = old_fingerprint(state())
    assert same_old(own, old_fingerprint(state(dtype)))
    for other in (state(seed=1), state(block_out_channels=(32, 64)), {"x": torch.zeros(3)}, {}):
        assert not same_old(own, old_fingerprint(other)) and short_old(own) != short_old(old_fingerprint(other))
    for damaged in (own[:-3], own + "x", own.partition(":")[0] + ":?", own.partition(":")[0]):
        assert not same_old(own, damaged)


def test_an_old_name_is_compared_as_it_was_and_a_new_one_exactly():
    own, other = state(), old_fingerprint(state(seed=1))
    near = {name: weight * (1 + 2**-9) for name, weight in own.items()}
    differ = "theirs {}, ours {}".format
    check_origin(old_fingerprint(near), fingerprint(own), lambda: own, differ)
    with pytest.raises(UserError, match=f"^theirs {short_old(other)}, ours {short_old(old_fingerprint(own))}$"):
        check_origin(other, fingerprint(own), lambda: own, differ)
    check_origin(fingerprint(own), fingerprint(own), dict, differ)
    with pytest.raises(UserError, match=f"^theirs {short(fingerprint(near))}, ours {short(fingerprint(own))}$"):
        check_origin(fingerprint(near), fingerprint(own), lambda: own, differ)


def test_a_copy_in_bfloat16_is_refused_with_what_it_is():
    own, brain = state(), state(torch.bfloat16)
    with pytest.raises(UserError, match="a bfloat16 copy of these: such a copy counts as other weights"):
        check_origin(fingerprint(brain), fingerprint(own), lambda: own, "{} {}".format)
    with pytest.raises(UserError, match="which is in bfloat16; if it is a copy, give its float32 or float16 original"):
        check_origin(fingerprint(own), fingerprint(brain), lambda: brain, "{} {}".format)


# runs


def test_a_run_of_an_earlier_version_goes_on_and_is_started_from(make_config):
    config = make_config(train__max_steps=1)
    train(config)
    folder = find_checkpoint(config.output_dir)
    backbone = load_backbone(config.model)
    metadata = read_json(folder / "manifest.json")
    assert metadata["base"] == backbone.fingerprint()
    write_json(folder / "manifest.json", metadata | {"base": old_fingerprint(backbone.named_weights())})
    train(make_config(train__max_steps=2))
    models = Assembly(config.model, backbone)
    load_control(models, *read_weights(folder), str(folder))
    assert read_json(folder.with_name("step-000002") / "manifest.json")["base"] == backbone.fingerprint()


def test_a_run_does_not_go_on_with_another_base(make_config, tmp_path):
    config = make_config(train__max_steps=1)
    train(config)
    other = tiny.make_base(tmp_path / "other", seed=5)
    with pytest.raises(UserError, match=r"step-000001: was trained on base .*, .*other is base "):
        train(make_config(train__max_steps=2, model__base=other))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_names_are_those_of_the_weights_as_they_were_loaded(tiny_base, dtype):
    config = ModelConfig(base=str(tiny_base), tasks=["seg"], lora_rank=4)
    whole, lean = (Assembly(config, load_backbone(config)).requires_grad_(False) for _ in range(2))
    lean.load(whole.state(), "whole")
    lean.hold_frozen_in(dtype, keep_exact=False)
    lean.backbone.release(text=True, encoder=True)
    assert metadata_of(lean) == metadata_of(whole)
    assert [lean.fingerprint(part) for part in ("control", "lora.seg")] == [whole.fingerprint(p) for p in ("control", "lora.seg")]


def test_weights_without_values_have_no_name():
    """As a dry run has them, which counts and compares nothing."""
    assert fingerprint({"w": torch.empty(3, device="meta")}) == "" != fingerprint({"w": torch.zeros(3)})
