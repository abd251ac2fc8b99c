"""Write bare-py3XX.txt.

The exact versions that pip resolves `bare.in` to, for the Python that runs this.

    python3.10 requirements/lock.py && python3.11 requirements/lock.py \\
        && python3.12 requirements/lock.py

What torch alone brings (CUDA libraries with its default build, nothing with the CPU build) is left
to torch, which pins it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

_OF_TORCH = re.compile(r"nvidia-|cuda-|triton")


def main() -> None:
    folder = Path(__file__).resolve().parent
    command = [
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--report",
        "-",
        "-r",
        "bare.in",
    ]
    answer = subprocess.run(
        [sys.executable, *command], cwd=folder, check=True, stdout=subprocess.PIPE
    ).stdout
    found = (package["metadata"] for package in json.loads(answer)["install"])
    # the local part of a version (+cpu) names a build, and that is for each machine to choose
    pins = {
        package["name"].lower(): package["version"].partition("+")[0] for package in found
    }
    lines = [f"{name}=={pins[name]}" for name in sorted(pins) if not _OF_TORCH.match(name)]
    path = folder / f"bare-py{sys.version_info.major}{sys.version_info.minor}.txt"
    path.write_text(
        f"# written by {Path(__file__).name} from bare.in\n" + "\n".join(lines) + "\n"
    )
    print(f"{path.name}: {len(lines)} packages")


if __name__ == "__main__":
    main()
