"""A base model of full size with random weights, to try the code paths where no trained one can be had.

    python scripts/dev/make_random_base.py configs/sd15/architecture models/random_sd15
    python scripts/dev/make_random_base.py configs/sd15/architecture models/random_sd15.safetensors     one file, original layout

Half precision. The tokenizer is the embedded base's, whose few words lie within Stable Diffusion's vocabulary.
"""

import argparse
import shutil
from pathlib import Path

from meta_animator.cli import run

TOKENIZER = Path(__file__).parents[2] / "assets" / "base" / "tokenizer"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", type=Path, help="folder with the parts' config files")
    parser.add_argument("output", type=Path, help="folder in diffusers format, or a .safetensors or .ckpt file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(args.seed)
    parts = {
        "unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(args.architecture / "unet")),
        "vae": AutoencoderKL.from_config(AutoencoderKL.load_config(args.architecture / "vae")),
        "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(args.architecture / "text_encoder")),
    }
    parts = {name: part.half() for name, part in parts.items()}
    if args.output.suffix:
        from meta_animator.conversion.exchange import to_single_file, write_state

        write_state(to_single_file(**parts), args.output)
    else:
        for name, part in parts.items():
            part.save_pretrained(args.output / name)
        shutil.copytree(args.architecture / "scheduler", args.output / "scheduler", dirs_exist_ok=True)
        shutil.copytree(TOKENIZER, args.output / "tokenizer", dirs_exist_ok=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    run(main)
