import pytest
import torch

from meta_animator.losses.identity import identity_loss
from meta_animator.losses.latent import latent_loss
from meta_animator.losses.pixel import pixel_loss


def test_latent_loss_is_a_mean_per_sample():
    prediction = torch.tensor([[1.0, 3.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    target = torch.tensor([[1.0, 1.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    assert latent_loss(prediction, target).tolist() == [2.0, 0.0]
    assert latent_loss(prediction.view(1, 2, 2, 1, 1), target.view(1, 2, 2, 1, 1)).tolist() == [1.0]
    assert latent_loss(prediction.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_pixel_loss_is_a_mean_per_image():
    assert pixel_loss(
        torch.zeros(2, 3, 2, 2), torch.tensor([0.5, -1.0]).view(2, 1, 1, 1).expand(2, 3, 2, 2)
    ).tolist() == [
        0.25,
        1.0,
    ]


def first_two_pixels(images, landmarks):
    """A face embedding of two numbers: the red of two pixels."""
    return images[:, 0, 0, :2]


def red(*rows):
    images = torch.zeros(len(rows), 3, 2, 2)
    images[:, 0, 0] = torch.tensor(rows)
    return images


def test_identity_loss_of_known_angles():
    x = red([1.0, 0.0], [1.0, 0.0], [0.0, 1.0])
    decoded = red([3.0, 0.0], [0.0, 1.0], [0.0, -1.0])
    landmarks = torch.zeros(3, 5, 2)
    total, count = identity_loss(first_two_pixels, x, decoded, landmarks, torch.tensor([True, True, True]))
    assert total.item() == pytest.approx(0 + 1 + 2, abs=1e-6) and count.item() == 3
    total, count = identity_loss(first_two_pixels, x, decoded, landmarks, torch.tensor([True, True, False]))
    assert total.item() == pytest.approx(1, abs=1e-6) and count.item() == 2


def test_the_face_network_sees_visible_faces_only_and_no_gradient_reaches_the_truth():
    seen = []

    def embed(images, landmarks):
        seen.append((len(images), landmarks[:, 0, 0].tolist(), torch.is_grad_enabled()))
        return first_two_pixels(images, landmarks)

    x, decoded = (red([1.0, 0.0], [1.0, 0.5], [0.3, 1.0]).requires_grad_() for _ in range(2))
    decoded.data += 0.2
    landmarks = torch.arange(3.0).view(3, 1, 1).expand(3, 5, 2)
    total, _ = identity_loss(embed, x, decoded, landmarks, torch.tensor([False, True, True]))
    total.backward()
    assert seen == [(2, [1.0, 2.0], False), (2, [1.0, 2.0], True)]
    assert x.grad is None
    assert decoded.grad[0].abs().sum() == 0 and decoded.grad[1].abs().sum() > 0


def test_no_visible_face_calls_no_network():
    x = red([1.0, 0.0])
    total, count = identity_loss(None, x, x, torch.zeros(1, 5, 2), torch.tensor([False]))
    assert total.item() == 0 and count.item() == 0
