"""Feed damaged files to the readers: each must be read, or refused in one line; never a traceback, a hang, a crash.

python scripts/dev/fuzz.py [--kinds video picture ...] [--count 1000] [--seed 0]

Every kind starts from valid files made here, damaged at random places (bits, bytes, lengths, cut or repeated pieces).
The readers run in a process of their own with 4 GiB of address space and 20 s per file. Prints a table; the exit code
is 1 where a file did harm, and that file is kept in --folder.
"""

import argparse
import importlib
import json
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from meta_animator.cli import run
from meta_animator.errors import UserError

MEMORY, SECONDS = 4 << 30, 20.0
IN_PLACE = ("manifest.jsonl", "shards.jsonl", "00000.tar", "a_images.tsv")  # what is found by its name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--count", type=int, default=1000, help="damaged files per kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where harmful files are kept; by default none are")
    options = parser.parse_args()
    for module in ("decord", "av", "torch", "meta_animator.data.manifest", "meta_animator.weights"):
        importlib.import_module(module)  # once, before forking
    print(f"{'kind':<14} {'files':>6} {'read':>6} {'refused':>8} {'harm':>6} {'slowest':>8}  first harm")
    harm = [damage(kind, options.count, options.seed, options.folder) for kind in options.kinds]
    sys.exit(any(harm))


def damage(kind: str, count: int, seed: int, keep: Path | None) -> int:
    """Try `count` damaged files of a kind; returns how many did harm."""
    choice = random.Random(f"{seed} {kind}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valid, read = KINDS[kind](folder)
        outcomes, slowest, first, reader = {"read": 0, "refused": 0, "harm": 0}, 0.0, "", Reader(read)
        for path in valid:
            if (answer := reader.ask(path)) != "read":
                raise SystemExit(f"{kind}: the undamaged {path.name} is not read: {answer}")
        for number in range(count):
            source = valid[number % len(valid)]
            target = source if source.name in IN_PLACE else source.with_name(f"damaged{source.suffix}")
            whole = source.read_bytes()
            target.write_bytes(mutate(whole, choice))
            begin = time.monotonic()
            answer = reader.ask(target)
            slowest = max(slowest, time.monotonic() - begin)
            outcomes[answer if answer in outcomes else "harm"] += 1
            if answer not in outcomes:
                first = first or f"{number}: {answer}"
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(target, keep / f"{kind}-{number}{target.suffix}")
            source.write_bytes(whole)
        reader.end()
    counts = " ".join(f"{outcomes[key]:>{width}}" for key, width in (("read", 6), ("refused", 8), ("harm", 6)))
    print(f"{kind:<14} {count:>6} {counts} {slowest:>7.2f}s  {first or '-'}", flush=True)
    return outcomes["harm"]


class Reader:
    """A process that reads files when asked, and is replaced when it dies or hangs."""

    def __init__(self, read: Callable[[Path], None]):
        self.read = read
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, self.read), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, path: Path) -> str:
        """ "read", "refused", or what went wrong."""
        self.pipe.send(path)
        try:
            if self.pipe.poll(SECONDS):
                return self.pipe.recv()
            answer = f"no answer within {SECONDS:.0f} s"
        except EOFError:
            self.process.join()
            answer = f"the process died ({self.process.exitcode})"
        self.end()
        self._start()
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.join()


def serve(pipe: Connection, read: Callable[[Path], None]) -> None:
    import av

    av.logging.set_level(av.logging.PANIC)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    while True:
        path = pipe.recv()
        try:
            read(path)
            answer = "read"
        except UserError as error:
            answer = "refused" if len(str(error).splitlines()) == 1 else f"more than one line: {str(error)[:200]!r}"
        except BaseException as error:
            answer = f"{type(error).__name__}: {str(error)[:200]}"
        pipe.send(answer)


def mutate(data: bytes, choice: random.Random) -> bytes:
    """One to eight damages."""
    data = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 2, 4, 8))):
        if not data:
            break
        place, length = choice.randrange(len(data)), choice.choice((1, 2, 4, 8, 64, 1024))
        kind = choice.randrange(7)
        if kind == 0:
            data[place] ^= 1 << choice.randrange(8)
        elif kind == 1:
            data[place : place + length] = choice.randbytes(len(data[place : place + length]))
        elif kind == 2:
            data[place : place + 4] = choice.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        elif kind == 5:
            del data[place:]
        else:
            other = choice.randrange(len(data))
            data[place : place + length] = data[other : other + length]
    return bytes(data)


# kinds: valid files in a folder, and what reads one of them


def videos(folder: Path):
    from meta_animator.media.video import VideoSource, write_video

    frames = np.random.default_rng(0).integers(0, 255, (12, 48, 64, 3), np.uint8)
    frames[:] = frames.mean(axis=(1, 2), keepdims=True)

    def read(path: Path) -> None:
        source = VideoSource(path)
        source.read(range(min(source.num_frames, 64)))

    return [write_video(folder / f"{k}.mp4", frames, 12, gop=gop) for k, gop in enumerate((1, 12))], read


def pictures(folder: Path):
    from PIL import Image

    from meta_animator.media.images import read_alpha, read_image

    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    files = {"a.png": picture, "b.jpg": picture, "c.webp": picture, "d.png": picture.convert("RGBA"), "e.tif": picture}
    files |= {"f.bmp": picture, "g.png": picture.quantize(8)}
    for name, image in files.items():
        image.save(folder / name)

    def read(path: Path) -> None:
        read_image(path)
        read_alpha(path)

    return [folder / name for name in files], read


