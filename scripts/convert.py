"""Checkpoints of CtrLoRA, the released Meta-Animator and AnimateDiff in and out.

    python scripts/convert.py import-control FILE OUTPUT [--tasks openpose=dwpose ...] [--base-control FILE] [--base models/sd15]
    python scripts/convert.py join-control BASE_FILE OUTPUT LORA_FILE=TASK [...] [--base models/sd15]
    python scripts/convert.py export-control RUN FILE [--part whole|base|lora] [--task dwpose] [--base models/sd15]
    python scripts/convert.py export-motion RUN FILE_OR_FOLDER [--base models/sd15]
    python scripts/convert.py check RUN_OR_EXTRACTED [PIPELINE_OR_EXTRACTED] [--base models/wan] [--task dwpose]

`check` is for Wan: does plain diffusers make of what was extracted the picture that is made here? Nonzero exit where not.

Motion files of AnimateDiff's need no import: model.motion_from names them.
"""

import argparse
from pathlib import Path

from meta_animator.cli import run

ARCHITECTURE = Path(__file__).parents[1] / "configs" / "sd15" / "architecture"  # wherever it is called from


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--base", default="models/sd15", help="base model: folder, file or name on the hub")
    common.add_argument("--architecture", default=str(ARCHITECTURE), help="config files of a base in one file")
    taken = actions.add_parser("import-control", parents=[common], help="a file of theirs into a checkpoint of ours")
    taken.add_argument("file", type=Path)
    taken.add_argument("output", type=Path, help="checkpoint folder, for model.control_from")
    taken.add_argument("--tasks", nargs="+", default=[], help="THEIRS=OURS, or OURS, for each LoRA to take; OURS for a LoRA file")
    taken.add_argument("--base-control", type=Path, help="for a LoRA file: the base file that it was trained on")
    joined = actions.add_parser("join-control", parents=[common], help="CtrLoRA's base file and several of its LoRAs into one")
    joined.add_argument("file", type=Path, help="base file")
    joined.add_argument("output", type=Path, help="checkpoint folder, for model.control_from")
    joined.add_argument("loras", nargs="+", metavar="LORA_FILE=TASK", help="for each task of ours the file that it begins from")
    for one in (taken, joined):
        one.add_argument("--vae", default="", help="VAE instead of the base's own, as model.vae")
        one.add_argument("--tokenizer", default="", help="tokenizer instead of the base's own, as model.tokenizer")
    given = actions.add_parser("export-control", parents=[common], help="a run of ours into a file of theirs")
    given.add_argument("run", type=Path)
    given.add_argument("file", type=Path)
    given.add_argument("--part", default="whole", choices=("whole", "base", "lora"))
    given.add_argument("--task", default="", help="for --part lora")
    motion = actions.add_parser("export-motion", parents=[common], help="a stage-1 run into AnimateDiff's file or a folder")
    motion.add_argument("run", type=Path)
    motion.add_argument("output", type=Path, help="a file: AnimateDiff's layout; a folder: diffusers' MotionAdapter, Wan's LoRA")
    checked = actions.add_parser("check", help="Wan: whether plain diffusers makes the same picture")
    checked.add_argument("ours", type=Path, help="run, checkpoint, or what extract_LoRA_weights.sh wrote of one")
    checked.add_argument("theirs", type=Path, nargs="?", help="what it wrote, LoRAs or pipeline; else ours, or made of it now")
    checked.add_argument("--base", default="models/wan", help="base model: folder or name on the hub")
    checked.add_argument("--task", default="dwpose", help="whose LoRA is on")
    checked.add_argument("--motion", default="", help="stage-1 run whose LoRA is on in the base, as model.motion_from")
    checked.add_argument("--text-precision", default="fp32", choices=("fp32", "bf16"), help="of the text encoder, in both")
    for name, default in (("frames", 5), ("height", 256), ("width", 256), ("steps", 5), ("references", 1), ("seed", 0)):
        checked.add_argument(f"--{name}", type=int, default=default)
    checked.add_argument("--guidance-scale", type=float, default=5.0)
    args = parser.parse_args()
    if args.action == "check":
        _check(args)
        return

    from meta_animator.conversion.exchange import export_ctrlora, export_motion, import_ctrlora, parse_tasks
    from meta_animator.conversion.quickstart import join_ctrlora, parse_loras
    from meta_animator.settings import ModelConfig

    folder = Path(args.base) if (Path(args.base) / "unet" / "config.json").is_file() else Path(args.architecture)
    if args.action in ("import-control", "join-control"):
        architecture = "" if folder == Path(args.base) else args.architecture
        model = ModelConfig(base=args.base, architecture=architecture, vae=args.vae, tokenizer=args.tokenizer)
        if args.action == "join-control":
            metadata = join_ctrlora(args.file, parse_loras(args.loras), args.output, model)
        else:
            metadata = import_ctrlora(args.file, args.output, model, parse_tasks(args.tasks), args.base_control)
        print(
            f"wrote {args.output}: tasks {', '.join(metadata['tasks']) or 'none'}, rank {metadata['lora_rank']}; use it with "
            f"model.control_from={args.output} model.condition_range={metadata['condition_range']}, and to train as it was "
            f"trained also model.condition_posterior={metadata['condition_posterior']} data.cache_latents=false"
        )
        return
    if args.action == "export-control":
        notes = export_ctrlora(args.run, args.file, folder, args.part, args.task)
        print(f"wrote {args.file}")
    else:
        notes = export_motion(args.run, args.output, folder)
        print(f"wrote {args.output}")
    for note in notes:
        print(note)


def _check(args: argparse.Namespace) -> None:
    from meta_animator.settings import ModelConfig
    from meta_animator.stages.same_picture import Trial, check

    model = ModelConfig(backbone="wan", base=args.base, text_precision=args.text_precision, motion_from=args.motion)
    numbers = {field: getattr(args, field) for field in ("frames", "height", "width", "steps", "references", "seed")}
    verdict = check(args.ours, args.theirs, model, Trial(task=args.task, guidance_scale=args.guidance_scale, **numbers))
    print(verdict)
    if not verdict.same:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
