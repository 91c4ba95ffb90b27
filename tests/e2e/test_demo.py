"""`make demo` does what the README says: it ends well, and its story holds what it promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_tells_its_story():
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    answers, errors = re.search(r"(\d+) answers, (\d+) errors", done.stdout).groups()
    assert int(answers) > 0
    assert errors == "0"
    for promised in (
        "espresso",
        "clean.openvino-fp32",
        "int8.openvino-int8",
        "not run here",
        "from push to first answer",
        "gateway.push",
        "compiler.verify",
        "serving.deploy",
    ):
        assert promised in done.stdout, promised
