"""Which networks are there to compare by: each is used where its weights are, and else missed with one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from meta_animator import published
from meta_animator.devices import compute_device
from meta_animator.errors import UserError
from meta_animator.evaluation.comparison import Judges
from meta_animator.evaluation.features import FILES, FeatureNetwork, load_features
from meta_animator.evaluation.perceptual import load_lpips, trunk_file
from meta_animator.evaluation.protocols import Protocol
from meta_animator.models.arcface import load_face
from meta_animator.published.entries import sha256_of

OFF = "off"
SFACE = "sface"


def load_judges(
    protocol: Protocol, *, lpips: str = "", lpips_trunk: str = "", weights: Mapping[str, str] | None = None, face: str = SFACE,
    annotators: Any = None, folder: Path | None = None, device: str = "",
) -> tuple[Judges, dict[str, str], dict[str, str]]:  # fmt: skip
    """(networks, {name: sha256 or version of its weights}, {metric: why it is missing}).

    lpips        "alex", "vgg" or "off"; empty: the protocol's
    lpips_trunk  its file; empty: torch's cache
    weights      {"fid", "fid_vid" or "fvd": file, "" for torch's cache, or "off"}
    face         "sface" (see published.yaml), what `models.arcface.load_face` reads, such as an ArcFace's file, or "off"
    annotators   an `annotators.sets.AnnotatorSet`, or a line that says why there is none
    device       of LPIPS and of the networks of features; empty: cuda where there is one
    folder       of weights that published.yaml lists, looked into before this program's cache

    Raises UserError for files that are named and cannot be used.
    """
    known, missing = {}, {}
    device = device or compute_device().type
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter without CUDA
        raise UserError(f"--device {device}: cannot be used ({str(error).splitlines()[0][:200]})") from error
    judge = None
    net = lpips or protocol.lpips
    if protocol.truth and net != OFF:
        judge = load_lpips(net, lpips_trunk, device)
        if judge is None:
            missing["lpips"] = f"{trunk_file(net)} is not there"
        else:
            known[f"lpips {net}"] = sha256_of(Path(lpips_trunk) if lpips_trunk else trunk_file(net))
    features: dict[str, FeatureNetwork] = {}
    for metric in FILES if protocol.truth else ():
        path = (weights or {}).get(metric, "")
        if path == OFF:
            continue
        network = load_features(metric, path, folder, device)
        if isinstance(network, str):
            missing[metric] = network
        else:
            features[metric], known[metric] = network, network.sha256
    embedder = None if face == OFF else _face(face, folder, known, missing)
    if isinstance(annotators, str):
        missing["pose_error"] = annotators
    elif annotators is not None:
        known |= {f"annotator of {role}": version for role, version in annotators.versions.items()}
    found = None if isinstance(annotators, str) else annotators
    return Judges(lpips=judge, features=features, face=embedder, annotators=found), known, missing


def _face(face: str, folder: Path | None, known: dict[str, str], missing: dict[str, str]) -> torch.nn.Module | None:
    if face == SFACE:
        try:
            face = find_sface(folder)
        except UserError as error:
            missing["face_similarity"] = str(error)
            return None
    embedder = load_face(face, "--face")
    file = Path(face) / "model.safetensors" if Path(face).is_dir() else Path(face)
    known["face"] = sha256_of(file)
    return embedder


def find_sface(folder: Path | None = None) -> str:
    """Its file, in `folder` or the program's cache. Raises UserError where it has not been fetched."""
    return str(published.find(SFACE, folder, fetch=False))
