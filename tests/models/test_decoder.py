"""The VAE's decoder with its activations computed again: the same answer and gradient, from less memory."""

import pytest
import torch

from meta_animator.models.backbones import load_backbone
from meta_animator.settings import ModelConfig


@pytest.mark.parametrize("training", [True, False])
def test_a_checkpointed_decoder_answers_as_the_plain_one_and_keeps_little(tiny_base, training):
    backbone = load_backbone(ModelConfig(base=str(tiny_base))).train(training)
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    answers, gradients, kept = [], [], []

    def keep(tensor):
        kept[-1] += tensor.nbytes
        return tensor

    for _ in range(2):
        x = latents.clone().requires_grad_()
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            answers.append(backbone.decode(x))
        gradients.append(torch.autograd.grad(answers[-1].square().mean(), x)[0])
        backbone.enable_gradient_checkpointing()
    torch.testing.assert_close(answers[1], answers[0], rtol=0, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0])
    assert kept[1] < kept[0] / 4
