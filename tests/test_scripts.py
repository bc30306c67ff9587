"""The shell scripts without an installation: syntax, which config they take, --dry-run, one-line errors."""

import os
import platform
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from meta_animator.config import load_config
from meta_animator.stages.dry_run import trainable_parameters

ROOT = Path(__file__).parents[1]
SHELL_SCRIPTS = [*sorted(ROOT.glob("*.sh")), *sorted((ROOT / "scripts").rglob("*.sh")), ROOT / ".ci" / "run"]
STAGES = {
    "Step0_train_BaseCtrl_LoRA.sh": "launch scripts/train.py configs/demo/step0.yaml",
    "Step1_train_Motion_Module.sh": "launch scripts/train.py configs/demo/step1.yaml",
    "Step2_finetune_BaseCtrl_LoRA.sh": "launch scripts/train.py configs/demo/step2.yaml",
    "Step3_sample.sh": "once scripts/sample.py configs/demo/step3.yaml",
    "extract_LoRA_weights.sh": "once scripts/extract_lora.py configs/demo/extract.yaml",
}


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def bash(code: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "CONDA_PREFIX", "NUM_PROCESSES")}
    return subprocess.run(
        [shutil.which("bash"), "-c", code], cwd=folder, env=kept | variables, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_syntax(script):
    assert bash(f"bash -n '{script}'").stderr == ""


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_a_short_script_with_existing_parts(name):
    lines = (ROOT / name).read_text().splitlines()
    assert len(lines) <= 15 and lines[-1] == f'{STAGES[name]} "$@"'
    _, script, config = STAGES[name].split()
    assert (ROOT / script).is_file() and (ROOT / config).is_file()


def test_a_reader_that_has_left_is_no_bug():
    """As in `... | head`, once head has what it wants."""
    read, write = os.pipe()
    os.close(read)
    listed = subprocess.run([sys.executable, "scripts/dev/describe_config.py"], cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (listed.returncode, listed.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "placed"),
    [
        ("", "default.yaml"),
        ("mine.yaml", "mine.yaml"),
        ("train.max_steps=3 --dry-run", "default.yaml train.max_steps=3 --dry-run"),
        ("mine.yaml a=1 b=2", "mine.yaml a=1 b=2"),
        ("--dry-run mine.yaml a=1", "mine.yaml --dry-run a=1"),
        ("a=1 --dry-run --free-memory 24", "default.yaml a=1 --dry-run --free-memory 24"),
        ("--help", "default.yaml --help"),
    ],
)
def test_the_config_is_the_argument_that_is_no_option(arguments, placed):
    answer = bash(f"source scripts/env.sh; place_config default.yaml {arguments}; echo ${{placed[@]}}")
    assert (answer.stdout.strip(), answer.stderr) == (placed, "")


def test_a_config_is_also_found_from_the_callers_folder(tmp_path):
    (tmp_path / "mine.yaml").touch()
    answer = bash(f"source '{ROOT}/scripts/env.sh'; place_config default.yaml mine.yaml; echo ${{placed[@]}}", tmp_path)
    assert answer.stdout.strip() == str(tmp_path / "mine.yaml")


def test_a_config_where_the_user_stands_is_nearer_than_ours(tmp_path):
    (tmp_path / "configs" / "demo").mkdir(parents=True)
    (tmp_path / "configs" / "demo" / "step0.yaml").touch()
    code = f"source '{ROOT}/scripts/env.sh'; place_config default.yaml configs/demo/step0.yaml; echo ${{placed[@]}}"
    assert bash(code, tmp_path).stdout.strip() == str(tmp_path / "configs/demo/step0.yaml")


def test_a_symlinked_script_works_and_tells_where_the_user_stands(environment):
    """Through a link to a link, from a folder with a blank in its name."""
    home = environment / "my home"
    home.mkdir()
    (home / "first.sh").symlink_to(ROOT / "Step3_sample.sh")
    (home / "dance.sh").symlink_to("first.sh")
    python = environment / "env" / "bin" / "python"
    python.write_text(f'{python.read_text().removesuffix("exit 0" + chr(10))}echo "$META_ANIMATOR_STARTED_IN" "$PWD" "$@"\n')
    answer = bash("bash ./dance.sh sample.reference=me.png", home, VIRTUAL_ENV=str(environment / "env"))
    assert answer.stdout.splitlines()[-1] == f"{home} {ROOT} scripts/sample.py configs/demo/step3.yaml sample.reference=me.png"


@pytest.mark.parametrize(
    ("given", "here", "elsewhere"),
    [("", "outputs/x", f"{ROOT}/outputs/x"), ("mine", "mine", "{there}/mine"), ("/mine", "/mine", "/mine")],
)
def test_folders_of_the_demo_are_where_their_user_names_them(tmp_path, given, here, elsewhere):
    code = f"source '{ROOT}/scripts/env.sh'; place '{given}' outputs/x"
    assert bash(code).stdout.strip() == here
    assert bash(code, tmp_path).stdout.strip() == elsewhere.format(there=tmp_path)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="these are glibc's settings")
