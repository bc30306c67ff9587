import cv2
import numpy as np
import pytest
import torch

from meta_animator.errors import UserError
from meta_animator.models.face import (
    FaceConfig,
    FaceEmbedder,
    align_faces,
    face_sizes,
    face_transform,
    large_enough,
    template,
)

SMALL = FaceConfig(channels=(8, 12), embedding_dim=6, input_size=8)


def placed(angle, scale, shift, size=112):
    """The template's landmarks turned (degrees), scaled and shifted: (1, 5, 2)."""
    turn = np.deg2rad(angle)
    matrix = scale * torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).float()
    return (template(size) @ matrix.T + torch.tensor(shift, dtype=torch.float32))[None]


def smooth(h, w, seed=0):
    noise = np.random.default_rng(seed).normal(size=(h, w, 3)).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 3) * 5


@pytest.mark.parametrize(("angle", "scale", "finer"), [(0, 1.0, 1), (25, 0.7, 1), (-160, 1.3, 2)])
def test_alignment_equals_opencv(angle, scale, finer):
    """A face larger than the crop as OpenCV's larger crop, averaged down."""
    image = smooth(230, 260)
    landmarks = placed(angle, scale, [0, 0])
    landmarks = landmarks - landmarks.mean(1) + torch.tensor([125.5, 110.25])
    landmarks = landmarks + torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(0))
    ours = align_faces(torch.from_numpy(image).permute(2, 0, 1)[None], landmarks)[0].permute(1, 2, 0).numpy()
    inside = cv2.warpAffine(np.ones_like(image), face_transform(landmarks, 112)[0].numpy(), (112, 112)) == 1
    size = 112 * finer
    theirs = cv2.warpAffine(image, face_transform(landmarks, size)[0].numpy(), (size, size), flags=cv2.INTER_LINEAR)
    theirs = cv2.resize(theirs, (112, 112), interpolation=cv2.INTER_AREA)
    assert inside.mean() > 0.3
    assert np.abs(ours - theirs)[inside].max() < 1e-4


def test_the_template_maps_to_itself():
    identity = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    torch.testing.assert_close(face_transform(template(112)[None], 112), identity, rtol=0, atol=1e-4)
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(align_faces(image, template(32)[None], size=32), image, rtol=0, atol=1e-3)


def test_the_transform_undoes_a_similarity_and_is_least_squares_otherwise():
    landmarks = placed(40, 2.5, [30, 80])
    moved = landmarks[0] @ face_transform(landmarks, 48)[0, :, :2].T + face_transform(landmarks, 48)[0, :, 2]
    torch.testing.assert_close(moved, template(48), rtol=0, atol=1e-3)
    bent = landmarks + 4 * torch.randn(1, 5, 2, generator=torch.Generator().manual_seed(1))
    p, q = bent[0].double(), template(112).double()
    rows = [[x, -y, 1, 0] for x, y in p.tolist()] + [[y, x, 0, 1] for x, y in p.tolist()]
    a, b, tx, ty = torch.linalg.lstsq(torch.tensor(rows, dtype=torch.float64), q.T.reshape(-1, 1)).solution.flatten()
    expected = torch.stack([torch.stack([a, -b, tx]), torch.stack([b, a, ty])]).float()
    torch.testing.assert_close(face_transform(bent, 112)[0], expected, rtol=1e-4, atol=1e-3)


def test_gradients_reach_the_images_and_not_the_landmarks():
    image = torch.zeros(2, 3, 64, 64, requires_grad=True)
    landmarks = torch.cat([placed(0, 0.3, [5, 5]), placed(20, 0.4, [20, 3])]).requires_grad_()
    align_faces(image, landmarks, size=16, oversample=2).sum().backward()
    assert (image.grad.flatten(1).abs().sum(1) > 0).all()
    assert landmarks.grad is None


