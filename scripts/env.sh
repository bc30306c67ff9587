# Sourced by every .sh: strict mode, the repository root as working folder, an environment that holds the packages.
# An active virtual or conda environment is used as it is; without one, .venv is made. A second run installs nothing.
# Versions are those of constraints.txt, or of the file that META_ANIMATOR_CONSTRAINTS names; where that is empty, the newest.

set -euo pipefail
# glibc gives large blocks back to the system at once and takes them anew, page by page: a fifth of the time that encoding takes on a CPU
export MALLOC_MMAP_THRESHOLD_=${MALLOC_MMAP_THRESHOLD_:-33554432} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-536870912}
started_in=${META_ANIMATOR_STARTED_IN:-$PWD}
cd "$(dirname "${BASH_SOURCE[0]}")/.."

constraints=${META_ANIMATOR_CONSTRAINTS-constraints.txt}
if [[ -n $constraints && ! -f $constraints ]]; then
    constraints=$started_in/$constraints
fi

fail() {
    echo "error: $*" >&2
    exit 2
}

# use_environment [EXTRA]: sets $PYTHON; installs requirements.txt, then the extra of pyproject.toml, when they changed
use_environment() {
    local folder=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    PYTHON="${folder:-$PWD/.venv}/bin/python"
    install_once "${folder:-$PWD/.venv}" packages
    if [ $# -gt 0 ]; then
        install_once "${folder:-$PWD/.venv}" "$1"
    fi
}

# install_once FOLDER WHAT: a stamp in the environment's folder tells that nothing is left to do
install_once() {
    local folder=$1 what=$2 stamp="$1/.meta-animator-$2" wanted
    [[ -z $constraints || -f $constraints ]] || fail "META_ANIMATOR_CONSTRAINTS: $constraints: no such file"
    wanted="$PWD $(cat requirements.txt pyproject.toml ${constraints:+"$constraints"} | cksum)"
    if [ -x "$PYTHON" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if [ "$folder" = "$PWD/.venv" ]; then
        make_environment "$folder"
    fi
    [ -x "$PYTHON" ] || fail "the active environment $folder has no bin/python; deactivate it, or activate a whole one"
    check_version "$PYTHON"
    install "$folder" "$what"
    echo "$wanted" >"$stamp" || fail "$stamp: cannot be written; activate an environment of your own"
}

make_environment() {
    local base
    base=$(command -v python3) || fail "python3 is not on the PATH; install Python 3.10 or newer"
    check_version "$base"
    "$base" -m venv "$1" >/dev/null 2>&1 || fail "$base -m venv $1 failed; install the venv module (Debian, Ubuntu: apt install python3-venv)"
}

check_version() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
        fail "$1 is $("$1" --version 2>&1); Python 3.10 or newer is needed"
}

install() {
    local what=$2 log="$1/meta-animator-install.log"
    : >"$log" || fail "$log: cannot be written; activate an environment of your own"
    "$PYTHON" -m pip --version >>"$log" 2>&1 || "$PYTHON" -m ensurepip >>"$log" 2>&1 ||
        fail "$PYTHON has no pip; use an environment with pip"
    if [ "$what" != packages ]; then
        echo "[setup] installing the extra '$what' into $1 (log: $log)" >&2
        pip_install "$log" -e ".[$what]"
        return
    fi
    echo "[setup] installing requirements.txt into $1 (minutes the first time; log: $log)" >&2
    pip_install "$log" -r requirements.txt
    if ! "$PYTHON" -c 'import cv2' >>"$log" 2>&1; then
        echo "[setup] opencv-python does not load on this machine; taking opencv-python-headless instead" >&2
        "$PYTHON" -m pip uninstall -y opencv-python >>"$log" 2>&1 || true
        pip_install "$log" --force-reinstall --no-deps opencv-python-headless
    fi
}

pip_install() {
    local log=$1 reason advice
    shift
    if ! "$PYTHON" -m pip install --disable-pip-version-check ${constraints:+-c "$constraints"} "$@" >>"$log" 2>&1; then
        reason=$(grep -i 'error' "$log" | tail -n 1 || true)
        advice=${constraints:+"; META_ANIMATOR_CONSTRAINTS= takes the newest versions instead of those in $constraints"}
        fail "pip install $* failed: ${reason:-no reason given}; all of it in $log$advice"
    fi
}

# launch SCRIPT DEFAULT_CONFIG ARGUMENTS...: one process per device. once: the same in a single process.
launch() {
    use_environment
    place_config "${@:2}"
    META_ANIMATOR_STARTED_IN=$started_in exec "$PYTHON" scripts/launch.py "$1" "${placed[@]}"
}

once() {
    use_environment
    place_config "${@:2}"
    META_ANIMATOR_STARTED_IN=$started_in exec "$PYTHON" "$1" "${placed[@]}"
}

# place_config DEFAULT ARGUMENTS...: `placed` gets the config first, the default where no argument is one
place_config() {
    local config=$1 argument before= found=no rest=()
    shift
    for argument in "$@"; do
        if [ "$before" = --free-memory ]; then  # its value
            rest+=("$argument")
        elif [ $found = no ] && [[ $argument != *=* && $argument != -* ]]; then
            config=$argument found=yes
        else
            rest+=("$argument")
        fi
        before=$argument
    done
    if [[ $config != /* && -f $started_in/$config ]]; then
        config=$started_in/$config
    fi
    placed=("$config" ${rest[@]+"${rest[@]}"})
}

# place GIVEN DEFAULT: the path that the user gave or, without one, DEFAULT in this repository; absolute where the user stands
# elsewhere
place() {
    if [[ $started_in -ef $PWD || $1 = /* ]]; then
        echo "${1:-$2}"
    else
        [[ -n $1 ]] && echo "$started_in/$1" || echo "$PWD/$2"
    fi
}
