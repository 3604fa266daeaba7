"""What a finished replay came to, as a committed page: figures, chart and ledgers of `pipeline-assets replay --out FOLDER`.

    pipeline-assets replay --from 2017-07-01 --to 2017-12-31 --policy weekly --policy drift --policy never --share 0.25 --out FOLDER
    python -m benchmarks.replay FOLDER                             results/replay.{json,md,png} and the ledgers
    python -m benchmarks.replay FOLDER --equal-to OTHER            the other replay asked the same: are the ledgers equal?
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks.replay_page import page
from benchmarks.scale import RESULTS, commit, machine
from pipeline_assets.recommender.metrics import bootstrap_mean

if TYPE_CHECKING:
    from pipeline_assets.replay.story import Event
