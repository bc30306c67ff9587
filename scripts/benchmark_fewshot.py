"""Does the method work? People whom nobody has seen, a few photos of each, an unseen motion, the truth beside it.

python scripts/benchmark_fewshot.py                  # 8 people, 5 photos, the method and its rivals; hours on a CPU
python scripts/benchmark_fewshot.py --full           # 1, 3, 5 and 10 photos, everything left out once, two seeds, curves
python scripts/benchmark_fewshot.py --smoke          # minutes: one person, a few steps; shows that it runs, and nothing else
python scripts/benchmark_fewshot.py --report         # write the report of what is there

Cells that are done are not done again: stop it whenever you like, the same command goes on. On several machines give each
a part (--part 1/4) and put their results.jsonl into one folder, as results-1.jsonl and so on. Writes OUTPUT/{results.jsonl,
report.md, *.png}.
"""

import argparse
from pathlib import Path

from meta_animator.cli import run
from meta_animator.errors import UserError

OUTPUT, SMOKE = Path("outputs/benchmark"), Path("outputs/benchmark_smoke")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--smoke", action="store_true", help="see above")
    size.add_argument("--full", action="store_true", help="see above")
    parser.add_argument("--output", type=Path, help=f"folder of results and report ({OUTPUT}, or {SMOKE})")
    parser.add_argument("--people", type=int, metavar="N", help="so many of the people")
    parser.add_argument("--tuning", action="store_true", help="other people, to choose settings by; the test's stay unseen")
    parser.add_argument("--photos", type=int, nargs="+", metavar="K", help="numbers of photos")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="some of those in benchmark/fewshot/methods.py")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED")
    parser.add_argument("--steps", type=int, nargs="+", metavar="N", help="steps of stage 2 after which the result is scored")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every N-th of people, photos and seeds, from the I-th on")
    parser.add_argument("--report", action="store_true", help="run nothing")
    return parser.parse_args()


def main() -> None:
    args = parse()
    part, parts = part_of(args.part)

    from meta_animator.benchmark.fewshot.methods import chosen
    from meta_animator.benchmark.fewshot.prepare import open_bench, size_of
    from meta_animator.benchmark.fewshot.report import write_report

    given = {name: tuple(getattr(args, name)) for name in ("photos", "methods", "seeds", "steps") if getattr(args, name)}
    size = size_of("smoke" if args.smoke else "full" if args.full else "usual", args.tuning, args.people or 0, **given)
    methods, output = chosen(list(size.methods)), args.output or (SMOKE if args.smoke else OUTPUT)
    failed = [] if args.report else run_cells(open_bench(output, size), methods, part, parts)
    print(f"wrote {write_report(output, size)}")
    if failed:
        raise UserError(f"{len(failed)} cells failed, the first: {failed[0]}")


def run_cells(bench, methods, part: int, parts: int) -> list[str]:
    """What failed."""
    from meta_animator.benchmark.fewshot.cells import cells_of

    cells = part_of_cells(list(cells_of(bench.size, methods)), part, parts)
    done, failed = bench.done(cells), []
    for number, cell in enumerate(cells, 1):
        if cell.name in done:
            continue
        print(f"[{number}/{len(cells)}] {cell.name}", flush=True)
        if said := bench.run(cell):
            print(f"failed: {said}", flush=True)
            failed.append(f"{cell.name}: {said}")
    return failed


def part_of_cells(cells, part: int, parts: int):
    """A person with so many photos and a seed stays in one part: some methods sample from another's stage 2."""
    groups = list(dict.fromkeys((cell.person, cell.photos, cell.seed) for cell in cells))
    mine = set(groups[part - 1 :: parts])
    return [cell for cell in cells if (cell.person, cell.photos, cell.seed) in mine]


def part_of(text: str) -> tuple[int, int]:
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
        return int(first), int(second)
    raise UserError(f"--part: expected I/N such as 1/4, got {text!r}")


if __name__ == "__main__":
    run(main)