def test_memory_given_back_by_a_program_is_kept_for_its_next_step():
    """Four blocks of 20 MB, twenty times: their pages are made once, and not twenty times."""
    code = (
        "import resource\nfor _ in range(20):\n    blocks = [bytearray(20_000_000) for _ in range(4)]\n    del blocks\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    )
    command = f"source scripts/env.sh; '{sys.executable}' -c '{code}'"
    variables = {"MALLOC_MMAP_THRESHOLD_": "", "MALLOC_TRIM_THRESHOLD_": ""}
    assert int(bash(command, **variables).stdout) < 60_000
    assert bash("source scripts/env.sh; echo $MALLOC_TRIM_THRESHOLD_", MALLOC_TRIM_THRESHOLD_="7").stdout == "7\n"


@pytest.fixture
def environment(tmp_path):
    """A pretended environment: its python notes how pip is called, and pip fails on request."""
    python = tmp_path / "env" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"#!/bin/bash\necho \"$@\" >>'{tmp_path}/calls'\n"
        'if [ "$3" = install ] && [ -n "${FAIL:-}" ]; then echo "ERROR: no such package"; exit 1; fi\nexit 0\n'
    )
    python.chmod(0o755)
    return tmp_path


def use(environment: Path, extra: str = "", **variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    (environment / "calls").write_text("")
    answer = bash(f"source scripts/env.sh; use_environment {extra}", VIRTUAL_ENV=str(environment / "env"), **variables)
    return answer, [line for line in (environment / "calls").read_text().splitlines() if "pip install" in line]


def test_a_second_run_installs_nothing(environment):
    answer, calls = use(environment)
    assert answer.returncode == 0 and len(calls) == 1 and "-c constraints.txt -r requirements.txt" in calls[0]
    assert answer.stderr.count("\n") == 1 and answer.stderr.startswith("[setup] installing")
    answer, calls = use(environment)
    assert (answer.returncode, answer.stderr, calls) == (0, "", [])
    assert (environment / "calls").read_text() == ""
    answer, calls = use(environment, "dev")
    assert len(calls) == 1 and "-c constraints.txt -e .[dev]" in calls[0]
    assert use(environment, "dev")[1] == []


def test_other_versions_can_be_named_or_left_to_pip(environment, tmp_path):
    (tmp_path / "mine.txt").write_text("numpy==2.0.0\n")
    use(environment)
    assert "-c" not in use(environment, META_ANIMATOR_CONSTRAINTS="")[1][0].split()
    assert use(environment, META_ANIMATOR_CONSTRAINTS="")[1] == []
    assert f"-c {tmp_path}/mine.txt" in use(environment, META_ANIMATOR_CONSTRAINTS=f"{tmp_path}/mine.txt")[1][0]
    (tmp_path / "mine.txt").write_text("numpy==2.0.1\n")
    assert len(use(environment, META_ANIMATOR_CONSTRAINTS=f"{tmp_path}/mine.txt")[1]) == 1
    answer, _ = use(environment, META_ANIMATOR_CONSTRAINTS="nowhere.txt")
    assert answer.returncode == 2 and "nowhere.txt: no such file" in answer.stderr


def test_what_the_configs_for_a_gpu_read_needs_no_extra():
    """Their face embedder is an .onnx file, which two packages read; an environment for developers has every extra."""
    for family in ("sd15", "wan"):
        assert load_config(ROOT / "configs" / family / "step2.yaml", []).model.face.endswith(".onnx")
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert {"onnx", "onnx2torch"} <= {Requirement(line).name for line in lines if line and line[0] not in "#-"}


def test_every_package_has_a_known_version_that_it_may_have():
    """On the Python that they were tried with; the names of extras included."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 brings it")
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    for extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].values():
        lines += extra
    wanted = [Requirement(line) for line in lines if line and line[0] not in "#-"]
    known = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pins = {one.name: one for one in known}
    assert len(pins) == len(known) and all(one.marker.evaluate({"python_version": "3.11"}) for one in known)
    assert not any(one.marker.evaluate({"python_version": "3.10"}) for one in known)
    for package in wanted:
        assert package.name in pins, f"constraints.txt: no version of {package.name}"
        (version,) = [one.version for one in pins[package.name].specifier if one.operator in ("==", ">=")]
        assert package.specifier.contains(version), package.name


def test_a_failing_pip_is_one_line_and_tried_again(environment):
    answer, _ = use(environment, FAIL="1")
    assert answer.returncode == 2
    error = answer.stderr.splitlines()[-1]
    assert error.startswith("error: pip install -r requirements.txt failed: ERROR: no such package")
    assert "META_ANIMATOR_CONSTRAINTS= takes the newest versions" in error
    assert len(use(environment)[1]) == 1


def test_a_broken_active_environment_is_one_line(tmp_path):
    answer = bash("source scripts/env.sh; use_environment", VIRTUAL_ENV=str(tmp_path))
    assert answer.returncode == 2 and answer.stderr.count("\n") == 1 and str(tmp_path) in answer.stderr


def test_a_machine_without_python_is_one_line(tmp_path):
    """On a copy: the checkout may well have its own .venv."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/env.sh", "requirements.txt", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cat", "cksum", "dirname"):
        (tools / tool).symlink_to(shutil.which(tool))
    answer = bash("source scripts/env.sh; use_environment", tmp_path, PATH=str(tools))
    assert (answer.returncode, answer.stderr) == (
        2, "error: python3 is not on the PATH; install Python 3.10 or newer\n",
    )  # fmt: skip


def test_dry_run_counts_the_trainable_parameters_without_weights(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", str(ROOT / "configs" / "sd15" / "step0.yaml"), "--dry-run"])
    monkeypatch.chdir(ROOT)
    runpy.run_path("scripts/train.py", run_name="__main__")
    assert "588,970,624" in capsys.readouterr().out
    assert sum(trainable_parameters(load_config("configs/sd15/step1.yaml")).values()) == 417_137_600


def test_an_unknown_key_is_one_quick_line():
    begin = time.monotonic()
    answer = python("scripts/train.py", "configs/demo/base_vae.yaml", "train.max_step=3")
    assert answer.returncode == 2 and answer.stdout == ""
    assert answer.stderr.startswith("error: ") and answer.stderr.count("\n") == 1 and "train.max_steps" in answer.stderr
    assert time.monotonic() - begin < 5.0  # a second on a quiet machine: torch alone takes longer than that


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").rglob("*.py")), ids=lambda path: path.name)
def test_help_answers(script):
    answer = python(str(script), "--help")
    assert "usage" in answer.stdout or "python scripts/launch.py" in answer.stderr


@pytest.mark.parametrize(("arguments", "code", "said"), [
    ("--help", 0, "--wan [key"), ("train.max_step=5", 2, "max_step"), ("--dry-run", 2, "argument '--dry-run'"),
])  # fmt: skip
def test_the_demo_deletes_nothing_for_arguments_that_it_does_not_take(tmp_path, arguments, code, said):
    (tmp_path / "out" / "step0").mkdir(parents=True)
    (tmp_path / "out" / "step0" / "mine").touch()
    answer = bash(f"bash scripts/demo.sh {arguments}", DEMO_DIR=str(tmp_path / "out"))
    assert answer.returncode == code and said in answer.stdout + answer.stderr
    assert (tmp_path / "out" / "step0" / "mine").is_file()
