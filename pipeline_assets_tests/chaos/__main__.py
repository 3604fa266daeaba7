"""`make chaos`: every fault of processes and disks, on real processes, with its result in benchmarks/results/chaos.md."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

SEED, POINTS, DAYS, EVERY = 2017, 50, 90, 9
RESULT = Path("benchmarks/results/chaos.md")


def main() -> int:
    """Run the experiments that were asked for; 1 when one did not end as wanted."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_assets_tests.chaos", description=__doc__)
    parser.add_argument("--points", type=int, default=POINTS, help="random kills (default %(default)s)")
    parser.add_argument("--days", type=int, default=DAYS, help="days of the backfills (default %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="(default %(default)s)")
    parser.add_argument(
        "--only", nargs="*", default=["kills", "disk", "rivals", "backfills"], help="(default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULT, help="(default %(default)s)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        os.environ["PIPELINE_DATA_DIR"] = f"{folder}/nothing"  # children have the settings of their shop
        return experiments(chosen, Path(folder))


def experiments(chosen: argparse.Namespace, root: Path) -> int:
    """Everything in one process that never opens a table itself (forge.py), so that its children may."""
    from pipeline_assets_tests.chaos import backfills, disk_full, forge, kills, rivals
    from pipeline_assets_tests.chaos.expected import Expected
    from pipeline_assets_tests.chaos.story import Story

    started, parts, wrong = time.monotonic(), [HEAD], 0
    forge.warm_up()
    if {"kills", "disk", "rivals"} & set(chosen.only):
        story = Story(root / "story")
        story.begin()
        expected = Expected.of(story)
    if "kills" in chosen.only:
        killed = kills.in_lanes(story, kills.chosen_points(kills.count(story), chosen.seed, chosen.points), expected)
        parts.append(f"## SIGKILL inside writers\n\n{KILLS}\n{kills.table(killed, chosen.seed)}")
        wrong += sum(bool(o.wrong) for o in killed)
    if "disk" in chosen.only:
        full = [disk_full.fill(story, case, f"full-{n}", expected) for n, case in enumerate(disk_full.CASES)]
        parts.append(f"## Disk full\n\n{FULL}\n{disk_full.table(full)}")
        wrong += sum(bool(o.wrong) for o in full)
    if "rivals" in chosen.only:
        raced = [rivals.two_at_once(story, expected), rivals.locked_database(story, expected)]
        parts.append(f"## Rivals\n\n{rivals.table(raced)}")
        wrong += sum(bool(o.wrong) for o in raced)
    if "backfills" in chosen.only:
        seeds = (chosen.seed, chosen.seed + 1)
        filled = backfills.backfill_twice(root / "backfills", chosen.days, EVERY, seeds)
        parts.append(f"## Backfills in random order\n\n{backfills.table(filled, seeds)}")
        wrong += len(filled.wrong)
    cpu = sum(os.times()[:4])
    parts.append(f"{time.monotonic() - started:.0f} s, {cpu:.0f} CPU s, {os.cpu_count()} cores.\n")
    chosen.out.write_text("\n".join(parts))
    print(chosen.out.read_text())
    return 1 if wrong else 0


HEAD = """# Chaos

Written by `make chaos` (pipeline_assets_tests/chaos/). The generated shop of pipeline_assets_tests/world.py, the real jobs, real processes.
"""
KILLS = """A batch of six days (one bad, one corrected, one delivered again unchanged, three new, one of them with bad rows) on top of 77. The
process is killed with SIGKILL before a writing system call chosen at random, then `pipeline-assets run` plans and runs again (up to features). A reader polls
`validated`, marts and features through the doors from before the kill until after the re-run. As wanted: every table as in an undisturbed
run, every look shows a day as it was before or after the batch, no file that no commit names is left.
"""
FULL = """The data folder, or the lake alone, is a tmpfs with so many bytes left when the stage begins. As wanted: the stage fails and says why, the
doors show the last good state, and with room a re-run ends with the tables of an undisturbed run and no orphan.
"""

if __name__ == "__main__":
    sys.exit(main())
