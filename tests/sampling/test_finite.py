"""Latents that are no numbers end sampling in one line, with the step and the weight that is to blame."""

import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.sampling.opening import open_inputs
from meta_animator.stages.sample import load_animator
from meta_animator.stages.train import train


@pytest.fixture(scope="module")
def moving(tmp_path_factory, tiny_base, puppet_data, prepared):
    """The folder of a stage-1 run."""
    from tests import tiny

    folder = tmp_path_factory.mktemp("moving")
    config = tiny.make_config(folder, tiny_base, puppet_data, "motion", model__control_from=prepared, train__max_steps=1)
    train(config)
    return folder


@pytest.fixture
def setting(make_config, prepared, puppet_data, moving):
    """(animator, its inputs), three steps."""

    def make(**overrides):
        config = make_config(
            "sample", model__control_from=prepared, model__motion_from=moving, sample__identity="p0", sample__window=3,
            sample__overlap=1, sample__reference=puppet_data / "person", sample__driving=puppet_data / "train",
            sample__num_inference_steps=3, **overrides,
        )  # fmt: skip
        return load_animator(config), *open_inputs(config.sample, config.data, config.seed, config.model)

    return make


def spoil(network: torch.nn.Module, ending: str) -> None:
    weight = next(p for name, p in network.named_parameters() if name.endswith(ending))
    weight.data.view(-1)[0] = float("inf")


@pytest.mark.parametrize(
    ("part", "ending", "init", "said"),
    [
        ("motion", "to_q.weight", "random", "sampling, step 1 of 3: the latents are not finite, as is the weight .*motion"),
        ("control", "conv_in.weight", "inversion", "inverting the reference photo, step 1 of 3: .*conv_in.weight of the Meta"),
    ],
)
def test_an_infinite_weight_is_named_at_the_first_step(setting, part, ending, init, said):
    animator, driving, reference = setting(sample__init_noise=init, sample__shared_noise=1)
    spoil(getattr(animator.models, part), ending)
    with pytest.raises(UserError, match=said) as caught:
        animator.animate(driving, reference)
    assert "\n" not in str(caught.value)


def test_where_no_weight_is_to_blame_the_step_is_said(setting, monkeypatch):
    animator, driving, reference = setting(sample__init_noise="random")
    steps, predict = [], Denoiser._guided

    def overflow(self, *arguments):
        steps.append(1)
        return predict(self, *arguments) * (float("nan") if len(steps) > 2 else 1)  # two windows make a step

    monkeypatch.setattr(Denoiser, "_guided", overflow)
    with pytest.raises(UserError, match=r"sampling, step 2 of 3: the latents are not finite, though all weights are; try train"):
        animator.animate(driving, reference)


def test_the_pipeline_says_it_too(setting):
    animator, driving, _ = setting()
    pipe = MetaAnimatorPipeline.from_animator(animator)
    pipe.set_progress_bar_config(disable=True)
    spoil(animator.models.control, "conv_in.weight")
    images = [driving.condition("dwpose", k) for k in range(2)]
    with pytest.raises(ValueError, match=r"step 1 of 3: the latents are not finite, as is the weight .*conv_in\.weight"):
        pipe(conditions={"dwpose": images}, num_inference_steps=3)
