"""What is measured: a training step, a step of sampling and decoding, encoding, attention, preparation; each as a report."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from meta_animator.annotators.sets import AnnotatorSet
from meta_animator.benchmark import attention, preparation
from meta_animator.benchmark.counted import count
from meta_animator.benchmark.counted import numbers as counted_numbers
from meta_animator.benchmark.counting import Counting, counting, launches
from meta_animator.benchmark.encoding import OwnEncoding
from meta_animator.benchmark.machine import facts, matmul_speed
from meta_animator.benchmark.measuring import Meter, Step, alternate, ratio
from meta_animator.benchmark.rivals import RIVALS, DiffusersSampling
from meta_animator.benchmark.sampling import OwnSampling, load, load_synthetic
from meta_animator.benchmark.training import build, build_synthetic, data_of, of_a_run, own_training, synthetic_batches
from meta_animator.devices import compute_device
from meta_animator.errors import UserError
from meta_animator.models.kernels import kernels_of, products_in
from meta_animator.models.precision import PRECISIONS
from meta_animator.puppets.film import make_film
from meta_animator.settings import PuppetsConfig, RunConfig

MakeData = Callable[[PuppetsConfig], None]
TRAINED = ("control", "motion", "reference")
STAGES = {"train": TRAINED, "cache": TRAINED, "sample": ("sample",), "attention": (*TRAINED, "sample")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """repeats, warmup   how many steps are measured, and how many before them are not
    synthetic   random weights and inputs of the config's shapes, from the base's config files alone
    count       nothing is computed: what a GPU would do is counted from the base's config files alone
    against     one of RIVALS, or nobody
    """

    repeats: int = 10
    warmup: int = 2
    synthetic: bool = False
    count: bool = False
    against: str = ""


def check(command: str, config: RunConfig, options: Options) -> None:
    """Raises UserError for what cannot be measured."""
    if config.stage not in STAGES[command]:
        raise UserError(f"{command}: measures stage {', '.join(STAGES[command])}; the config's is '{config.stage}'")
    if options.repeats < 1 or options.warmup < 1:
        raise UserError("--repeats and --warmup are at least 1: the first step allocates what later ones find")
    steps = command in ("train", "sample")
    if options.against and not steps:
        raise UserError("--against: is for train and sample")
    if command == "sample" and options.against not in ("", "diffusers"):
        raise UserError(f"--against {options.against}: is a training loop; sample is measured against diffusers")
    if command == "sample" and options.against and config.model.tiny_vae:
        raise UserError("--against: the pipeline decodes with the VAE; leave model.tiny_vae empty")
    if options.synthetic and not steps:
        raise UserError("--synthetic: is for train and sample; a cache is filled from data, attention needs none")
    if options.count and (not steps or options.synthetic or options.against):
        raise UserError("--count: is for train and sample, by itself: nothing is computed, and nobody compared")


def measure(command: str, config: RunConfig, options: Options, make_data: MakeData | None = None) -> dict[str, Any]:
    """{"results": {what: numbers}, "against": {what: ratio}} of train, sample, cache or attention, and, where something was
    computed, "machine", with the flags that it was computed under; see `check`.

    make_data   makes the data sets of `data.puppets` that are not there
    """
    check(command, config, options)
    if options.count:
        return count(config)
    if command == "attention":
        with products_in(config.train.allow_tf32):
            results = attention.measure(config, compute_device(), options.warmup, options.repeats)
            return {"machine": facts(compute_device()), "results": results, "against": {}}
    with tempfile.TemporaryDirectory() as folder, kernels_of(config):
        if command == "sample":
            numbers = _sample(config, options)
        else:
            numbers = {"train": _train, "cache": _cache}[command](config, options, Path(folder), make_data)
        return {"machine": facts(compute_device()), **numbers}


def _train(config: RunConfig, options: Options, folder: Path, make_data: MakeData | None) -> dict[str, Any]:
    steps = options.warmup + options.repeats + 2  # one is counted, one profiled
    train = dataclasses.replace(config.train, max_steps=max(config.train.max_steps, steps))
    config = dataclasses.replace(config, train=train)
    accelerator = _accelerator(config)
    if options.synthetic:
        config = dataclasses.replace(config, output_dir=str(folder))
        stage, release = build_synthetic(config, accelerator)
        batches = synthetic_batches(config, stage)
    else:
        config = of_a_run(config, folder, make_data)
        training = build(config, accelerator)
        stage, release = training.stage, training.release
        batches = data_of(config, training, accelerator, steps)
    rival = None
    if options.against:
        rival = RIVALS[options.against](config, stage.models, accelerator)
    release()
    with own_training(config, stage, batches, accelerator) as own:
        contestants = {"step": own} | ({f"step of {options.against}": rival} if rival else {})
        runs = {name: one.step for name, one in contestants.items()}
        meters = alternate(runs, accelerator.device, options.warmup, options.repeats)
        samples = config.train.batch_size * config.train.gradient_accumulation_steps
        results = _results(runs, meters, samples, "samples", accelerator.device, config)
        for name, one in contestants.items():
            results[name] |= {"shape": list(one.shape), "loss": [float(loss) if loss.isfinite() else None for loss in one.losses]}
        waited = sorted(own.waited[options.warmup : options.warmup + options.repeats])
        results["step"] |= {"seconds_waiting_for_data": waited[len(waited) // 2], "image_terms": own.image_terms}
    return {"results": results, "against": _ratios(meters)}


def _sample(config: RunConfig, options: Options) -> dict[str, Any]:
    device = compute_device()
    models = load_synthetic(config, device) if options.synthetic else load(config)
    own = OwnSampling(config, models)
    if not options.against:
        runs = {"step": own.step, "decoding": own.decode}
        meters = {name: alternate({name: run}, device, options.warmup, options.repeats)[name] for name, run in runs.items()}
        results = _results(runs, meters, own.frames, "frames", device, config)
        return {"results": _shaped(results, own.shape), "against": {}}
    if own.frames > config.sample.window:
        raise UserError("--against: the pipeline denoises a clip in one window; set sample.max_frames to sample.window or less")
    rival = DiffusersSampling(config, models, own.frames)
    steps, counts = _against_pipeline(own, rival, device, options)
    decoding = {"decoding": own.decode, "decoding of diffusers": rival.decode}
    decoded = alternate(decoding, device, options.warmup, options.repeats)
    results = _results({"step": own.step}, steps, own.frames, "frames", device, config, {"step of diffusers": counts})
    results |= _results(decoding, decoded, own.frames, "frames", device, config)
    ratios = {"step": ratio(*steps.values()), "decoding": ratio(*decoded.values())}
    return {"results": _shaped(results, own.shape), "against": ratios}


def _against_pipeline(
    own: OwnSampling, rival: DiffusersSampling, device: torch.device, options: Options
) -> tuple[dict[str, Meter], Counting]:
    """A step of ours behind each of the pipeline's, which are what lies between two of its calls; its last one is counted."""
    meters = {"step": Meter(device), "step of diffusers": Meter(device)}
    last = options.warmup + options.repeats
    with contextlib.ExitStack() as stack:
        counts: list[Counting] = []

        def step_end(number: int) -> None:
            if 0 < number < last:
                meters["step of diffusers"].stop()
            if number < last - 1:
                meters["step"].start()
                own.step()
                meters["step"].stop()
                meters["step of diffusers"].start()
            if number == last - 1:
                counts.append(stack.enter_context(counting()))
            if number == last:
                stack.close()

        rival.run(last + 1, step_end)
    for meter in meters.values():
        meter.forget(options.warmup - 1)
    return meters, counts[0]


