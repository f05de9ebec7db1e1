"""A sweep as an array job of Slurm: a script of which each task trains one run, by its id.

It is plain text to be read and changed before use. It was run under bash, never on a real Slurm.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from sparserl.sweep.file import Job

COMMAND = (sys.executable, "-P", "-m", "sparserl")
TEMPLATE = """\
#!/bin/bash
# UNTESTED on a real Slurm: read it, then set what your cluster asks for (time, memory, partition, account).
# Given again it trains what is left: finished runs end at once, and broken ones go on.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}
#SBATCH --ntasks=1
#SBATCH --cpus-per-task={threads}
#SBATCH --requeue
# Before the time is over, so that the run can save.
#SBATCH --signal=B:TERM@120

ids=(
{ids}
)
cd {here} || exit
exec {command} sweep {file} --only "${{ids[$SLURM_ARRAY_TASK_ID]}}" --out {out} --no-progress
"""


def array_script(jobs: Sequence[Job], file: Path, out: Path) -> str:
    """The script for `sbatch`.

    Args:
        jobs: The runs, at least one.
        file: The sweep file; as it is now, since another one may have other ids.
        out: Folder of the run folders.
    """
    return TEMPLATE.format(
        name=shlex.quote(file.stem),
        last=len(jobs) - 1,
        threads=max(job.config["threads"] for job in jobs),
        ids="\n".join(f"  {job.id}  # {job.folder}" for job in jobs),
        here=shlex.quote(str(Path.cwd())),
        command=shlex.join(COMMAND),
        file=shlex.quote(str(file.absolute())),
        out=shlex.quote(str(out.absolute())),
    )
