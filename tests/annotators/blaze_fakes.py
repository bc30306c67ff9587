"""Networks that tests make: functions that see spots of colour where the real ones see people."""

import cv2
import numpy as np

from meta_animator.annotators.blaze.boxes import make_anchors
from meta_animator.annotators.blaze.people import SIZE, STRIDES
from meta_animator.annotators.blaze.pose import ALL_POINTS, HEAD, MARGIN, POINTS

RED, GREEN, BLUE = (0, 1, 2)
SURE, NEVER = 9.0, -9.0  # logits


def picture(size, spots):
    """uint8 (h, w, 3), black, with round spots (x, y, radius, channel) whose edges are soft."""
    image = np.zeros((*size, 3), np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    for at_x, at_y, radius, channel in spots:
        value = np.clip(radius + 0.5 - np.hypot(x - at_x, y - at_y), 0, 1) * 255
        image[..., channel] = np.maximum(image[..., channel], value)
    return image


def middle(crop, channel):
    """x and y of a channel's spot as shares of the crop (1, n, n, 3) and its area in pixels; (0, 0, 0) where none is."""
    values = np.clip(crop[0, ..., channel], 0, 1)
    if values.sum() < 1:
        return 0.0, 0.0, 0.0
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    return (values * x).sum() / values.sum() / len(values), (values * y).sum() / values.sum() / len(values), values.sum()


class FakePeople:
    """Detects red spots with an area of at least `least` pixels of its crop: the hips' middle; the head is `up` radii above."""

    def __init__(self, least=150.0, up=4.0, score=0.99):
        self.least, self.up, self.logit, self.asked = least, up, np.log(score / (1 - score)), 0

    def __call__(self, crop):
        self.asked += 1
        anchors = make_anchors(SIZE, STRIDES)
        values, logits = np.zeros((1, len(anchors), 12), np.float32), np.full((1, len(anchors), 1), NEVER, np.float32)
        count, _, stats, centres = cv2.connectedComponentsWithStats((crop[0, ..., RED] > 0).astype(np.uint8))
        for k in range(1, count):
            area, at = stats[k, cv2.CC_STAT_AREA], centres[k] / SIZE
            nearest = np.hypot(*(anchors - at).T).argmin()
            reach = self.up * np.sqrt(area / np.pi) / SIZE
            points = np.array([at, at - [0, reach], at, at]) - anchors[nearest]
            values[0, nearest] = np.concatenate([at - anchors[nearest], [reach, reach], points.ravel()]) * SIZE
            logits[0, nearest] = self.logit if area >= self.least else NEVER
        return [values, logits]


class FakePose:
    """A pose whose head is in the middle of the red spot and whose left and right points are on its edge, pair by pair; the
    green spot is the top of the circle around the person, and the mask is where blue is. `shifty` is by how many pixels of
    its crop it is wrong, to another side with each look."""

    def __init__(self, present=1.0, shifty=0.0, visible=SURE):
        self.present, self.shifty, self.visible, self.asked = present, shifty, visible, 0

    def __call__(self, crop):
        self.asked += 1
        size = crop.shape[1]
        points = np.zeros((ALL_POINTS, 5), np.float32)
        x, y, area = middle(crop, RED)
        top_x, top_y, top = middle(crop, GREEN)
        points[:, :2] = np.array([x, y]) * size
        turns = np.linspace(-1.5, 1.5, (POINTS - HEAD.stop) // 2)
        ring = np.sqrt(area / np.pi) * np.stack([np.cos(turns), np.sin(turns)], 1)
        points[HEAD.stop : POINTS : 2, :2] += ring
        points[HEAD.stop + 1 : POINTS : 2, :2] += ring * [-1, 1]
        points[:POINTS, 1] += self.shifty * (-1) ** self.asked
        points[POINTS + 1, :2] = (np.array([top_x, top_y]) if top else np.array([x, y - 0.5 / MARGIN])) * size
        points[:, 3] = self.visible
        heatmaps = np.full((1, 64, 64, ALL_POINTS), NEVER, np.float32)
        mask = np.where(crop[..., BLUE] > 0.5, SURE, NEVER).astype(np.float32)[..., None]
        present = self.present if area > 1 else 0.0
        return [points.reshape(1, -1), np.array([[present]], np.float32), mask, heatmaps, None]
