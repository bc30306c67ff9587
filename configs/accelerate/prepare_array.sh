#!/usr/bin/env bash
# A large set prepared by a Slurm array, a share by each task; the last one to finish joins them into one manifest.
#   sbatch --array=1-16 configs/accelerate/prepare_array.sh FOOTAGE data/NAME [options of prepare_data.py]
# Any other job runner: give each job its own --part K/N. A share that was interrupted goes on when its task runs again.
#SBATCH --job-name=meta-animator-prepare
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=24:00:00
set -euo pipefail

input=$1 output=$2
shift 2
python scripts/prepare_data.py --input "$input" --output "$output" --frames jpg \
    --part "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT" --workers "${SLURM_CPUS_PER_TASK:-0}" "$@"
