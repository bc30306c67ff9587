"""Record a short run of every stage, to show that a rebuilding changes nothing: python scripts/dev/record.py FOLDER

Writes FOLDER/record.json: the metrics of every step, and a SHA-256 of every weight file and of every picture that stage 3
writes, from the embedded base on a few puppets. A second recording, of another version of the code on the same machine, with
`--compare OTHER/record.json` says what differs and ends with 1. Minutes on 2 CPU cores. Both need the same number of threads
(OMP_NUM_THREADS).
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from meta_animator.cli import run

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for the runs and the recording")
    parser.add_argument("--compare", type=Path, help="an earlier record.json")
    args = parser.parse_args()
    folder = args.folder.resolve()
    for command in commands(folder):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True)
    found = recording(folder)
    (folder / "record.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"recorded {len(found)} files: {folder / 'record.json'}")
    if args.compare is None:
        return
    before = json.loads(args.compare.read_text(encoding="utf-8"))
    different = [name for name in sorted(before.keys() | found.keys()) if before.get(name) != found.get(name)]
    print("\n".join(["differ:", *different]) if different else "all are equal")
    if different:
        sys.exit(1)


def commands(folder: Path) -> list[list[str]]:
    """What is run, in this order; every training is a few steps, with both terms of the loss."""
    data, cache = folder / "data", f"data.cache_dir={folder}/cache"
    few = ["train.preview_every=0", "train.log_every=1", "data.puppets.root=", cache]
    train, person = f"data.train=[{data}/train]", [f"sample.reference={data}/person", f"sample.driving={data}/driving"]
    control, motion = f"model.control_from={folder}/step0", f"model.motion_from={folder}/step1"
    tuned = f"model.control_from={folder}/step2"
    image = ["loss.max_noise_level=0.9", "loss.face_weight=0.1", "model.face=assets/base/face"]

    def stage(name: str, *settings: str, script: str = "train", config: str = "") -> list[str]:
        return [f"scripts/{script}.py", f"configs/demo/{config or name}.yaml", f"output_dir={folder}/{name}", *settings]

    sampling = ["sample.num_inference_steps=3", "sample.window=6", "sample.overlap=2"]
    tasks, solver = "sample.tasks={dwpose: 1.0, canny: 0.5}", "sample.sampler=dpm_solver_2m"
    base = ["train.max_steps=3", "train.batch_size=4", train, *few]
    return [
        ["scripts/make_puppets.py", str(data), "--identities", "6", "--frames", "6", "--photos", "5", "--driving-frames", "10"],
        stage("step0", "train.max_steps=10", "train.batch_size=2", "loss.start_step=4", train, *image, *few),
        stage("step1", "train.max_steps=3", "train.batch_size=1", "data.num_frames=4", control, train, *few),
        stage(
            "step2", "train.max_steps=6", "train.batch_size=2", "train.gradient_accumulation_steps=2", "loss.start_step=2",
            "data.cache_latents=false", control, f"data.train=[{data}/person]", f"data.auxiliary=[{data}/train]",
            "loss.max_noise_level=0.9", *few,
        ),
        stage("step3", tuned, motion, *person, *sampling, script="sample"),
        stage(
            "frames", tuned, *person, "model.motion_from=", "sample.num_inference_steps=3", "sample.max_frames=4", tasks, solver,
            script="sample", config="step3",
        ),
        stage("loras", f"extract.checkpoint={folder}/step2", script="extract_lora", config="extract"),
        stage("base_vae", *base),
        stage("base_face", *base),
        stage("base_unet", *base, "model.base=assets/base"),
    ]  # fmt: skip


def recording(folder: Path) -> dict[str, Any]:
    """{file: its metrics, or a SHA-256 of its tensors or pixels}"""
    from meta_animator.media.images import read_image
    from meta_animator.weights import load_tensors

    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if name.startswith(("cache/", "data/")):
            continue
        if path.name == "metrics.jsonl":
            found[name] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        elif path.suffix == ".safetensors":
            digest = hashlib.sha256()
            for key, tensor in sorted(load_tensors(path).items()):
                digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
            found[name] = digest.hexdigest()
        elif path.suffix == ".png":
            found[name] = hashlib.sha256(read_image(path).tobytes()).hexdigest()
    return found


if __name__ == "__main__":
    run(main)
