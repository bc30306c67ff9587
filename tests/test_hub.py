"""Up to a model hub and back, through the hub's own client, against a hub on this machine."""

import json
import os
import subprocess
import sys

import pytest

from tests import hub, tiny

BACK = """
import sys
from pathlib import Path
import torch
from huggingface_hub import HfApi
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.control import MetaControlNet
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.settings import ModelConfig
from tests import tiny

here = Path(sys.argv[1])
theirs = load_backbone(ModelConfig(base="someone/base"))
assert theirs.fingerprint() == load_backbone(ModelConfig(base=str(here / "base"))).fingerprint()
named = load_backbone(ModelConfig(base=str(here / "base"), tokenizer="someone/words"))
assert named.tokenizer.get_vocab() == theirs.tokenizer.get_vocab()
for wrong in ({"base": "someone/else"}, {"base": str(here / "base"), "tokenizer": "someone/else"}):
    try:
        load_backbone(ModelConfig(**wrong))
        raise AssertionError(wrong)
    except UserError as error:
        assert "someone/else" in str(error) and "hub" in str(error), error

config = tiny.make_config(here / "run", here / "base", here).model
models = Assembly(config, theirs, with_motion=True)
tiny.randomise_zeros(models.control)
tiny.randomise_zeros(models.motion)
pipe = MetaAnimatorPipeline.from_assembly(models)
pipe.save_pretrained(here / "saved")
HfApi().create_repo("me/animator", token="hf_x")
HfApi().upload_file(path_or_fileobj=here / "saved" / "README.md", path_in_repo="README.md", repo_id="me/animator", token="hf_x")
pipe.push_to_hub("me/animator", token="hf_x")
models.control.push_to_hub("me/control", token="hf_x")
pipes = [pipe, MetaAnimatorPipeline.from_pretrained("me/animator")]
for one in pipes:
    one.set_progress_bar_config(disable=True)
arguments = {"prompt": "person", "num_inference_steps": 2, "output_type": "latent"}
arguments["conditions"] = {"dwpose": torch.rand(3, 3, 64, 64)}
ours, back = (one(**arguments, generator=torch.Generator().manual_seed(0)).frames for one in pipes)
torch.testing.assert_close(back, ours)
state = MetaControlNet.from_pretrained("me/control").state_dict()
assert state.keys() == models.control.state_dict().keys()
assert all(torch.equal(state[name], weight) for name, weight in models.control.state_dict().items())
print("all as it went")
"""


@pytest.mark.timeout(240)
def test_base_models_pipelines_and_control_networks_by_name(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    with hub.serve() as (address, repositories):
        files = {str(f.relative_to(base)): f.read_bytes() for f in base.rglob("*") if f.is_file() and "face" not in f.parts}
        parts = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
        index = {"_class_name": "StableDiffusionPipeline", **{name: ["diffusers", kind] for name, kind in parts.items()}}
        index |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
        repositories["someone/base"] = {**files, "model_index.json": json.dumps(index).encode()}
        words = {name.removeprefix("tokenizer/"): content for name, content in files.items() if name.startswith("tokenizer/")}
        repositories["someone/words"] = words
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-c", BACK, str(tmp_path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stdout.strip().endswith("all as it went"), done.stderr[-2000:]
        assert {"me/animator", "me/control"} <= set(repositories)
        assert b"# Meta-Animator: pipeline" in repositories["me/animator"]["README.md"], "diffusers keeps a card that is there"
        assert b"# Meta-Animator: pipeline" not in repositories["me/control"]["README.md"]
