#!/usr/bin/env bash
# Slurm, two nodes: sbatch configs/accelerate/slurm.sh configs/sd15/step0.yaml [key=value ...]
# A preempted job gets SIGTERM 120 s before its end, saves, and continues where it was when Slurm starts it again.
#SBATCH --job-name=meta-animator
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue

export ACCELERATE_CONFIG_FILE=configs/accelerate/two_nodes.yaml
export MAIN_PROCESS_IP=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun --kill-on-bad-exit=1 bash -c 'MACHINE_RANK=$SLURM_NODEID exec bash Step0_train_BaseCtrl_LoRA.sh "$@"' _ "$@"
