#!/usr/bin/env bash
# Stage 2: learn one person from a few photos, starting from stage 0 (run that first), with data.auxiliary beside frames of others.
#
#   bash Step2_finetune_BaseCtrl_LoRA.sh [CONFIG.yaml] [key=value ...] [--dry-run]
#
# Without CONFIG: configs/demo/step2.yaml, the embedded base model on puppets (2 CPU cores, no GPU); configs/sd15/step2.yaml
# is the real scale. configs/README.md says what it costs. Writes the YAML's output_dir: config.yaml, metrics.jsonl,
# previews/, checkpoints/. The same command again continues. Several GPUs are all used (NUM_PROCESSES=1: one of them).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/env.sh"
launch scripts/train.py configs/demo/step2.yaml "$@"
