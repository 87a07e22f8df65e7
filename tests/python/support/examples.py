"""Running an example to its end."""

import subprocess
import sys

from . import ROOT


def run(program: str, *arguments: str, status: int = 0) -> str:
    """What it said. It must end with the status; all that it said is shown otherwise."""
    command = [sys.executable, str(ROOT / "examples" / program), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != status or (status and "Traceback" in done.stdout):
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
    print("".join(f"# {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
    return done.stdout
