#!/usr/bin/env bash
# From photos of a person and a film of a motion to a video of that person in that motion.
#
#   bash scripts/animate.sh PHOTOS MOTION [OUT.mp4] [options] [key=value ...]
#
# PHOTOS: a folder of at least five photos of one person, or a film of that person. MOTION: a film of anybody, a film of drawn
# poses, a keypoint .npz, or a data set. Prepares both, fine-tunes (stage 2), samples (stage 3); what is done already is not
# done again, and the person is kept for the next motion. --help lists the options.
#
# Environment: CONFIG (configs/demo: the embedded base, any machine; configs/sd15 or configs/wan on a GPU box, after
# `python scripts/get_weights.py sd15` or `wan`), ANIMATE_DIR (outputs/animate, where everything is kept).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
use_environment
META_ANIMATOR_STARTED_IN=$started_in exec "$PYTHON" scripts/animate.py "$@"
