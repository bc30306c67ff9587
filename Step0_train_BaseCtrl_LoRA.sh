#!/usr/bin/env bash
# Stage 0: train the Meta ControlNet and one LoRA per Meta-Task on frames of many people.
#
#   bash Step0_train_BaseCtrl_LoRA.sh [CONFIG.yaml] [key=value ...] [--dry-run]
#
# Without CONFIG: configs/demo/step0.yaml, the embedded base model on puppets (2 CPU cores, no GPU); configs/sd15/step0.yaml
# is the real scale. configs/README.md says what it costs. Writes the YAML's output_dir: config.yaml, metrics.jsonl,
# previews/, checkpoints/. The same command again continues. Several GPUs are all used (NUM_PROCESSES=1: one of them).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/env.sh"
launch scripts/train.py configs/demo/step0.yaml "$@"
