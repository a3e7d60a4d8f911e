"""What a cluster said of jobs that it refused or ended, and what to do then."""

from __future__ import annotations

import re
from pathlib import Path

LOGS = Path(".snakemake/slurm_logs")
MEMORY = "killed for its memory; raise mem_mb in the profile"
# Slurm's words → what to do. The first that is found counts: a job that is killed for its memory is
# said to be cancelled, too.
NEXT_STEPS = {
    "invalid partition": "no such partition; set slurm_partition in the profile to one that "
    "sinfo lists",
    "Invalid account": "no such account; set slurm_account in the profile to one of yours "
    "(sacctmgr show associations user=$USER)",
    "Invalid generic resource": "the partition has no GPU by that name; take gres out of the "
    "profile, or name a partition with GPUs (sinfo --format '%P %G')",
    "node configuration is not available": "no node has as much; compare threads, mem_mb and gres "
    "with sinfo --format '%P %c %m %G' and set them lower in the profile (set-resources, "
    "set-threads)",
    "exceeded memory limit": MEMORY,
    "Exceeded job memory limit": MEMORY,
    "oom_kill": MEMORY,
    "oom-kill": MEMORY,
    "DUE TO TIME LIMIT": "killed for its time; raise runtime in the profile",
    "time limit": "the partition allows less time; lower runtime in the profile, or name another "
    "partition",
    "CANCELLED AT": "cancelled; run the same command again",
}


def next_steps(log: Path) -> list[str]:
    """Return a line for each rule that failed and reason, read from Snakemake's log and Slurm's."""
    lines = []
    for error in _text(log).split("\nError in rule ")[1:]:
        rule, _, said = error.partition("\n[")[0].partition(":")
        job = re.search(r"external_jobid: (\S+)", said)
        logs = LOGS.rglob(f"{job[1]}.log") if job else ()
        said = "\n".join([said, *map(_text, logs)])
        step = next((step for words, step in NEXT_STEPS.items() if words in said), None)
        if step:
            lines.append(f"{rule}: {step}")
    return list(dict.fromkeys(lines))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
