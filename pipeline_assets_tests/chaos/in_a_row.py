"""Four interruptions of one batch, each pass going on where the one before was stopped: the short form for `make test`.

Killed while landing, killed while validating, a full disk while publishing marts, killed while writing features; then a pass to
the end. A reader looks on all the time. Run as a process of its own, because its children are forks (forge.py):
`python -m pipeline_assets_tests.chaos.in_a_row PAST OUT`, PAST the root of a shop that was run, OUT a file for the result.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

from pipeline_assets_tests.chaos import forge
from pipeline_assets_tests.shop import Shop

KILLED_AT = {"ingestion": 6, "validation": 9, "features": 4}  # writing calls: within the second table that is written
FULL_AT = {"marts": 6}


def interrupt(root: Path, past: Shop) -> dict[str, list[str]]:
    """Interrupt, finish, compare: what happened to each pass, and what was wrong."""
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets_tests.chaos.disk_full import last_error
    from pipeline_assets_tests.chaos.expected import Expected
    from pipeline_assets_tests.chaos.kills import what_is_left
    from pipeline_assets_tests.chaos.looking import differences, orphans, through_doors
    from pipeline_assets_tests.chaos.small_disk import small_disk
    from pipeline_assets_tests.chaos.story import PAST, STAGES, Story, bring_up, stage_of
    from pipeline_assets_tests.chaos.tracing import Call, Decision

    story = Story(root / "story")
    story.begin(past)
    expected = Expected.of(story)
    shop = Shop(root / "interrupted")
    (shop.data_dir / "lake").mkdir(parents=True)
    shop.drops.symlink_to(story.at(PAST).drops)
    lake, inside = local_lake(shop.data_dir), f"{shop.data_dir}/"
    found: dict[str, list[str]] = {"stopped": [], "left": [], "saw": [], "wrong": []}
    with small_disk(shop.data_dir / "lake") as disk:
        shutil.copytree(story.at(PAST).data_dir, shop.data_dir, dirs_exist_ok=True)

        def look(number: int) -> None:
            for line in differences(through_doors(lake, story.days), expected.before, expected.after):
                print(f"SAW {line}", flush=True)
            (root / "looks").write_text(str(number + 1))

        reader = forge.Beside(shop, look, root / "reader.log")
        for stage in STAGES:
            passed = 0

            def decide(call: Call, stage: str = stage) -> Decision:
                nonlocal passed
                if not call.path.startswith(inside) or stage_of(call.path.removeprefix(inside)) != stage:
                    return "go"
                passed += 1
                if passed == FULL_AT.get(stage):
                    disk.leave(0)
                return "kill" if passed == KILLED_AT.get(stage) else "go"

            ended = forge.run(shop, bring_up, root / f"{stage}.log", decide)
            how = "killed" if ended.was_killed else last_error(ended.said) or f"ended otherwise: {ended.said[-300:]}"
            found["stopped"].append(f"{stage}: {how}")
            found["left"] += orphans(Path(lake.root))
            disk.free()
        ended = forge.run(shop, bring_up, root / "again.log")
        if not ended.succeeded:
            found["wrong"].append(ended.said[-2000:])
        saw = reader.stopped()
        found["saw"] = [f"{(root / 'looks').read_text()} looks", *saw.said.splitlines()]
        found["wrong"] += what_is_left(shop.root, expected)
    return found


if __name__ == "__main__":
    out = Path(sys.argv[2])
    os.environ["PIPELINE_DATA_DIR"] = str(out.parent / "nothing")  # children have the settings of their shop
    forge.warm_up()
    out.write_text(json.dumps(interrupt(out.parent, Shop(Path(sys.argv[1])))))
