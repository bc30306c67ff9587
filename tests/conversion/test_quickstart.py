"""Several of CtrLoRA's LoRAs on its base control network, joined into one checkpoint that stage 2 begins from."""

from pathlib import Path

import pytest
import torch

from meta_animator.checkpoints.files import read_weights
from meta_animator.config import load_config
from meta_animator.conversion.ctrlora import CONVENTIONS
from meta_animator.conversion.exchange import export_ctrlora, import_ctrlora
from meta_animator.conversion.motion import ANIMATEDIFF_BETAS
from meta_animator.conversion.quickstart import CHECKPOINT, STARTS, join_ctrlora, parse_loras
from meta_animator.errors import UserError
from meta_animator.published import published
from meta_animator.settings import TASKS, ModelConfig
from meta_animator.stages.networks import load_networks
from meta_animator.torch_files import read_state
from tests import tiny
from tests.conversion.test_exchange import make_run


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(base model, {"base", "dwpose", "canny": file in their layout}, our weights of the run that they come from)."""
    folder = tmp_path_factory.mktemp("theirs")
    base = tiny.make_base(folder / "base")
    models = make_run(folder / "run", base, condition_range="unit")
    theirs = {"base": folder / "base.ckpt", "dwpose": folder / "openpose.ckpt", "canny": folder / "canny.ckpt"}
    export_ctrlora(folder / "run", theirs["base"], base, "base")
    for task in ("dwpose", "canny"):
        export_ctrlora(folder / "run", theirs[task], base, "lora", task)
    return base, theirs, models.state()


def test_several_loras_share_one_base(files, tmp_path):
    base, theirs, own = files
    loras = {"dwpose": theirs["dwpose"], "pose_hamer": theirs["dwpose"], "canny": theirs["canny"]}
    metadata = join_ctrlora(theirs["base"], loras, tmp_path / "joined", ModelConfig(base=str(base)))
    assert sorted(metadata["tasks"]) == ["canny", "dwpose", "pose_hamer"] and metadata["lora_rank"] == 4
    assert metadata["condition_range"] == "unit" and metadata["condition_posterior"] == "sample"
    joined = read_weights(tmp_path / "joined")[1]
    expected = {name: weight for name, weight in own.items() if not name.startswith("motion.")}
    expected |= {n.replace("lora.dwpose.", "lora.pose_hamer."): w for n, w in expected.items() if n.startswith("lora.dwpose.")}
    assert joined.keys() == expected.keys() and all(torch.equal(joined[name], expected[name]) for name in expected)
    config = tiny.make_config(
        tmp_path / "new", base, tmp_path, model__control_from=tmp_path / "joined", model__condition_range="unit",
        model__tasks="[canny,pose_hamer,blurred]",
    )  # fmt: skip
    models = load_networks(config.model, config.loss)
    state = models.state()
    assert all(torch.equal(state[n], w) for n, w in joined.items() if not n.startswith("lora.dwpose."))


def test_a_base_file_that_kept_the_last_active_lora(files, tmp_path, capsys):
    """As the published one, whose size says so."""
    base, theirs, own = files
    lora = {name: weight for name, weight in read_state(theirs["dwpose"]).items() if ".lora_layer." in name}
    torch.save(read_state(theirs["base"]) | lora, tmp_path / "kept.ckpt")
    model = ModelConfig(base=str(base))
    metadata = join_ctrlora(tmp_path / "kept.ckpt", {"canny": theirs["canny"]}, tmp_path / "joined", model)
    assert metadata["tasks"] == ["canny"] and "left aside the one LoRA in it" in capsys.readouterr().out
    for name, weight in read_weights(tmp_path / "joined")[1].items():
        assert torch.equal(weight, own[name])
    bare = import_ctrlora(tmp_path / "kept.ckpt", tmp_path / "bare", model, {})
    named = import_ctrlora(tmp_path / "kept.ckpt", tmp_path / "named", model, {"dwpose": "dwpose"})
    assert bare["tasks"] == [] and named["tasks"] == ["dwpose"]
    onto = import_ctrlora(theirs["canny"], tmp_path / "onto", model, {"canny": "canny"}, tmp_path / "kept.ckpt")
    assert onto["tasks"] == ["canny"]


def test_half_precision_is_the_same_network(files, tmp_path):
    base, theirs, _ = files
    torch.save({name: weight.half() for name, weight in read_state(theirs["canny"]).items()}, tmp_path / "half.ckpt")
    metadata = join_ctrlora(theirs["base"], {"canny": tmp_path / "half.ckpt"}, tmp_path / "joined", ModelConfig(base=str(base)))
    assert metadata["tasks"] == ["canny"]


def test_what_cannot_be_joined_is_one_line_and_nothing_is_written(files, tmp_path):
    base, theirs, _ = files
    model = ModelConfig(base=str(base))
    state = read_state(theirs["canny"])
    tuned = next(name for name in state if "zero_convs" in name and name.endswith("weight"))
    torch.save(state | {tuned: state[tuned] + 0.01}, tmp_path / "new.ckpt")
    export_ctrlora(theirs["base"].parent / "run", tmp_path / "whole.ckpt", base)
    whole = read_state(tmp_path / "whole.ckpt")
    torch.save({name.replace(".canny.", ".hed."): weight for name, weight in whole.items()}, tmp_path / "hed.ckpt")
    wrong = [
        (theirs["base"], {"canny": tmp_path / "new.ckpt"}, r"new\.ckpt: brings its own zero convolutions .* import it alone"),
        (theirs["base"], {"canny": theirs["base"]}, r"is a base file without a LoRA"),
        (tmp_path / "whole.ckpt", {"canny": theirs["canny"]}, r"whole\.ckpt: is a whole checkpoint with LoRAs; expected"),
        (tmp_path / "hed.ckpt", {"canny": theirs["canny"]}, r"hed\.ckpt: is a whole checkpoint with LoRAs; expected"),
        (theirs["base"], {"hed": theirs["canny"]}, r"'hed' is no task of ours"),
        (theirs["base"], {"canny": tmp_path / "none.ckpt"}, r"none\.ckpt: no such file"),
        (theirs["base"], {}, r"no LoRA to join"),
    ]
    for base_file, loras, said in wrong:
        with pytest.raises(UserError, match=rf"\A[^\n]*{said}[^\n]*\Z"):
            join_ctrlora(base_file, loras, tmp_path / "joined", model)
    assert not (tmp_path / "joined").exists()


def test_pairs_of_files_and_tasks():
    assert parse_loras(["a=b/c.ckpt=canny", "d.ckpt=dwpose"]) == {"canny": Path("a=b/c.ckpt"), "dwpose": Path("d.ckpt")}
    for wrong in (["canny.ckpt"], ["a.ckpt=canny", "b.ckpt=canny"]):
        with pytest.raises(UserError, match="expected LORA_FILE=TASK, each task once"):
            parse_loras(wrong)


def test_the_configs_name_what_is_fetched_and_how_it_was_trained():
    assert set(STARTS) < set(TASKS) and set(STARTS.values()) <= set(published())
    entries, models = published(), Path("models")
    for name in ("step2", "step2_8gb", "step3"):
        config = load_config(f"configs/sd15/quickstart/{name}.yaml")
        model = config.model
        named = [model.base, model.vae, model.tokenizer, *([model.motion_from] if name == "step3" else [model.face])]
        fetched = ["realistic_vision", "vae_ft_mse", "sd15_tokenizer", "animatediff_v3" if name == "step3" else "sface"]
        assert [Path(path) for path in named] == [models / entries[entry].place for entry in fetched]
        assert model.condition_range == CONVENTIONS["condition_range"] and set(model.tasks) <= set(STARTS)
        if name == "step3":
            assert model.beta_schedule == ANIMATEDIFF_BETAS and config.sample.shared_noise == 0
        else:
            assert Path(model.control_from) == models / CHECKPOINT
            assert model.condition_posterior == CONVENTIONS["condition_posterior"] and not config.data.cache_latents
