"""A set of generated clips against true ones: per clip, in the mean with an interval, and as distributions."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meta_animator.data.keypoints import face_box
from meta_animator.data.layers import Layers
from meta_animator.errors import UserError
from meta_animator.evaluation.features import FeatureNetwork, Windows
from meta_animator.evaluation.frames import Perceptual, Scores, frame_scores, mean_scores, region_mean
from meta_animator.evaluation.frechet import frechet_distance
from meta_animator.evaluation.leaks import seen_before
from meta_animator.evaluation.people import Annotators, embed_faces, find_poses, pose_error, similarities
from meta_animator.evaluation.protocols import Protocol
from meta_animator.evaluation.sources import Source, load_pair, middle, photos_as_shown

RESAMPLES = 10_000
LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judges:
    """The networks that are there; what is None is left out.

    features   for "fid", "fid_vid" and "fvd"
    face       offers embed_face and large_enough, see `models.face`
    annotators find people and their keypoints, where a data set does not tell them
    """

    lpips: Perceptual | None = None
    features: Mapping[str, FeatureNetwork] = dataclasses.field(default_factory=dict)
    face: Any = None
    annotators: Annotators | None = None


def compare(
    pairs: Mapping[str, tuple[Source, Source]], protocol: Protocol, judges: Judges, *, reference: Sequence[np.ndarray] = (),
    places: Sequence[Path] = (), seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """What pairs (generated, true) are worth: {"clips": {name: {metric: mean over frames}}, "mean": {metric: {"mean", "low",
    "high", "clips"}}, "set": {metric: distance}, "left_out": {name: numbers of frames}}.

    reference   photos uint8 (h, w, 3) that training or sampling saw: frames that are nearly equal to one are left out, but for
                the one that the protocol makes the reference photo; without a truth, the faces to compare with
    places      the data sets among them that the photos are from: what stage 3 made is held against their crops, too
    seed        of the bootstrap

    Raises UserError where a pair does not fit (see `sources.load_pair`), or nothing is left.
    """
    clips, counts, left_out = {}, {}, {}
    features: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {name: ([], []) for name in judges.features}
    for name, (ours, theirs) in pairs.items():
        generated, truth = load_pair(ours, theirs, protocol.size)
        frames = _stacked(generated), _stacked(truth)
        known = _leaks(frames[1], [*reference, *_crops(ours, generated[0].size, places, protocol)], protocol)
        if known.all():
            raise UserError(f"clip {name!r}: every frame is (nearly) a photo that training saw; nothing is left to compare")
        scores = _scores(frames, truth, protocol, judges, reference)
        scores = {metric: [v for v, seen in zip(values, known, strict=True) if not seen] for metric, values in scores.items()}
        clips[name] = mean_scores(scores) | {"frames": int((~known).sum())}
        counts[name] = {metric: sum(value is not None for value in values) for metric, values in scores.items()}
        if known.any():
            left_out[name] = np.flatnonzero(known).tolist()
        for metric, network in judges.features.items():
            for side, shown in zip(features[metric], frames, strict=True):
                side.append(_features(network, shown, known, protocol.windows))
    by_frames = protocol.average == "frames"
    return {
        "clips": clips,
        "mean": {metric: _summary(metric, clips, counts if by_frames else None, seed) for metric in _metrics(clips)},
        "set": {metric: _distance(*sides) for metric, sides in features.items()},
        "left_out": left_out,
    }


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0, level: float = LEVEL
) -> tuple[float, float] | None:
    """The interval that the (weighted) mean of values drawn anew with replacement lies in with probability `level`, between
    percentiles of 10,000 draws; None for a single value. For a comparison of methods, values are their differences per clip."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, np.float64)
    means = (np.asarray(values, np.float64) * weight)[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _crops(ours: Source, size: tuple[int, int], places: Sequence[Path], protocol: Protocol) -> list[np.ndarray]:
    """The photos as stage 3 would have cropped them; none where frames are not its own, or are cropped once more."""
    return [] if ours.margin is None or protocol.size is not None else photos_as_shown(places, size, ours.margin)


def _leaks(truth: np.ndarray, reference: Sequence[np.ndarray], protocol: Protocol) -> np.ndarray:
    """Which of the true frames uint8 (n, h, w, 3) a photo shows: bool (n,)."""
    if not protocol.truth:
        return np.zeros(len(truth), bool)
    photos = [photo if protocol.size is None else middle(Layers(frame=photo), protocol.size).frame for photo in reference]
    if (allowed := protocol.reference_frame) is not None:
        photos = [photo for photo in photos if not seen_before(truth[allowed : allowed + 1], [photo]).any()]
    return seen_before(truth, photos)


def _scores(
    frames: tuple[np.ndarray, np.ndarray], truth: list[Layers], protocol: Protocol, judges: Judges,
    reference: Sequence[np.ndarray],
) -> Scores:  # fmt: skip
    """Per frame, all metrics of one clip, of (generated, true) frames and what else is known of the truth."""
    ours, theirs = frames
    poses = [layers.keypoints for layers in truth]
    if judges.annotators is not None and all(pose is None for pose in poses):
        poses = find_poses(judges.annotators, theirs)
    our_poses = None if judges.annotators is None else find_poses(judges.annotators, ours)
    masks = [layers.mask for layers in truth]
    if protocol.truth:
        some_masks = masks if any(mask is not None for mask in masks) else None
        boxes = [None if pose is None else face_box(pose) for pose in poses]
        some_boxes = boxes if any(box is not None for box in boxes) else None
        scores = frame_scores(ours, theirs, some_masks, some_boxes, judges.lpips, protocol.mode)
    else:
        scores = _changes(ours, masks)
    if our_poses is not None:
        errors = [pose_error(a, b) for a, b in zip(our_poses, poses, strict=True)]
        scores |= {"pose_error": [error for error, _ in errors], "pose_missing": [missing for _, missing in errors]}
    if judges.face is not None:
        scores["face_similarity"] = _faces(judges, protocol, (ours, our_poses or poses), (theirs, poses), reference)
    return scores


def _faces(
    judges: Judges, protocol: Protocol, ours: tuple[np.ndarray, list], theirs: tuple[np.ndarray, list],
    reference: Sequence[np.ndarray],
) -> list[float | None]:  # fmt: skip
    """Each face with the true one of its frame; without a truth in the mean with those of the reference photos."""
    vectors = embed_faces(judges.face, *ours)
    if protocol.truth:
        return similarities(vectors, embed_faces(judges.face, *theirs))
    if judges.annotators is None:
        return [None] * len(vectors)
    photos = [pose for photo in reference for pose in find_poses(judges.annotators, [photo])]
    known = [vector for vector in embed_faces(judges.face, reference, photos) if vector is not None]
    return [None if vector is None or not known else float(np.mean([vector @ other for other in known])) for vector in vectors]


def _changes(frames: np.ndarray, masks: Sequence[np.ndarray | None]) -> Scores:
    """Mean absolute change from the frame before, 0 to 255, None for the first: of the frame, and where nobody is in the driving
    film, in either of the two frames."""
    change: list[float | None] = [None]
    background: list[float | None] = [None]
    for k in range(1, len(frames)):
        difference = np.abs(frames[k].astype(np.float64) - frames[k - 1])
        change.append(float(difference.mean()))
        known = masks[k] is not None and masks[k - 1] is not None
        background.append(region_mean(difference, ~(masks[k] | masks[k - 1])) if known else None)
    return {"change": change, "background_change": background}


def _features(network: FeatureNetwork, frames: np.ndarray, known: np.ndarray, windows: Windows) -> np.ndarray:
    if network.metric == "fid":
        return network.frames(frames[~known])
    parts = [network.films(frames[run], windows) for run in _runs(~known)]
    parts = [part for part in parts if len(part)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _runs(kept: np.ndarray) -> Iterator[slice]:
    """Where a mask (n,) is True without a break."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(int)))
    for start, stop in edges.reshape(-1, 2).tolist():
        yield slice(start, stop)


def _distance(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float | None:
    """None where there are fewer than two features, of frames or windows."""
    some = [np.concatenate([part for part in side if len(part)] or [np.zeros((0, 1))]) for side in (ours, theirs)]
    return frechet_distance(*some) if min(len(side) for side in some) >= 2 else None


def _metrics(clips: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [metric for metric in dict.fromkeys(m for row in clips.values() for m in row) if metric != "frames"]


def _summary(metric: str, clips: Mapping[str, Mapping[str, Any]], counts: Mapping | None, seed: int) -> dict[str, Any]:
    names = [name for name, row in clips.items() if row.get(metric) is not None]
    values = [clips[name][metric] for name in names]
    weights = None if counts is None else [counts[name][metric] for name in names]
    low, high = bootstrap_interval(values, weights, seed=seed) or (None, None)
    mean = float(np.average(values, weights=weights)) if values else None
    return {"mean": mean, "low": low, "high": high, "clips": len(names)}


def _stacked(layers: list[Layers]) -> np.ndarray:
    """All frames, uint8 (n, h, w, 3); those of `layers` are views of them from here on, so that films are held once."""
    frames = np.stack([one.frame for one in layers])
    layers[:] = [dataclasses.replace(one, frame=frame) for one, frame in zip(layers, frames, strict=True)]
    return frames
