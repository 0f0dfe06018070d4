"""What a failing test prints is about the failure."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent

FAILING = """
import logging

# As PyTorch's log of tracing: it passes nothing on to the root, and is open from the lowest level on.
trace = logging.getLogger("trace")
trace.setLevel(logging.DEBUG)
trace.propagate = False


def test_it():
    for step in range(100):
        trace.debug("traced %d", step)
    trace.warning("worth knowing")
    raise AssertionError("broken")
"""


def test_debug_lines_do_not_bury_a_failure(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(FAILING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        f"{PROJECT}/pyproject.toml",
        f"--rootdir={tmp_path}",
        f"{tmp_path}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "1 failed" in result.stdout
    assert "worth knowing" in result.stdout
    assert "traced 99" not in result.stdout
