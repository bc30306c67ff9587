#!/usr/bin/env bash
# The page in the browser: drop photos and a motion, press one button, watch, and take the video along.
#
#   bash scripts/app.sh [options]
#
# Opens http://127.0.0.1:7860, for this machine alone. It runs scripts/animate.py, as animate.sh does, one job at a time; a closed
# browser or a stopped page ends nothing. All that it keeps lies in outputs/app. --help lists the options, among them --share and
# --host, for which others need a password. The first use installs the extra `app` (Gradio).

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
use_environment app
META_ANIMATOR_STARTED_IN=$started_in exec "$PYTHON" scripts/app.py "$@"
