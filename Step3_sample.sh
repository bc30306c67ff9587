#!/usr/bin/env bash
# Stage 3: the person of stage 2, moved by the motion module of stage 1 along a driving pose sequence (run both first).
#
#   bash Step3_sample.sh [CONFIG.yaml] [key=value ...] [--dry-run]
#
# Without CONFIG: configs/demo/step3.yaml, the embedded base model and a held-out puppet motion (2 CPU cores, no GPU);
# configs/sd15/step3.yaml is the real scale. configs/README.md says what it costs. Writes the video into its output_dir.
# NUM_PROCESSES=4: four GPUs share the windows of a long clip.

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/scripts/env.sh"
if [ "${NUM_PROCESSES:-1}" != 1 ]; then launch scripts/sample.py configs/demo/step3.yaml "$@"; fi
once scripts/sample.py configs/demo/step3.yaml "$@"
