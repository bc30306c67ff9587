#!/usr/bin/env bash
# Stage 1: train the motion module on clips, with the Meta ControlNet of stage 0 (run that first).
#
#   bash Step1_train_Motion_Module.sh [CONFIG.yaml] [key=value ...] [--dry-run]
#
# Without CONFIG: configs/demo/step1.yaml, the embedded base model on puppets (2 CPU cores, no GPU); configs/sd15/step1.yaml
# is the real scale. configs/README.md says what it costs. Writes the YAML's output_dir: config.yaml, metrics.jsonl,
# previews/, checkpoints/. The same command again continues. Several GPUs are all used (NUM_PROCESSES=1: one of them).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/env.sh"
launch scripts/train.py configs/demo/step1.yaml "$@"
