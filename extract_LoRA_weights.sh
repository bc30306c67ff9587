#!/usr/bin/env bash
# Take every task's LoRA out of a training checkpoint (stage 0 or 2), as a PEFT folder of its own, with its ControlNet.
#
#   bash extract_LoRA_weights.sh [CONFIG.yaml] [key=value ...] [--dry-run]
#
# Without CONFIG: configs/demo/extract.yaml, which reads the demo's stage 2 (run that first). Takes seconds, needs no GPU.
# Writes the YAML's output_dir: one folder per task, the ControlNet they belong to, and model cards.

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/env.sh"
once scripts/extract_lora.py configs/demo/extract.yaml "$@"
