import cv2
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from meta_animator.evaluation.frames import frame_metrics, frame_scores, mean_scores, ssim, warped_flicker

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 256, (3, 16, 20, 3), dtype=np.uint8)


def shifted(amounts):
    """Frames that differ from mid-gray by a constant each."""
    truth = np.full((len(amounts), 16, 20, 3), 100, np.uint8)
    return truth + np.array(amounts, np.uint8).reshape(-1, 1, 1, 1), truth


def test_equal_frames_have_the_best_values():
    result = frame_metrics(TRUTH, TRUTH, np.ones(TRUTH.shape[:3], bool), [(0, 0, 5, 5)] * 3)
    assert result == {
        "psnr": 100, "ssim": pytest.approx(1), "l1": 0, "person_psnr": 100, "person_l1": 0, "face_psnr": 100,
        "frames": 3, "person_frames": 3, "face_frames": 3,
    }  # fmt: skip


def test_psnr_is_a_mean_over_frames_and_never_wraps_around():
    result = frame_metrics(*shifted([5, 50]))
    by_hand = [20 * np.log10(255 / amount) for amount in (5, 50)]
    assert result["psnr"] == pytest.approx(np.mean(by_hand))
    assert result["l1"] == pytest.approx(27.5)
    dark, bright = np.zeros_like(TRUTH), np.full_like(TRUTH, 255)
    assert frame_metrics(dark, bright)["psnr"] == pytest.approx(0)
    noisy = RNG.integers(0, 256, TRUTH.shape, dtype=np.uint8)
    expected = np.mean([peak_signal_noise_ratio(t, g, data_range=255) for t, g in zip(TRUTH, noisy, strict=True)])
    assert frame_metrics(noisy, TRUTH)["psnr"] == pytest.approx(expected)


