"""A run on tar shards is the run on the folder that they were packed from."""

import fsspec
import torch

from meta_animator.data.shard_writer import write_shards
from meta_animator.stages.train import train
from meta_animator.weights import load_tensors


def test_training_on_shards_at_a_url_ends_with_the_same_weights(make_config, tmp_path):
    folder = make_config(name="folder", train__max_steps=2)
    write_shards(folder.data.train[0], tmp_path / "shards", 0.05)
    fsspec.filesystem("memory").put(str(tmp_path / "shards"), "/packed", recursive=True)
    packed = make_config(name="packed", train__max_steps=2, data__train="[memory://packed]", data__num_workers=1)
    ends = []
    for config in (folder, packed):
        train(config)
        files = sorted((tmp_path / config.output_dir / "checkpoints" / "step-000002").glob("*.safetensors"))
        ends.append({f"{file.name} {name}": tensor for file in files for name, tensor in load_tensors(file).items()})
    assert ends[0].keys() == ends[1].keys() and len(ends[0]) > 10
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
