#!/usr/bin/env bash
# Everything that is checked: style, import rules, tests. Extra arguments go to pytest: bash scripts/test.sh -k launch

source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
use_environment dev
export PATH="$(dirname "$PYTHON"):$PATH" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

failed=0
echo "[test] ruff" && ruff check . || failed=1
echo "[test] import rules" && lint-imports --no-cache || failed=1
echo "[test] pytest, two at a time" && "$PYTHON" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || failed=1
exit $failed
