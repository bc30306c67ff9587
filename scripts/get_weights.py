"""Fetch the weights that others have published and that a family of base models begins from.

    python scripts/get_weights.py sd15                       the quick start on Stable Diffusion 1.5: configs/sd15/quickstart
    python scripts/get_weights.py sd15 --full-annotators     and the networks of the full annotators, for --weights models
    python scripts/get_weights.py wan                        the quick start on Wan 2.1 VACE 1.3B: configs/wan/quickstart
    python scripts/get_weights.py wan14b                     the same on the 14B
    python scripts/get_weights.py full --also segformer      the full annotators alone, and one more by its name
    python scripts/get_weights.py light --into DIR           the light annotators, for a machine without a package index

First it says what it will take: names, sizes, licences, free disk. The same command again goes on where it stopped, and fetches
nothing twice. Where there is no network, it says which file to put where; meta_animator/published.yaml is the whole list.
"""

import argparse
from pathlib import Path

from meta_animator.cli import run

FAMILIES = ("sd15", "wan", "wan14b", "full", "light")
JOINED = 2_700_000_000  # bytes of the checkpoint that is made of what was fetched


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("--full-annotators", action="store_true", help="the full annotators' networks, too")
    parser.add_argument("--also", nargs="+", default=[], metavar="NAME", help="others of the list by name, such as segformer")
    parser.add_argument("--into", type=Path, default=Path("models"), help="folder for them; the configs expect models")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be taken")
    args = parser.parse_args()

    from meta_animator.published import asked_by
    from meta_animator.published.fetching import fetch_all, named, say

    groups = (args.family, *(["full"] if args.full_annotators else []))
    wanted = list(dict.fromkeys([*asked_by(*groups), *named(args.also)]))
    lacking = say(wanted, args.into, besides=JOINED if args.family == "sd15" else 0)
    if args.dry_run:
        return
    gone = fetch_all(lacking, args.into)
    print(f"in {args.into}: all of them" + (f" but {', '.join(gone)}" if gone else ""))
    if args.family == "sd15":
        join(args.into, gone)


def join(folder: Path, gone: list[str]) -> None:
    """The starting checkpoint of the quick start, unless it is there already."""
    from meta_animator.conversion.quickstart import CHECKPOINT, join_published

    if (folder / CHECKPOINT / "manifest.json").is_file():
        print(f"{folder / CHECKPOINT} is there already; delete it to have it made anew")
        return
    print("joining the base control network and its LoRAs into one checkpoint (a minute)")
    metadata = join_published(folder, gone)
    print(f"wrote {folder / CHECKPOINT}: tasks {', '.join(metadata['tasks'])}; configs/sd15/quickstart begins from it")


if __name__ == "__main__":
    run(main)
