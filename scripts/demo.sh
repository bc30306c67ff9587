#!/usr/bin/env bash
# The whole pipeline on puppets with an embedded base model: 10 minutes on 2 CPU cores, no GPU, no weights
# to fetch. Each call begins anew: it deletes the folders of its stages in DEMO_DIR.
#
#   bash scripts/demo.sh [key=value ...]          extra settings go to every stage
#   bash scripts/demo.sh --fast [key=value ...]   a first look: stages 0 and 1 as they are shipped, a short stage 2, half of
#                                                 the frames
#   bash scripts/demo.sh --wan [key=value ...]    the same stages on a small Wan, a video transformer, at 64 x 64; 7
#                                                 minutes
#
# Environment: DEMO_DIR (outputs/demo, outputs/demo_wan), DEMO_DATA (data/puppets, data/puppets_wan). Writes DEMO_DIR/{animation.mp4, overview.png, metrics.json}.

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
use_environment
fast=false wan=false
case ${1:-} in
    --fast) fast=true && shift ;;
    --wan) wan=true && shift ;;
esac
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then
    sed -n '2,/^$/s/^# \{0,1\}//p' scripts/demo.sh
    exit
fi
export META_ANIMATOR_STARTED_IN=$started_in META_ANIMATOR_SHARED_SETTINGS=1
name=demo puppets=puppets configs=configs/demo
if $fast; then
    name=demo_fast puppets=puppets_fast
elif $wan; then
    name=demo_wan puppets=puppets_wan configs=configs/demo_wan
fi
out=$(place "${DEMO_DIR:-}" "outputs/$name") data=$(place "${DEMO_DATA:-}" "data/$puppets")
seconds=()

# stage NAME SENTENCE COMMAND...: tell what comes, run it, keep its wall-clock seconds
stage() {
    local name=$1 from=$SECONDS
    echo
    echo "== $name: $2"
    shift 2
    "$@"
    seconds+=("$name=$((SECONDS - from))")
}

check="import sys; from meta_animator.cli import run; from meta_animator.config import load_config"
"$PYTHON" -c "$check; run(lambda: load_config('$configs/step0.yaml', sys.argv[1:]))" "$@"  # before anything is deleted
rm -rf "$out"/cache "$out"/step0 "$out"/step1 "$out"/step2 "$out"/step3 "$out"/step3_shuffled "$out"/loras "$out"/text
here=("data.puppets.root=$data" "data.cache_dir=$out/cache" "data.train=[$data/train]")
trained0=$out/step0 trained1=$out/step1 before2=$out/step0 moves="the motion module learns" photos=("data.train=[$data/person]")
if $wan; then
    here+=("model.text_cache=$out/text")
    photos+=("data.auxiliary=[$data/train]")
    before2=$out/step1 moves="the pose's LoRA learns"  # its checkpoint has the other LoRAs too
fi
if $fast; then
    trained0=$(place "" assets/base/control) trained1=$(place "" assets/base/motion)
    before2=$trained0
    here+=(data.puppets.identities=8 data.puppets.frames=4 data.puppets.driving_frames=12)
    short=(train.max_steps=100 train.preview_every=0 sample.num_inference_steps=12)
    set -- "${short[@]}" "$@"
fi
$fast || stage step0 "Meta ControlNet and nine LoRAs learn from many people" \
    bash Step0_train_BaseCtrl_LoRA.sh "$configs/step0.yaml" "${here[@]}" output_dir="$out/step0" "$@"
$fast || stage step1 "$moves from clips" \
    bash Step1_train_Motion_Module.sh "$configs/step1.yaml" "${here[@]}" output_dir="$out/step1" model.control_from="$trained0" "$@"
stage step2 "eight photos of one person" \
    bash Step2_finetune_BaseCtrl_LoRA.sh "$configs/step2.yaml" "${here[@]}" output_dir="$out/step2" model.control_from="$before2" \
    "${photos[@]}" "$@"
$fast || stage extract "each task's LoRA as a folder of its own" \
    bash extract_LoRA_weights.sh "$configs/extract.yaml" output_dir="$out/loras" extract.checkpoint="$out/step2" "$@"
sampling=(model.control_from="$out/step2" sample.reference="$data/person" sample.driving="$data/driving")
if $wan; then sampling+=("model.text_cache=$out/text"); else sampling+=("model.motion_from=$trained1"); fi
stage step3 "that person in a motion nobody has seen" bash Step3_sample.sh "$configs/step3.yaml" "${sampling[@]}" output_dir="$out/step3" "$@"
compare=()
if ! $fast; then
    stage control "the same with the poses in a wrong order: it must score worse" \
        bash Step3_sample.sh "$configs/step3.yaml" "${sampling[@]}" output_dir="$out/step3_shuffled" sample.shuffle_driving=true "$@"
    compare=(--shuffled "$out/step3_shuffled")
fi

echo
"$PYTHON" scripts/evaluate.py "$out/step3" --truth "$data/driving" --reference "$data/person" \
    ${compare[@]+"${compare[@]}"} --seconds "${seconds[@]}" --output "$out"
cp "$out/step3/animation.mp4" "$out/animation.mp4"
echo
echo "the animation:            $out/animation.mp4"
echo "beside truth and photos:  $out/overview.png"
echo "numbers:                  $out/metrics.json"
