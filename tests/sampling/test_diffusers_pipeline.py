"""Meta-Animator as a diffusers pipeline: it answers as stage 3 does, and comes back from disk as it went."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNetMotionModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, SDCFGCutoffCallback
from PIL import Image

from meta_animator.diffusion.samplers import ddim
from meta_animator.errors import UserError
from meta_animator.models.assembly import Assembly
from meta_animator.models.backbones import load_backbone
from meta_animator.models.control import MetaControlNet
from meta_animator.sampling.denoiser import Denoiser
from meta_animator.sampling.diffusers_pipeline import MetaAnimatorPipeline
from meta_animator.stages.sample import load_animator
from meta_animator.weights import load_tensors, save_tensors
from tests import tiny
from tests.tiny_wan import wan_model

FRAMES, STEPS, SCALE = 5, 3, 2.0


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    config = tiny.make_config(folder / "run", tiny.make_base(folder / "base"), folder).model
    models = Assembly(config, load_backbone(config), with_motion=True)
    tiny.randomise_zeros(models.control)
    tiny.randomise_zeros(models.motion)
    return models


@pytest.fixture
def pipeline(models):
    return quiet(MetaAnimatorPipeline.from_assembly(models))


def quiet(pipe: MetaAnimatorPipeline) -> MetaAnimatorPipeline:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def parts(models: Assembly, **changes) -> dict:
    """What the pipeline is made of, without motion."""
    base = models.backbone
    scheduler = DDIMScheduler(clip_sample=False, **base.scheduler)
    return {
        "vae": base.vae, "text_encoder": base.text_encoder, "tokenizer": base.tokenizer, "unet": base.unet,
        "control": models.control, "scheduler": scheduler, **changes,
    }  # fmt: skip


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(FRAMES, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(seed))


def make(pipe, **changes):
    arguments = {
        "prompt": "person looks like <id001>", "conditions": {"dwpose": images()}, "num_inference_steps": STEPS,
        "guidance_scale": SCALE, "window": 3, "overlap": 1, "generator": torch.Generator().manual_seed(3),
        "output_type": "latent",
    }  # fmt: skip
    return pipe(**(arguments | changes)).frames


def test_it_answers_as_stage_3_does(models, pipeline):
    """The same networks through our own samplers, windows and guidance."""
    backbone = models.backbone
    control = {"dwpose": backbone.encode_condition(images()[None] * 2 - 1)}
    x_T = torch.randn(1, 1, *control["dwpose"].shape[2:], generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        context, null = backbone.embed_text(["person looks like <id001>"]), backbone.embed_text([""])
    denoise = Denoiser(
        backbone=backbone, control=models.control, tasks={"dwpose": 1.0}, control_latents=control, context=context,
        null_context=null, guidance_scale=SCALE, window=3, overlap=1,
    )  # fmt: skip
    process = backbone.process
    ours = ddim(denoise, x_T.expand(-1, FRAMES, -1, -1, -1), process, process.sampling_timesteps(STEPS))
    theirs = make(pipeline)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(theirs, ours.to(theirs), rtol=0, atol=1e-4)
    assert (make(pipeline, conditions={"dwpose": images(1)}) - theirs).abs().max() > 1e-2, "the condition must count"


def test_it_comes_back_from_disk(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "saved")
    torch.testing.assert_close(make(quiet(MetaAnimatorPipeline.from_pretrained(tmp_path / "saved"))), make(pipeline))


def test_extracted_loras_and_the_prompt_come_along_and_come_back(make_config, prepared, tmp_path):
    folder = tiny.extract(make_config("extract", "loras", extract__checkpoint=prepared))[0].parent
    file = folder / "dwpose" / "adapter_model.safetensors"
    save_tensors({n: w + 0.1 for n, w in load_tensors(file).items()}, file, {"format": "pt"})
    config = make_config(
        "sample", "sample", model__control_from=folder / "controlnet", sample__loras=f"{{{folder / 'dwpose'}: 0.5}}",
        sample__identity="p0",
    )  # fmt: skip
    animator = load_animator(config)
    animator.models.to("cpu")
    pipe = quiet(MetaAnimatorPipeline.from_animator(animator))
    assert pipe.config.loras == {"dwpose_extracted1": 0.5}
    assert pipe.config.prompt == animator.prompt and animator.models.identifiers["p0"] in animator.prompt
    frames = make(pipe, prompt=None)
    torch.testing.assert_close(make(pipe, prompt=animator.prompt, loras={"dwpose_extracted1": 0.5}), frames)
    assert not torch.allclose(make(pipe, prompt=None, loras={}), frames, atol=1e-3), "the LoRA must count"
    pipe.save_pretrained(tmp_path / "saved")
    back = quiet(MetaAnimatorPipeline.from_pretrained(tmp_path / "saved"))
    assert (back.config.loras, back.config.prompt) == ({"dwpose_extracted1": 0.5}, animator.prompt)
    torch.testing.assert_close(make(back, prompt=None), frames)


def test_a_second_motion_module_is_refused(models, pipeline):
    """A UNetMotionModel, as pipelines were saved before, holds one; it is taken apart."""
    joined = UNetMotionModel.from_unet2d(models.backbone.unet, models.motion)
    with pytest.raises(ValueError, match="motion_adapter: the unet holds a motion module already"):
        MetaAnimatorPipeline(**parts(models, unet=joined, motion_adapter=models.motion))
    torch.testing.assert_close(make(quiet(MetaAnimatorPipeline(**parts(models, unet=joined)))), make(pipeline))


@pytest.mark.parametrize("part, name", [("control", ".down.dwpose"), ("motion_adapter", ".motion_modules."), ("vae", "decoder.")])
def test_missing_weights_are_named(pipeline, tmp_path, part, name):
    pipeline.save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / part / "diffusion_pytorch_model.safetensors"
    weights = load_tensors(file)
    lost = next(n for n in weights if name in n)
    save_tensors({n: w for n, w in weights.items() if n != lost}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"1 weights are missing, the first is {lost}"):
        MetaAnimatorPipeline.from_pretrained(tmp_path / "saved")


def test_meta_controlnet_comes_back_with_its_loras(models, tmp_path):
    models.control.save_pretrained(tmp_path / "control")
    loaded = MetaControlNet.from_pretrained(tmp_path / "control")
    assert loaded.bank.tasks == models.control.bank.tasks
    assert loaded.bank.rank == models.control.bank.rank
    x, t = torch.randn(1, *models.backbone.encode(images()[:1] * 2 - 1).shape[1:]), torch.tensor([5])
    context = models.backbone.embed_text(["a"])
    for network in (models.control, loaded):
        network.bank.use(tiny.TASKS[-1])
    for a, b in zip(models.control(x, t, context).down, loaded(x, t, context).down, strict=True):
        torch.testing.assert_close(a, b)


def test_meta_controlnet_takes_whole_files_only(models, tmp_path):
    models.control.save_pretrained(tmp_path / "control")
    file = tmp_path / "control" / "diffusion_pytorch_model.safetensors"
    save_tensors(load_tensors(file) | {"net.more": torch.zeros(2)}, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"control: 1 weights are unknown to the model, the first is net\.more"):
        MetaControlNet.from_pretrained(tmp_path / "control")


def test_without_motion_frames_stand_alone(models):
    alone = quiet(MetaAnimatorPipeline(**parts(models)))
    whole, first = make(alone), make(alone, conditions={"dwpose": images()[:1]})
    torch.testing.assert_close(whole[:, :1], first, rtol=0, atol=1e-5)
    sizes = []
    hook = alone.unet.register_forward_pre_hook(lambda unet, given: sizes.append(len(given[0])))
    in_parts = make(alone, window=2, overlap=200)  # the second has no meaning here
    hook.remove()
    assert set(sizes) <= {2, 4}, "two frames at once, or two and their unguided ones"
    torch.testing.assert_close(in_parts, whole, rtol=0, atol=1e-5)


def test_inversion_takes_schedulers_of_broken_timesteps(models):
    pipe = quiet(MetaAnimatorPipeline(**parts(models)))
    given = {"prompt": "a person", "num_inference_steps": STEPS}
    wanted = pipe.invert(images()[0], **given)
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipe.invert(images()[0], **given).isfinite().all() and wanted.isfinite().all()


def test_a_wan_is_diffusers_own_business(tiny_wan):
    model = wan_model(tiny_wan)
    with pytest.raises(ValueError, match=r"model.backbone=wan: expected a Stable Diffusion; .* extract.merge"):
        MetaAnimatorPipeline.from_assembly(Assembly(model, load_backbone(model)))


def test_outputs_callbacks_and_other_schedulers(pipeline):
    frames = make(pipeline, output_type="pil", conditions={"dwpose": [Image.new("RGB", (tiny.SIZE,) * 2, "red")] * FRAMES})
    assert len(frames[0]) == FRAMES and frames[0][0].size == (tiny.SIZE, tiny.SIZE)
    array = make(pipeline, output_type="np")
    assert array.shape == (1, FRAMES, tiny.SIZE, tiny.SIZE, 3) and array.min() >= 0 and array.max() <= 1
    seen = []

    def callback(pipe, step, t, given):
        seen.append((step, int(t)))
        return {"latents": torch.zeros_like(given["latents"])}

    assert not make(pipeline, callback_on_step_end=callback).any()
    assert [step for step, _ in seen] == list(range(STEPS)) and seen[0][1] > seen[-1][1]
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    assert np.isfinite(make(pipeline, output_type="np")).all()
    assert isinstance(pipeline, DiffusionPipeline)


def test_wrong_conditions_are_named(pipeline):
    with pytest.raises(ValueError, match=r"expected images for one or more of .*; got hed"):
        make(pipeline, conditions={"hed": images()})
    two = {tiny.TASKS[0]: images(), tiny.TASKS[1]: images()[:2]}
    with pytest.raises(ValueError, match="as many images, of one size"):
        make(pipeline, conditions=two)


WRONG = {
    "two prompts": ({"prompt": ["a", "b"]}, r"prompt: expected one text.*got \['a', 'b'\]"),
    "no prompt": ({"prompt": None}, "prompt: expected one text.*got None"),
    "two negative prompts": ({"negative_prompt": ["a", "b"]}, "negative_prompt: expected one text"),
    "two generators": ({"generator": [torch.Generator(), torch.Generator()]}, "generator: expected one"),
    "bare images": ({"conditions": images()}, r"conditions: expected \{task: images\}, got Tensor"),
    "none": ({"conditions": {}}, "expected images for one or more of .*; got none"),
    "one image": ({"conditions": {"dwpose": Image.new("RGB", (64, 64))}}, "dwpose: expected a list of images, one per frame"),
    "empty list": ({"conditions": {"dwpose": []}}, "dwpose: expected at least one image, got none"),
    "empty tensor": ({"conditions": {"dwpose": images()[:0]}}, r"dwpose: expected a tensor \(f 3 h w\)"),
    "latents as images": ({"conditions": {"dwpose": torch.rand(2, 4, 64, 64)}}, r"dwpose: .*got \(2, 4, 64, 64\)"),
    "names of files": ({"conditions": {"dwpose": ["a.png"]}}, "dwpose: expected PIL images.*got str"),
    "signed": ({"conditions": {"dwpose": images() * 2 - 1}}, r"dwpose: expected floats in \[0, 1\], got -"),
    "bytes as floats": ({"conditions": {"dwpose": images() * 255}}, r"dwpose: expected floats in \[0, 1\], got "),
    "not a number": ({"conditions": {"dwpose": images() * torch.nan}}, r"dwpose: expected floats in \[0, 1\], got nan"),
    "long integers": ({"conditions": {"dwpose": images().long()}}, "dwpose: expected uint8, or floats"),
    "16-bit pictures": ({"conditions": {"dwpose": [Image.new("I;16", (64, 64))]}}, "dwpose: expected 8-bit pictures"),
    "two sizes": (
        {"conditions": {"dwpose": [Image.new("RGB", (64, side)) for side in (64, 32)]}}, "one type and size.*64 x 32.*64 x 64",
    ),
    "odd size": ({"conditions": {"dwpose": images()[..., :63]}}, "a width and a height that 4 divides, got 63 x 64"),
    "a task without scale": (
        {"controlnet_conditioning_scale": {"seg": 1.0}}, "controlnet_conditioning_scale: .*each of dwpose; got seg",
    ),
    "an unknown LoRA": ({"loras": {"hed": 1.0}}, "loras: expected some of dwpose, seg, blurred; got hed"),
    "a LoRA without weight": ({"loras": "dwpose"}, r"loras: expected \{LoRA: weight\}, got 'dwpose'"),
    "latents of one frame less": ({"latents": torch.zeros(1, 4, 4, 16, 16)}, r"latents: .*\(1, 5, 4, 16, 16\) or \(1, 1, 4"),
    "a long window": ({"conditions": {"dwpose": torch.rand(9, 3, 64, 64)}, "window": 9}, "window: expected at most 8 frames"),
    "a long overlap": ({"overlap": 3}, "overlap: expected at least 0 and less than window, 3; got 3"),
    "unknown tensors": ({"callback_on_step_end_tensor_inputs": ["noise"]}, "tensor_inputs: expected .*latents.*; got noise"),
    "an unknown output": ({"output_type": "gif"}, "output_type: expected one of pil, np, pt, latent; got 'gif'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_named_in_one_line(pipeline, name):
    changes, message = WRONG[name]
    with pytest.raises(ValueError, match=message) as caught:
        make(pipeline, **changes)
    assert "\n" not in str(caught.value)


def test_wrong_parts_are_named(models):
    with pytest.raises(ValueError, match="condition_range: expected signed or unit, got 'Unit'"):
        MetaAnimatorPipeline(**parts(models, condition_range="Unit"))
    with pytest.raises(ValueError, match="loras: expected some of dwpose, seg, blurred; got hed"):
        MetaAnimatorPipeline(**parts(models, loras={"hed": 1.0}))


def test_linspace_needs_a_scheduler(models, monkeypatch):
    scheduler = models.backbone.scheduler | {"timestep_spacing": "linspace"}
    monkeypatch.setattr(models.backbone, "scheduler", scheduler)
    with pytest.raises(ValueError, match=r"has timestep_spacing 'linspace'.*expected a scheduler"):
        MetaAnimatorPipeline.from_assembly(models)
    given = DPMSolverMultistepScheduler(beta_schedule="scaled_linear")
    assert MetaAnimatorPipeline.from_assembly(models, scheduler=given).scheduler is given


def test_images_in_any_form_are_the_same(pipeline):
    tensor = (images() * 255).round().to(torch.uint8)
    array = tensor.movedim(1, -1).numpy()
    pictures = [Image.fromarray(frame) for frame in array]
    expected = make(pipeline, conditions={"dwpose": tensor.float() / 255})
    forms = (tensor, array, array.astype(np.float32) / 255, pictures, list(array), list(tensor), tuple(pictures))
    for form in (*forms, [picture.convert("RGBA") for picture in pictures]):
        torch.testing.assert_close(make(pipeline, conditions={"dwpose": form}), expected, rtol=0, atol=1e-4)
    grey = [picture.convert("L") for picture in pictures]
    expected = make(pipeline, conditions={"dwpose": [picture.convert("RGB") for picture in grey]})
    torch.testing.assert_close(make(pipeline, conditions={"dwpose": grey}), expected)


def test_lists_of_one_are_one(pipeline):
    expected = make(pipeline, negative_prompt="")
    generator = [torch.Generator().manual_seed(3)]
    torch.testing.assert_close(make(pipeline, prompt=["person looks like <id001>"], generator=generator), expected)
    torch.testing.assert_close(make(pipeline, negative_prompt=None), expected)


def test_every_scheduler_that_takes_a_generator_gets_it(pipeline):
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    torch.manual_seed(0)
    first = make(pipeline)
    torch.manual_seed(1)
    torch.testing.assert_close(make(pipeline), first)


def test_diffusers_callbacks(pipeline):
    """Guidance switched off after a step, by theirs and by hand."""

    def switch_off(pipe, step, t, given):
        if step == 1:
            pipe._guidance_scale = 1.0

    theirs = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    cut = make(pipeline, callback_on_step_end=switch_off)
    assert not torch.allclose(cut, make(pipeline), atol=1e-3)
    torch.testing.assert_close(make(pipeline, callback_on_step_end=theirs), cut)
    torch.testing.assert_close(make(pipeline, callback_on_step_end=MultiPipelineCallbacks([theirs])), cut)
    torch.testing.assert_close(make(pipeline, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5)), cut)
    assert pipeline.num_timesteps == STEPS


def test_an_interrupted_call_ends_with_what_it_has(pipeline):
    seen = []

    def callback(pipe, step, t, given):
        seen.append(given["latents"].clone())
        pipe._interrupt = step == 1
        return {}

    frames = make(pipeline, callback_on_step_end=callback)
    assert len(seen) == 2 and torch.equal(frames, seen[-1])
    assert not torch.equal(make(pipeline), frames), "the next call runs to its end"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(pipeline, tmp_path, dtype):
    pipeline.save_pretrained(tmp_path / "saved")
    full, half = make(pipeline), quiet(MetaAnimatorPipeline.from_pretrained(tmp_path / "saved"))
    frames = make(half.to(dtype))
    assert frames.dtype == dtype and (frames - full).abs().mean() < 0.1 * full.abs().mean()
    loaded = quiet(MetaAnimatorPipeline.from_pretrained(tmp_path / "saved", torch_dtype=dtype))
    torch.testing.assert_close(make(loaded), frames)


def test_a_pipeline_of_halved_networks_decodes(make_config, prepared):
    """`load_animator` with mixed_precision=bf16 keeps the VAE's encoder in float32."""
    config = make_config("sample", model__control_from=prepared, sample__identity="p0", train__mixed_precision="bf16")
    animator = load_animator(config)
    animator.models.to("cpu")
    frames = make(quiet(MetaAnimatorPipeline.from_animator(animator)), output_type="np", prompt=None)
    config.train.mixed_precision = "no"
    exact = load_animator(config)
    exact.models.to("cpu")
    wanted = make(quiet(MetaAnimatorPipeline.from_animator(exact)), output_type="np", prompt=None)
    assert 0 < abs(frames - wanted).mean() < 0.05


def test_offloading_knows_every_part_with_weights(pipeline):
    networks = {name for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    ordered = pipeline.model_cpu_offload_seq.split("->")
    assert {*ordered, *pipeline._exclude_from_cpu_offload, "control"} == networks
    assert "control" not in ordered, "each step would bring it to the GPU and back"
