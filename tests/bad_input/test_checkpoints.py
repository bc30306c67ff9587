"""What users get wrong in base models, checkpoints and LoRAs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from meta_animator.weights import load_tensors, save_tensors
from tests import tiny
from tests.bad_input.room import Cases, Room, extracted, sampling, starting

CASES = Cases()


@CASES.add("neither a checkpoint nor a run folder with one; train that stage first")
def checkpoint_that_is_not_there(room):
    return ["train", room.config("motion"), f"model.control_from={room.folder}/nothing"]


@CASES.add("was trained on base")
def checkpoint_of_another_base(room):
    other = tiny.make_base(room.folder / "other", seed=5)
    return ["train", room.config("motion"), f"model.base={other}"]


def changed_checkpoint(room: Room, change: Callable[[Path], None]) -> list[str]:
    run = shutil.copytree(room.prepared, room.folder / "run")
    (folder,) = (run / "checkpoints").glob("step-*")
    change(folder)
    return ["train", room.config("motion"), f"model.control_from={run}"]


@CASES.add("model.safetensors: not a whole safetensors file")
def checkpoint_that_was_cut_off(room):
    def cut(folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:5000])

    return changed_checkpoint(room, cut)


@CASES.add("1 weights are missing, the first is")
def checkpoint_that_lacks_a_weight(room):
    def drop(folder):
        weights = load_tensors(folder / "model.safetensors")
        weights.pop(next(name for name in sorted(weights) if name.startswith("control.")))
        save_tensors(weights, folder / "model.safetensors")

    return changed_checkpoint(room, drop)


@CASES.add("manifest.json: not valid JSON")
def checkpoint_with_broken_metadata(room):
    return changed_checkpoint(room, lambda folder: (folder / "manifest.json").write_text("{"))


@CASES.add("holds no motion module; give a stage-1 run")
def motion_from_stage_0(room):
    return sampling(room, f"model.motion_from={room.prepared}", "sample.window=8")


@CASES.add("no-base': no such file or folder here; expected one, or a name on the hub")
def base_that_is_not_there(room):
    return ["train", room.config("control"), f"model.base={room.folder}/no-base"]


@CASES.add("no folder 'unet'; expected a model in diffusers format")
def base_that_is_an_empty_folder(room):
    (room.folder / "empty").mkdir()
    return ["train", room.config("control"), f"model.base={room.folder}/empty"]


@CASES.add("a single file does not say what it is; set model.architecture=configs/sd15/architecture")
def base_in_one_file_of_unknown_shape(room):
    return ["train", room.config("control"), f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"]


@CASES.add("nowhere/unet/config.json: no such file")
def base_in_one_file_without_its_shape(room):
    file = f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"
    return ["train", room.config("control"), file, f"model.architecture={room.folder}/nowhere"]


@CASES.add("weights are unknown, the first is")
def base_in_one_file_of_another_layout(room):
    file = f"model.base={room.base}/unet/diffusion_pytorch_model.safetensors"
    return ["train", room.config("control"), file, f"model.architecture={room.base}"]


@CASES.add("none.ckpt: no such file")
def file_to_convert_that_is_not_there(room):
    return ["convert", "import-control", "none.ckpt", str(room.out), "--base", str(room.base)]


@CASES.add("no weight is named control_model....; expected a checkpoint of CtrLoRA or Meta-Animator")
def file_to_convert_that_is_something_else(room):
    return ["convert", "import-control", str(room.prepared_weights()), str(room.out), "--base", str(room.base)]


@CASES.add("holds no motion module; give a stage-1 run")
def motion_to_export_that_was_never_trained(room):
    return ["convert", "export-motion", str(room.prepared), str(room.out / "mm.ckpt"), "--base", str(room.base)]


@CASES.add("merge")
def merging_a_task_that_is_not_there(room):
    extraction = room.config("extract", extract__checkpoint=room.prepared)
    return ["extract_lora", extraction, "extract.merge=hed"]


@CASES.add("extract.checkpoint is empty; name a run of stage 0 or 2")
def extraction_from_nothing(room):
    return ["extract_lora", room.config("sample"), "extract.checkpoint="]


@CASES.add("canny")
def extraction_of_a_task_that_is_not_there(room):
    return ["extract_lora", room.config("sample"), f"extract.checkpoint={room.prepared}", "extract.tasks=[canny]"]


@CASES.add("model.safetensors: not a safetensors file; it is a PyTorch file; give it a name that ends in .ckpt")
def checkpoint_that_is_a_pickle(room):
    """One that would make a file when unpickled."""

    class Bomb:
        def __reduce__(self):
            return (exec, (f"open({str(room.folder / 'out' / 'executed')!r}, 'w')",))

    def pickle_it(folder):
        torch.save({"control.conv_in.weight": Bomb()}, folder / "model.safetensors")

    room.out.mkdir()
    return changed_checkpoint(room, pickle_it)


@CASES.add("has shape (3,), the model has")
def checkpoint_with_a_weight_of_another_shape(room):
    def change(folder):
        weights = load_tensors(folder / "model.safetensors")
        weights[next(name for name in sorted(weights) if name.startswith("control."))] = torch.zeros(3)
        save_tensors(weights, folder / "model.safetensors")

    return changed_checkpoint(room, change)


@CASES.add("1 weights are unknown to the model, the first is control.extra")
def checkpoint_with_an_unknown_weight(room):
    def change(folder):
        weights = load_tensors(folder / "model.safetensors")
        save_tensors(weights | {"control.extra": torch.zeros(3)}, folder / "model.safetensors")

    return changed_checkpoint(room, change)


@CASES.add("weights")
def checkpoint_without_its_weights(room):
    return changed_checkpoint(room, lambda folder: (folder / "model.safetensors").unlink())


@CASES.add("belongs to ControlNet")
def lora_of_another_controlnet(room):
    loras = extracted(room)
    tensors = load_tensors(loras / "controlnet" / "diffusion_pytorch_model.safetensors")
    other = {name: weight + 1 for name, weight in tensors.items()}
    save_tensors(other, loras / "controlnet" / "diffusion_pytorch_model.safetensors")
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    control = f"model.control_from={loras / 'controlnet'}"
    return ["sample", room.config("sample"), control, f"sample.loras={{{loras / 'dwpose'}: 1}}", *driving]


@CASES.add("no metadata.json; expected a folder written by extract_LoRA_weights.sh")
def lora_folder_that_is_not_there(room):
    driving = [f"sample.driving={room.data / 'train'}", f"sample.reference={room.data / 'person'}", "sample.identity=p0"]
    return ["sample", room.config("sample"), f"sample.loras={{{room.folder}/nothing: 1}}", *driving]


CASES.table(starting("train", "motion"), {
    "checkpoint_without_the_task": (
        "model.tasks=[canny]", "has no LoRA for canny (it has dwpose, seg, blurred); set model.tasks to a subset",
    ),
    "checkpoint_of_another_rank": ("model.lora_rank=2", "LoRA rank 4, this run's model.lora_rank is 2"),
})  # fmt: skip


test_bad_input_is_one_line = CASES.test()