def _cache(config: RunConfig, options: Options, folder: Path, make_data: MakeData | None) -> dict[str, Any]:
    accelerator = _accelerator(config)
    config = of_a_run(config, folder, make_data)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, cache_latents=False))
    own = OwnEncoding(config, build(config, accelerator), accelerator, folder / "filled")
    meter = alternate({"encoding": own.step}, accelerator.device, options.warmup, options.repeats)["encoding"]
    return {"results": {"encoding": meter.numbers(own.images[options.warmup :], "images")}, "against": {}}


def prepare(side: int, frames: int, annotators: str, weights: Path | None, film: Path | None) -> dict[str, Any]:
    """Of preparation: milliseconds of one core for each part of a frame, as processor time, whatever else runs.

    side   of the drawn maps
    film   of a person, of which `annotators` see what is drawn; None: one of a puppet, made here
    """
    if film is not None and not annotators:
        raise UserError("--input: needs --annotators; what is drawn has to be found in it")
    if frames < 1:
        raise UserError("--repeats: is at least 1, so many frames are measured")
    networks = AnnotatorSet(annotators, weights).load() if annotators else None
    with tempfile.TemporaryDirectory() as folder:
        truth = None
        if film is None:
            film = Path(folder) / "puppet.mp4"
            truth = make_film(film, frames)
        timing = preparation.measure(film, side, frames, networks, truth)
    parts = {"without networks": timing.without} | ({"annotation": timing.networks} if timing.networks else {})
    results = {
        name: {"milliseconds": spent, "frames_per_second": 1e3 / sum(spent.values()), "frames": timing.frames}
        for name, spent in parts.items()
    }
    return {"results": results, "against": {}}


def _accelerator(config: RunConfig) -> Accelerator:
    return Accelerator(mixed_precision=config.train.mixed_precision)


def _results(
    runs: Mapping[str, Step], meters: Mapping[str, Meter], units: int, unit: str, device: torch.device, config: RunConfig,
    counted: Mapping[str, Counting] | None = None,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """{what: numbers} of what has been timed, and, in a step more, counted. counted: what has been already."""
    speed = matmul_speed(device, PRECISIONS[config.train.mixed_precision])
    results = {}
    for name, meter in meters.items():
        counts, launched = (counted or {}).get(name), {}
        if counts is None:
            with torch.compiler.set_stance("force_eager"), counting() as counts:  # compiled, blocks hide what they call
                runs[name]()
            with launches(device) as launched:
                if device.type == "cuda":
                    runs[name]()
        numbers = meter.numbers(units, unit)
        results[name] = numbers | {
            **counted_numbers(counts, unit.removesuffix("s"), units), "launches": launched, "matmul_flops_per_second": speed,
            "utilisation": counts.total.flops / numbers["seconds"]["median"] / speed,
        }  # fmt: skip
    return results


def _shaped(results: dict[str, dict[str, Any]], shape: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    return {name: {**numbers, "shape": list(shape)} for name, numbers in results.items()}


def _ratios(meters: Mapping[str, Meter]) -> dict[str, Any]:
    return {"step": ratio(*meters.values())} if len(meters) > 1 else {}
