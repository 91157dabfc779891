"""Runs every loop here with the libraries that are installed, and stores what it found and their versions.

    pip install angulus lightning accelerate transformers && python examples/loops/run.py

`python docs/loops.py` makes the page's table of it.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from angulus.core import environment

HERE = Path(__file__).parent
STORED = HERE.parents[1] / "docs" / "results" / "loops.jsonl"
LOOPS = {  # the script, and with how many processes it runs
    "plain": (1,), "compiled": (1,), "ddp": (2,), "ddp_sharded": (2,), "fsdp2": (2,),
    "lightning_fit": (1, 2), "accelerate_loop": (1, 2), "hf_trainer": (1, 2),
}  # fmt: skip
PACKAGES = ("lightning", "accelerate", "transformers")
# so that folder names, which rank 0 draws, can be shared before the library joins the processes
JOIN = "import runpy, sys, torch.distributed as d; d.init_process_group('gloo'); sys.path.insert(0, '{0}'); "
JOIN += "runpy.run_path('{0}/{1}.py', run_name='__main__')"


def command(script: str, processes: int) -> list[str]:
    """One process, or as many as torchrun starts."""
    if processes == 1:
        return [sys.executable, f"{HERE}/{script}.py"]
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    if len(LOOPS[script]) == 1:
        return [sys.executable, *run, f"{HERE}/{script}.py"]
    return [sys.executable, *run, "--no-python", sys.executable, "-c", JOIN.format(HERE, script)]


def main() -> None:
    """Replace the stored lines by those of this run."""
    lines = []
    about = environment.of_timing(torch.device("cpu"), *PACKAGES)
    del about["command"]  # each loop has its own, `script`
    for script, counts in LOOPS.items():
        for processes in counts:
            began = time.perf_counter()
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(command(script, processes), capture_output=True, text=True, env=env)
            if done.returncode:
                raise SystemExit(f"{script} with {processes} processes failed:\n{done.stderr[-3000:]}")
            found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"loop"')))
            assert found["processes"] == processes, found
            seconds = round(time.perf_counter() - began, 1)
            lines.append({"script": script, **found, "seed": 0, "seconds": seconds, "environment": about})
            print(json.dumps(lines[-1]))
    STORED.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


if __name__ == "__main__":
    main()
