#!/usr/bin/env bash
# Train an embedded base model anew: puppets, VAE, its decoder, a small VAE, UNet with text encoder and Meta ControlNet, face
# embedder, stages 0 and 1; hours on 2 CPU cores that know bfloat16 (assets/base/README.md has the parts' times). An
# interrupted run goes on where it was.
#
#   bash scripts/dev/train_base.sh [key=value ...]       writes outputs/base/model; copy it to assets/base to make it the default;
#                                                    extra settings go to every stage
#   bash scripts/dev/train_base.sh wan [key=value ...]   the small Wan: VAE, transformer with text encoder and control branch;
#                                                    writes outputs/base_wan/model, which WanVACEPipeline loads
#
# To go on from the shipped weights instead of random ones, give a stage model.base_from=assets/base (README of assets/base).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../env.sh"
use_environment
export META_ANIMATOR_STARTED_IN=$started_in META_ANIMATOR_SHARED_SETTINGS=1
configs=configs/demo/base_ output=outputs/base parts=(vae decoder tiny_vae unet face control motion)
if [ "${1:-}" = wan ]; then
    shift
    configs=configs/base_wan/ output=outputs/base_wan parts=(photos vae decoder transformer_photos transformer)
fi
for part in "${parts[@]}"; do
    "$PYTHON" scripts/launch.py scripts/train.py "$configs$part.yaml" "$@"
    "$PYTHON" scripts/dev/export_base.py "$output/$part" "$output/model"
done
