"""Write the table of all config fields: python scripts/dev/describe_config.py > configs/FIELDS.md"""

import argparse

from meta_animator.cli import run
from meta_animator.fields import all_fields, in_words

HEADER = """# All config fields

Made by `python scripts/dev/describe_config.py > configs/FIELDS.md` from `meta_animator/settings.py`. A YAML holds what differs
from the defaults; `include: other.yaml` takes over another file first; `key=value` on the command line has the last word.
The stages: control (0), motion (1), reference (2), sample (3), extract, and those that train the embedded base models: base_vae,
base_unet and base_face, base_wan_vae and base_wan; "training" are all but sample and extract.

| key | type | default | allowed | stages | meaning |
|---|---|---|---|---|---|"""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(HEADER)
    for field in all_fields():
        allowed, meaning = field.allowed.replace("|", "or"), field.meaning.replace("|", "\\|")
        print(f"| `{field.key}` | {field.kind} | `{field.default}` | {allowed} | {in_words(field.stages)} | {meaning} |")


if __name__ == "__main__":
    run(main)