def test_ssim_is_that_of_scikit_image():
    for truth, noise in ((TRUTH[0], 255), (TRUTH[1] // 4, 20), (np.full((9, 7, 3), 200, np.uint8), 9)):
        other = np.clip(truth.astype(int) + RNG.integers(-noise, noise + 1, truth.shape), 0, 255).astype(np.uint8)
        colour = structural_similarity(truth, other, channel_axis=-1, data_range=255)
        assert ssim(other, truth) == pytest.approx(colour, abs=1e-12)
        gray = structural_similarity(*(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (truth, other)))
        assert ssim(other, truth, gray=True) == pytest.approx(gray, abs=1e-12)
    with pytest.raises(ValueError, match="at least 7 x 7"):
        ssim(TRUTH[0, :6], TRUTH[0, :6])


def test_person_and_face_are_measured_where_they_are():
    truth = np.zeros((3, 16, 20, 3), np.uint8)
    generated = truth.copy()
    generated[:, 4:8, 4:8] = 51
    masks = np.zeros((3, 16, 20), bool)
    masks[0, 4:8, 4:8] = True
    masks[1, 4:8, 4:12] = True
    result = frame_metrics(generated, truth, masks, [(4, 4, 8, 8), None, (-10, -10, -2, -2)])
    assert result["person_frames"] == 2 and result["face_frames"] == 1
    assert result["person_l1"] == pytest.approx((51 + 25.5) / 2)
    assert result["face_psnr"] == pytest.approx(20 * np.log10(5))
    assert result["person_psnr"] == pytest.approx(20 * np.log10(5) + 10 * np.log10(2) / 2)


def test_every_region_has_its_own_values_for_each_frame():
    """A person that is wrong by 51, a background by 10 and a face by 20, each alone where its own values are taken."""
    truth = np.full((2, 32, 40, 3), 100, np.uint8)
    masks = np.zeros((2, 32, 40), bool)
    masks[:, :, :20] = True
    generated = truth + np.where(masks[..., None], np.uint8(51), np.uint8(10))
    generated[1, :8, 20:30] = 120
    scores = frame_scores(generated, truth, [masks[0], None], [None, (20, -5, 30, 8)])
    assert scores["person_l1"] == [51, None] and scores["background_l1"] == [10, None] and scores["face_l1"] == [None, 20]
    assert scores["face_psnr"][1] == pytest.approx(20 * np.log10(255 / 20))
    assert scores["l1"] == [pytest.approx(30.5), pytest.approx(30.5 + 10 * 80 / 1280)]
    _, maps = structural_similarity(truth[0], generated[0], channel_axis=-1, data_range=255, full=True)
    inside = (slice(3, -3), slice(3, 20))  # scikit-image leaves out half a window at the border, too
    assert scores["person_ssim"][0] == pytest.approx(maps[inside].mean(), abs=1e-12)
    assert mean_scores(scores)["person_l1"] == 51 and mean_scores({"x": [None, None]}) == {"x": None}
    assert mean_scores({"x": [1.0, None, 3.0]}) == {"x": 2}


def test_flicker_is_the_error_of_what_changes():
    truth = np.zeros((3, 16, 20, 3), np.uint8)
    truth[1:] += 40
    steady, still = truth + np.uint8(9), np.zeros_like(truth)
    masks = np.ones((3, 16, 20), bool)
    masks[:, :8] = False
    assert frame_scores(steady, truth)["flicker"] == [None, 0, 0]
    assert frame_scores(still, truth)["flicker"] == [None, 40, 0]
    blinking = truth.copy()
    blinking[2, 8:] += 30
    scores = frame_scores(blinking, truth, masks)
    assert scores["flicker"] == [None, 0, 15] and scores["person_flicker"] == [None, 0, 30]
    assert scores["background_flicker"] == [None, 0, 0]


def test_without_persons_and_faces_their_values_are_none():
    result = frame_metrics(TRUTH, TRUTH, np.zeros(TRUTH.shape[:3], bool), [None] * 3)
    assert result["person_psnr"] is result["person_l1"] is result["face_psnr"] is None
    assert frame_metrics(TRUTH, TRUTH)["face_psnr"] is None


def test_disco_compat_has_the_psnr_that_overflows():
    """Of a difference of 20 in 8 bits, 20^2 = 400 counts as 144; of -20, 236^2 the same; of 16, as none at all."""
    result = frame_scores(*shifted([20, 16]), mode="disco_compat")
    assert result["psnr_overflow"] == [pytest.approx(10 * np.log10(255**2 / 144)), 100]
    assert frame_scores(*reversed(shifted([20, 16])), mode="disco_compat")["psnr_overflow"] == result["psnr_overflow"]
    assert result["psnr"][0] == pytest.approx(20 * np.log10(255 / 20))
    assert result["l1"] == [pytest.approx(20 / 320), pytest.approx(16 / 320)]


def test_disco_compat_changes_the_units_of_l1_and_the_colours_of_ssim():
    noisy = RNG.integers(0, 256, TRUTH.shape, dtype=np.uint8)
    ours, theirs = frame_metrics(noisy, TRUTH), frame_metrics(noisy, TRUTH, mode="disco_compat")
    assert theirs["l1"] == pytest.approx(ours["l1"] / (16 * 20))
    assert theirs["psnr"] == ours["psnr"] and theirs["ssim"] != ours["ssim"]
    gray_only = TRUTH.copy()
    gray_only[..., :] = TRUTH[..., :1]
    assert frame_metrics(gray_only, gray_only, mode="disco_compat")["ssim"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((TRUTH.astype(np.float32), TRUTH), "generated"),
        ((TRUTH, TRUTH[:2]), "shape"),
        ((TRUTH, TRUTH, np.ones((3, 16, 20), np.uint8)), "masks"),
        ((TRUTH, TRUTH, None, [None]), "face_boxes"),
        ((TRUTH, TRUTH, None, None, "fast"), "mode"),
    ],
)
def test_wrong_input_is_named(arguments, word):
    with pytest.raises(ValueError, match=word):
        frame_metrics(*arguments)


def test_flicker_along_the_motion_sees_what_sticks_to_the_screen():
    """A textured square moves a pixel a frame. A generated one that carries its own error along does not flicker; an error that
    stays where it is on the screen does."""
    rng = np.random.default_rng(1)
    square, error = rng.integers(60, 200, (8, 8, 3)), rng.integers(0, 40, (8, 8, 3))
    truth, carried = np.zeros((2, 3, 16, 20, 3), np.uint8)
    flow = np.full((2, 16, 20, 2), np.nan, np.float32)
    for k in range(3):
        truth[k, 4:12, 4 + k : 12 + k], carried[k, 4:12, 4 + k : 12 + k] = square, square + error
        if k:
            flow[k - 1, 4:12, 4 + k : 12 + k] = (-1, 0)
    assert warped_flicker(carried, truth, flow) == [None, 0, 0]
    stuck = truth + np.where(truth > 0, carried[:1] - truth[:1], 0).astype(np.uint8)
    measured = warped_flicker(stuck, truth, flow)
    by_hand = np.abs((stuck[1].astype(int) - truth[1])[4:12, 5:13] - (stuck[0].astype(int) - truth[0])[4:12, 4:12]).mean()
    assert measured[1] == pytest.approx(by_hand) and by_hand > 5
    with pytest.raises(ValueError, match="flow: expected"):
        warped_flicker(stuck, truth, flow[:1])


class Distance:
    """A stand-in for LPIPS: the mean difference of the colours."""

    def __init__(self):
        self.counts = []

    def __call__(self, generated, truth, unscaled=False):
        return [float(value) for value in np.abs(generated.astype(float) - truth).mean((1, 2, 3))]

    def maps(self, generated, truth):
        self.counts.append(len(truth))
        return np.abs(generated.astype(float) - truth).mean(-1)


def test_maps_of_a_film_are_made_a_few_frames_at_once():
    rng = np.random.default_rng(0)
    generated, truth = rng.integers(0, 255, (2, 40, 16, 16, 3), dtype=np.uint8)
    masks = rng.random((40, 16, 16)) < 0.5
    network = Distance()
    scores = frame_scores(generated, truth, masks, lpips=network)
    assert network.counts == [16, 16, 8]
    wanted = [np.abs(a.astype(float) - b).mean(-1)[where].mean() for a, b, where in zip(generated, truth, masks, strict=True)]
    assert scores["person_lpips"] == pytest.approx(wanted) and len(scores["background_lpips"]) == 40
