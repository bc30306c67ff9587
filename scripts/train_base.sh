#!/usr/bin/env bash
# Train the embedded base model anew: puppets, VAE, UNet with text encoder, face embedder, stage 0; well over an hour on 2 CPU cores.
#
#   bash scripts/train_base.sh      writes outputs/base/model; copy it to assets/base to make it the default

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
use_environment
for part in vae unet face control; do
    "$PYTHON" scripts/launch.py scripts/train.py "configs/demo/base_$part.yaml"
    "$PYTHON" scripts/export_base.py "outputs/base/$part" outputs/base/model
done
