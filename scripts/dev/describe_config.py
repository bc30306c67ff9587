"""Write the table of all config fields: python scripts/dev/describe_config.py > configs/FIELDS.md"""

import argparse

from meta_animator.cli import run
from meta_animator.config import describe_fields

HEADER = """# All config fields

Made by `python scripts/dev/describe_config.py > configs/FIELDS.md` from `meta_animator/settings.py`. A YAML holds what differs
from the defaults; `include: other.yaml` takes over another file first; `key=value` on the command line has the last word.

| key | type | default | allowed | meaning |
|---|---|---|---|---|"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(HEADER)
    for key, kind, default, allowed, meaning in describe_fields():
        print(f"| `{key}` | {kind} | `{default}` | {allowed.replace('|', 'or')} | {meaning.replace('|', chr(92) + '|')} |")


if __name__ == "__main__":
    run(main)
