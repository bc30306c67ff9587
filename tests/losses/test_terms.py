import pytest
import torch

from meta_animator.losses.identity import identity_loss
from meta_animator.losses.latent import FACE_MARGIN, box_weights, face_region_weights, latent_loss
from meta_animator.losses.pixel import pixel_loss


def test_latent_loss_is_a_mean_per_sample():
    prediction = torch.tensor([[1.0, 3.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    target = torch.tensor([[1.0, 1.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    assert latent_loss(prediction, target).tolist() == [2.0, 0.0]
    assert latent_loss(prediction.view(1, 2, 2, 1, 1), target.view(1, 2, 2, 1, 1)).tolist() == [1.0]
    assert latent_loss(prediction.bfloat16(), target.bfloat16()).dtype == torch.float32


def test_latent_loss_weighs_places_before_the_mean():
    error = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    weights = torch.tensor([[1.0, 0.0], [2.0, 1.0]]).view(1, 1, 2, 2)
    assert latent_loss(error, torch.zeros(1, 1, 2, 2), weights).tolist() == [(1 + 2 * 9 + 16) / 4]
    two = latent_loss(error.expand(1, 2, 2, 2), torch.zeros(1, 2, 2, 2), weights)
    assert two.tolist() == [(1 + 2 * 9 + 16) / 4], "all channels of a place have its weight"


def test_face_region_is_a_square_around_the_face_in_latent_places():
    """Pixels of 4 x 2 per place: places have their middles at y = 1.5, 5.5, ... and x = 0.5, 2.5, ..."""
    centres, sides = torch.tensor([[5.0, 10.0], [5.0, 10.0]]), torch.tensor([8.0, 8.0]) / FACE_MARGIN
    weights = face_region_weights(centres, sides, torch.tensor([True, False]), (6, 8), (24, 16), 3.0)
    assert weights.shape == (2, 1, 6, 8)
    rows, columns = slice(2, 4), slice(1, 5)  # y in 6 ... 14: 9.5, 13.5; x in 1 ... 9: 2.5, 4.5, 6.5, 8.5
    expected = torch.ones(6, 8)
    expected[rows, columns] = 3.0
    assert torch.equal(weights[0, 0], expected) and (weights[1] == 1).all()
    clip = face_region_weights(centres[None], sides[None], torch.ones(1, 2, dtype=torch.bool), (6, 8), (24, 16), 3.0)
    assert clip.shape == (1, 2, 1, 6, 8) and torch.equal(clip[0, 1, 0], expected)


def test_a_box_holds_the_places_whose_middles_lie_in_it():
    boxes = torch.tensor([[[1.0, 6.0, 9.0, 14.0], [0.0, 0.0, -1.0, -1.0]]])
    weights = box_weights(boxes, (6, 8), (24, 16), 3.0)
    expected = torch.ones(6, 8)
    expected[2:4, 1:5] = 3.0
    assert weights.shape == (1, 2, 1, 6, 8) and torch.equal(weights[0, 0, 0], expected)
    assert (weights[0, 1] == 1).all(), "nobody is seen"


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
