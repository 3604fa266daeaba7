"""Load and question a bundle in a child process, before any server or release touches it.

Belongs here: the probe and its report. Does not: recording the verdict (release_state), swapping (live).
A child, because a damaged model can abort the process that parses it (reliability E5): a crash becomes a refusal. The child is a fresh
process, mostly imports; who probes every few seconds has it forked from a process that has imported everything (probe_server.py).
Run by hand: `python -m pipeline_assets.serving.probe DIR` prints the report as JSON; exit status 0 means accepted.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline_assets.recommender.bundle import GOLDEN_K, Bundle, GoldenAnswer, WarmupRequest, load_bundle
from pipeline_assets.recommender.errors import BundleError, PipelineError
from pipeline_assets.recommender.signature import TrustedKeys
from pipeline_assets.serving.startup import import_lightgbm_alone

TIMEOUT_SECONDS = 120.0  # a probe takes about 1.5 s CPU; the rest is for a loaded machine
# 300 trees x 200 candidates cost 3 to 7 ms, and 0.5 to 0.9 ms compiled: refuse a model about ten times slower.
MAX_ANSWER_CPU_MS, MAX_COMPILED_CPU_MS = 60.0, 10.0
SCORE_TOLERANCE = 1e-6  # relative; the same model and library give equal scores, another CPU may round differently
RETRAIN = "keep the live bundle; look at the training run of this one"
ROOT = Path(__file__).resolve().parents[2]  # so that a child imports this very package
Child = Callable[
    [Sequence[str], float], "subprocess.CompletedProcess[bytes]"
]  # arguments of `main`, seconds it may take


@dataclass(frozen=True)
class ProbeReport:
    """Whether a bundle may be served, and if not, why."""

    accepted: bool
    bundle_id: str | None
    reason: str  # empty when accepted
    answered: int  # warm-up requests that were answered as recorded
    slowest_cpu_ms: float  # of the warm-up answers, best of three each


def probe(
    directory: Path,
    trusted: TrustedKeys,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> ProbeReport:
    """The verdict on the bundle in `directory`, reached in a child process; never raises for a bad bundle."""
    arguments = [str(directory.resolve()), "--trust", *(key.hex() for key in trusted.keys)]
    try:
        done = _child(arguments, timeout_seconds)
    except subprocess.TimeoutExpired:
        return _refused(f"no answer within {timeout_seconds:g} s")
    if done.returncode < 0:
        return _refused(
            f"the process was killed by {signal.Signals(-done.returncode).name} while it loaded or answered"
        )
    try:
        return ProbeReport(**json.loads(done.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return _refused(f"exit status {done.returncode} without a report: {''.join(tail)[:300]}")


def fresh_child(arguments: Sequence[str], timeout_seconds: float) -> subprocess.CompletedProcess[bytes]:
    """`main` in a new process; its exit status is negative when a signal ended it.

    Raises:
        TimeoutExpired: it took longer and was killed.
    """
    command = [sys.executable, "-m", "pipeline_assets.serving.probe", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=timeout_seconds, check=False)


_child: Child = fresh_child  # of this process


@contextmanager
def children_from(child: Child) -> Iterator[None]:
    """Inside, every probe of this process runs its child by `child`, which keeps to what `fresh_child` says."""
    global _child
    before, _child = _child, child
    try:
        yield
    finally:
        _child = before


def question(directory: Path, trusted: TrustedKeys) -> ProbeReport:
    """The same verdict reached in this process. A damaged bundle can abort it: call `probe` instead.

    Raises:
        PipelineError: the bundle is unsigned or damaged, or does not answer as recorded.
    """
    bundle = load_bundle(directory, trusted)
    if not bundle.warmup or len(bundle.warmup) != len(bundle.golden):
        found = f"{len(bundle.warmup)} requests, {len(bundle.golden)} answers"
        raise BundleError("warmup.json", found=found, wanted="one answer per request, at least one", fix=RETRAIN)
    spreads, slowest = [], 0.0
    for request, golden in zip(bundle.warmup, bundle.golden, strict=True):
        scores, milliseconds = _ask(bundle, request, golden)
        spreads.append(float(np.ptp(scores)) if len(scores) else 0.0)
        slowest = max(slowest, milliseconds)
    if max(spreads) == 0.0:
        raise BundleError("scores", found="one constant score in every answer", wanted="an order", fix=RETRAIN)
    most = MAX_COMPILED_CPU_MS if bundle.is_compiled else MAX_ANSWER_CPU_MS
    if slowest > most:
        raise BundleError("slowest answer", found=f"{slowest:.1f} ms CPU", wanted=f"at most {most:g} ms", fix=RETRAIN)
    return ProbeReport(True, bundle.manifest.bundle_id, "", len(spreads), slowest)


def _ask(bundle: Bundle, request: WarmupRequest, golden: GoldenAnswer) -> tuple[Sequence[float], float]:
    """All scores of one request and its CPU milliseconds; raises if its top differs from the golden answer."""
    n, best = len(request.candidate_ids), float("inf")
    for _ in range(3):
        start = time.process_time()
        ids, scores = bundle.rank(request.candidate_ids, request.pair_features, request.customer_features, n)
        best = min(best, (time.process_time() - start) * 1e3)
    top, wanted = scores[:GOLDEN_K], np.asarray(golden.scores)
    same_ids = tuple(ids[:GOLDEN_K]) == golden.product_ids
    if not same_ids or not np.allclose(top, wanted, rtol=SCORE_TOLERANCE, atol=0.0):
        raise BundleError(
            f"answer for warm-up customer {request.customer_id}",
            found=list(zip(ids[:3], top[:3].tolist(), strict=True)),
            wanted=list(zip(golden.product_ids[:3], golden.scores[:3], strict=True)),
            fix=RETRAIN,
        )
    return scores.tolist(), best


def _refused(reason: str) -> ProbeReport:
    return ProbeReport(accepted=False, bundle_id=None, reason=reason, answered=0, slowest_cpu_ms=0.0)


def _configured_keys() -> TrustedKeys:
    from pipeline_assets.settings import get_settings

    return TrustedKeys.read(get_settings().public_key_files)


def main(arguments: Sequence[str]) -> int:
    """Print the report as one JSON line; 0 accepted, 1 refused."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_assets.serving.probe", description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument(
        "--trust", nargs="*", type=bytes.fromhex, metavar="HEX", help="public keys; those of the settings if not given"
    )
    options = parser.parse_args(arguments)
    import_lightgbm_alone()
    try:
        trusted = _configured_keys() if options.trust is None else TrustedKeys(tuple(options.trust))
        report = question(options.directory, trusted)
    except PipelineError as error:
        report = _refused(str(error))
    print(json.dumps(asdict(report)))
    return 0 if report.accepted else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
