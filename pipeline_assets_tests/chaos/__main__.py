"""`make chaos`: every fault of processes and disks, on real processes."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    """The settings of this process point to an empty folder before anything reads them; children have those of their shop."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        os.environ["PIPELINE_DATA_DIR"] = f"{folder}/nothing"
        from pipeline_assets_tests.chaos.experiments import experiments, options

        chosen = options()
        return experiments(chosen, chosen.folder or Path(folder))


if __name__ == "__main__":
    sys.exit(main())