@pytest.mark.parametrize("times", [1.0, 1.8, 3.5])
def test_every_pixel_of_a_large_face_counts(times):
    """Checks of one pixel: all pixels together are grey, every other one alone is black or white."""
    side = round(32 * times)
    checks = (torch.arange(side)[:, None] + torch.arange(side)) % 2 * 2.0 - 1
    image = checks.expand(1, 3, side, side).clone().requires_grad_()
    crop = align_faces(image, placed(0, side / 112, [0, 0]), size=32)
    crop.sum().backward()
    inner = image.grad[0, 0, 4:-4, 4:-4]
    assert inner.min() > 0.3 / times**2 and inner.max() < 2 / times**2
    assert times == 1 or crop[..., 2:-2, 2:-2].abs().max() < 0.6


def test_a_face_is_cut_out_as_if_it_were_alone_and_a_small_one_as_before():
    """Whatever the others' sizes; a face no larger than the crop is sampled once per crop pixel."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 112, 112, generator=generator).expand(3, -1, -1, -1)
    landmarks = torch.cat([placed(0, 0.25, [7, 9]), placed(10, 0.9, [4, 1]), template(32)[None] + 3])
    together = align_faces(image, landmarks, size=32)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], align_faces(image[:1], landmarks[k : k + 1], size=32), rtol=0, atol=0)
    same = image[:1, :, 3:35, 3:35]
    torch.testing.assert_close(together[2:], same, rtol=0, atol=1e-4)


def test_landmarks_in_one_point_do_not_take_all_memory():
    assert align_faces(torch.zeros(1, 3, 64, 64), torch.full((1, 5, 2), 30.0), size=16).shape == (1, 3, 16, 16)


def test_autocast_does_not_blur_the_geometry():
    image, landmarks = torch.from_numpy(smooth(64, 64)).permute(2, 0, 1)[None], placed(15, 0.4, [8, 5])
    plain = align_faces(image, landmarks)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(align_faces(image, landmarks), plain, rtol=0, atol=0)


def test_face_size_is_the_side_of_the_crop():
    landmarks = torch.cat([placed(30, 0.25, [7, 9]), placed(0, 0.5, [0, 0])])
    torch.testing.assert_close(face_sizes(landmarks), torch.tensor([28.0, 56.0]), rtol=1e-4, atol=0)
    assert large_enough(landmarks, 40).tolist() == [False, True]
    assert FaceEmbedder(FaceConfig(min_face_size=20)).large_enough(landmarks).tolist() == [True, True]


def test_embeddings_are_unit_vectors_of_each_image_alone():
    model = FaceEmbedder(SMALL)
    images = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(0)).requires_grad_()
    landmarks = placed(0, 0.3, [3, 3]).expand(3, 5, 2)
    embedded = model.embed_face(images, landmarks)
    assert embedded.shape == (3, 6)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(model.embed_face(images[1:2], landmarks[:1]), embedded[1:2], rtol=1e-4, atol=1e-5)
    embedded[0, 0].backward()
    assert images.grad[0].abs().sum() > 0 and images.grad[1:].abs().sum() == 0
    assert model.embed_face(images[:0], landmarks[:0]).shape == (0, 6)


def test_saved_and_loaded_networks_agree(tmp_path):
    model, crops = FaceEmbedder(SMALL), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path / "face")
    loaded = FaceEmbedder.from_pretrained(tmp_path / "face")
    assert loaded.config == SMALL
    assert torch.equal(loaded(crops), model(crops))
    model.save_pretrained(tmp_path / "half", dtype=torch.float16)
    torch.testing.assert_close(FaceEmbedder.from_pretrained(tmp_path / "half")(crops), model(crops), rtol=0, atol=1e-2)


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match="input_size"):
        FaceConfig(channels=(8, 8, 8), input_size=10)
    with pytest.raises(UserError, match="no such file"):
        FaceEmbedder.from_pretrained(tmp_path)
    FaceEmbedder(SMALL).save_pretrained(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"embedding_dim": 6', '"embedding_dim": 7'))
    with pytest.raises(UserError, match="head"):
        FaceEmbedder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(config.replace("embedding_dim", "dim"))
    with pytest.raises(UserError, match="unknown field dim"):
        FaceEmbedder.from_pretrained(tmp_path)
