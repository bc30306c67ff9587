#!/usr/bin/env bash
# Every stage at the full size of Stable Diffusion 1.5 and 512 x 512 pixels, on random weights: one step each, two frames.
#
#   bash scripts/dev/smoke_sd15.sh [key=value ...]     writes outputs/smoke_sd15; needs 24 GB of memory and 10 GB of disk, no GPU
#
# The pictures are noise: this shows that the code fits and runs, nothing of quality.

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../env.sh"
use_environment
export META_ANIMATOR_STARTED_IN=$started_in META_ANIMATOR_SHARED_SETTINGS=1
out=$(place "${SMOKE_DIR:-}" outputs/smoke_sd15)
data=$(place "${SMOKE_DATA:-}" data/puppets_512)
base=$out/base
[ -d "$base" ] || "$PYTHON" scripts/dev/make_random_base.py configs/sd15/architecture "$base"
puppets=("data.puppets.root=$data" data.puppets.identities=2 data.puppets.frames=2 data.puppets.photos=5
    data.puppets.driving_frames=2 data.puppets.height=512 data.puppets.width=512)
common=("model.base=$base" data.num_workers=0 train.mixed_precision=no "data.cache_dir=$out/cache" "${puppets[@]}")
training=("${common[@]}" train.max_steps=1 train.batch_size=1 train.preview_every=0 loss.start_step=0 loss.max_noise_level=1)
tasks="model.tasks=[dwpose,canny]"

bash Step0_train_BaseCtrl_LoRA.sh configs/sd15/step0.yaml "${training[@]}" "$tasks" "data.train=[$data/train]" \
    output_dir="$out/step0" "$@"
bash Step1_train_Motion_Module.sh configs/sd15/step1.yaml "${training[@]}" "data.train=[$data/train]" data.num_frames=2 \
    model.control_from="$out/step0" output_dir="$out/step1" "$@"
bash Step2_finetune_BaseCtrl_LoRA.sh configs/sd15/step2.yaml "${training[@]}" "$tasks" "data.train=[$data/person]" \
    "data.auxiliary=[$data/train]" data.auxiliary_sets=2 model.control_from="$out/step0" output_dir="$out/step2" "$@"
bash Step3_sample.sh configs/sd15/step3.yaml "${common[@]}" model.control_from="$out/step2" model.motion_from="$out/step1" \
    sample.reference="$data/person" sample.driving="$data/driving" sample.num_inference_steps=2 sample.window=2 \
    sample.overlap=0 output_dir="$out/step3" "$@"