def maps(folder: Path):
    from meta_animator.media.images import read_map, write_image

    values = np.random.default_rng(0).integers(0, 65535, (24, 32), np.uint16)
    return [write_image(folder / "a.png", values), write_image(folder / "b.png", (values >> 8).astype(np.uint8))], read_map


def layers_of_others(folder: Path):
    from meta_animator.data.formats.maps import LAYERS, Maps
    from meta_animator.media.images import write_image

    values = np.random.default_rng(0).integers(0, 28, (24, 32), np.uint8)
    colours = np.repeat(values[..., None] * 9, 3, axis=2)
    arrays = {"mask": (values > 9) * np.uint8(255), "depth": values * np.uint16(2000), "normal": colours, "parts": values}

    def read(path: Path) -> None:
        for layer in LAYERS if path.stem == "damaged" else [path.stem]:
            try:
                Maps(layer, [path]).read(0, (48, 64))
            except UserError as error:
                refused = error
            else:
                return
        raise refused

    return [write_image(folder / f"{layer}.png", array) for layer, array in arrays.items()], read


def keypoints(folder: Path):
    from meta_animator.data.clips import read_keypoints

    points = np.random.default_rng(0).uniform(0, 64, (3, 133, 3)).astype(np.float32)
    np.savez(folder / "a.npz", keypoints=points, width=64, height=48, fps=12.0)
    np.savez_compressed(folder / "b.npz", keypoints=points)
    return [folder / "a.npz", folder / "b.npz"], read_keypoints


def keypoint_json(folder: Path):
    from meta_animator.data.clips import read_keypoints

    points = np.random.default_rng(0).uniform(1, 64, (133, 3)).round(2)
    body, flat = points[:25], [float(value) for value in points[:25].reshape(-1)]
    mmpose = {"keypoints": points[:, :2].tolist(), "keypoint_scores": [0.9] * 133}
    hands = {"hand_left_keypoints_2d": [1.5] * 63, "hand_right_keypoints_2d": None}
    image = {"id": 1, "file_name": "1.jpg", "width": 64, "height": 64}
    values = {
        "openpose": {"people": [{"pose_keypoints_2d": flat, **hands}], "canvas_width": 64, "canvas_height": 64},
        "mmpose": {"instance_info": [{"frame_id": k, "instances": [mmpose]} for k in (1, 2)]},
        "rtmlib": [{"keypoints": [points[:, :2].tolist()], "scores": [[0.9] * 133]}],
        "coco": {"images": [image], "annotations": [{"image_id": 1, "keypoints": body[:17].reshape(-1).tolist()}]},
    }
    for name, value in values.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return sorted(folder.glob("*.json")), read_keypoints


def manifests(folder: Path):
    from meta_animator.data.layers import Layers
    from meta_animator.data.manifest import read_manifest
    from meta_animator.data.writer import DatasetWriter

    frame = np.zeros((16, 16, 3), np.uint8)
    with DatasetWriter(folder / "data") as writer:
        for name in ("one", "two"):
            layers = [Layers(frame=frame, mask=frame[..., 0] > 0, keypoints=np.zeros((133, 3), np.float32))] * 2
            writer.add(id=name, identity=name, layers=layers, fps=12)

    def read(path: Path) -> None:
        for clip in read_manifest(path.parent):
            clip.load(0)

    return [folder / "data" / "manifest.jsonl"], read


def shards(folder: Path):
    from meta_animator.data.manifest import read_manifest
    from meta_animator.data.shard_writer import write_shards

    (path,), _ = manifests(folder)
    write_shards(path.parent, folder / "shards", 1)

    def read(path: Path) -> None:
        for clip in read_manifest(path.parent):
            clip.load(0)
            clip.stamp()

    return [folder / "shards" / "shards.jsonl", folder / "shards" / "00000.tar"], read


def tsv_files(folder: Path):
    import base64

    from meta_animator.preparation.formats.tsv import unpack

    rows = [f"Dance_1_{k:04d}.png\t{base64.b64encode(b'%cPNG' % 0x89 + bytes(40)).decode()}" for k in range(3)]
    (folder / "a_images.tsv").write_text("\n".join(rows))

    def read(path: Path) -> None:
        with tempfile.TemporaryDirectory() as into:
            unpack([path], Path(into))

    return [folder / "a_images.tsv"], read


def configs(folder: Path):
    from meta_animator.config import load_config

    for path in (Path(__file__).parents[2] / "configs" / "demo").glob("*.yaml"):
        shutil.copy(path, folder)
    return sorted(folder.glob("step*.yaml")), load_config


def weights(folder: Path):
    import torch

    from meta_animator.weights import load_tensors, save_tensors

    tensors = {f"layer.{k}.weight": torch.arange(12.0).view(3, 4) for k in range(4)}
    save_tensors(tensors, folder / "a.safetensors", metadata={"task": "dwpose"})
    return [folder / "a.safetensors"], load_tensors


def checkpoints(folder: Path):
    from meta_animator.json_files import read_json

    (folder / "manifest.json").write_text(json.dumps({"stage": "control", "step": 3, "tasks": ["dwpose"], "lora_rank": 4}))
    return [folder / "manifest.json"], read_json


KINDS = {
    "video": videos, "picture": pictures, "map": maps, "layer": layers_of_others, "keypoints": keypoints,
    "keypoint_json": keypoint_json, "manifest": manifests, "shards": shards, "tsv": tsv_files, "config": configs,
    "weights": weights, "checkpoint": checkpoints,
}  # fmt: skip

if __name__ == "__main__":
    run(main)
