"""A program that waits for another one, and is asked to stop."""

import subprocess
import sys
import textwrap

import pytest

CHILD = """
import pathlib, signal, sys, time
def stop(number, frame):
    time.sleep(0.3)
    pathlib.Path(sys.argv[1]).write_text("saved")
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(20)
"""


@pytest.mark.parametrize(("code", "told"), [(143, 143), (0, 143), (2, 2)])
def test_who_waits_passes_it_on_and_lets_the_other_one_save(tmp_path, code, told):
    parent = textwrap.dedent(f"""
        import sys
        from meta_animator.training.signals import run_to_its_end
        run_to_its_end([sys.executable, "-c", {CHILD!r}, {str(tmp_path / "file")!r}, "{code}"])
    """)
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(20) == told and (tmp_path / "file").read_text() == "saved"


@pytest.mark.parametrize(("ending", "told"), [("sys.exit(0)", 0), ("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 137)])
def test_its_failure_ends_who_waited(ending, told):
    parent = "import sys; from meta_animator.training.signals import run_to_its_end; " + (
        f"run_to_its_end([sys.executable, '-c', 'import os, sys; {ending}'])"
    )
    assert subprocess.run([sys.executable, "-c", parent]).returncode == told
