"""The probe runs in a real child process and turns every way of being bad into a refusal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from pipeline_assets.recommender.manifest import FILES, make_manifest
from pipeline_assets.serving.probe import probe
from pipeline_assets_tests import tiny_bundle as tiny


def forge(directory: Path, name: str, content: bytes) -> None:
    """Replace a file and write a manifest that agrees: damage done before publication, which digests cannot show."""
    (directory / name).write_bytes(content)
    blobs = {file: (directory / file).read_bytes() for file in FILES}
    manifest = make_manifest("m1", tiny.AS_OF, tiny.CREATED_AT, blobs)
    files = [vars(file) for file in manifest.files]
    (directory / "manifest.json").write_text(json.dumps({**vars(manifest), "files": files}))
    assert hashlib.sha256(content).hexdigest() in (directory / "manifest.json").read_text()


def test_good_bundle_is_accepted(tmp_path: Path) -> None:
    """One warm-up request, answered as recorded."""
    directory, manifest = tiny.write(tmp_path)
    report = probe(directory)
    assert report.accepted, report.reason
    assert (report.bundle_id, report.answered, report.reason) == (manifest.bundle_id, 1, "")


def test_crash_of_the_child_is_a_refusal_with_the_signal(tmp_path: Path) -> None:
    """A model that was cut before its digest was taken aborts its process (E5), not this one."""
    directory, _ = tiny.write(tmp_path)
    raw = (directory / "model.txt").read_bytes()
    forge(directory, "model.txt", raw[: raw.index(b"leaf_value")])  # inside the first tree
    report = probe(directory)
    assert not report.accepted
    assert "killed by SIG" in report.reason


def test_model_that_answers_otherwise_is_refused(tmp_path: Path) -> None:
    """The model turned round: p1 before p3 before p4 before p2, where p2 was recorded first."""
    directory, _ = tiny.write(tmp_path)
    forge(directory, "model.txt", tiny.model_text(sign=-1).encode())
    report = probe(directory)
    assert not report.accepted
    assert "answer for warm-up customer c1: found [('p1'" in report.reason
    assert "wanted [('p2'" in report.reason


def test_one_digit_edit_is_refused(tmp_path: Path) -> None:
    """Equal length, loads silently, changes scores (E5): the digest shows it."""
    directory, _ = tiny.write(tmp_path)
    path = directory / "model.txt"
    text = path.read_text()
    place = text.index("leaf_value=") + len("leaf_value=")
    digit = next(i for i in range(place, len(text)) if text[i].isdigit())
    path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    report = probe(directory)
    assert not report.accepted
    assert "model.txt: found sha256" in report.reason


def test_constant_scores_are_refused(tmp_path: Path) -> None:
    """No positive and no negative: the label is always 0, so every score is."""
    directory, _ = tiny.write(tmp_path, text=tiny.model_text(sign=0.0))
    report = probe(directory)
    assert not report.accepted
    assert "constant score" in report.reason


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Infinite leaves, forged after writing because writing refuses them."""
    directory, _ = tiny.write(tmp_path)
    head, leaves, tail = tiny.model_text().rpartition("leaf_value=")
    forge(directory, "model.txt", f"{head}{leaves}inf inf inf inf\n{tail.split(chr(10), 1)[1]}".encode())
    report = probe(directory)
    assert not report.accepted
    assert "wanted finite scores" in report.reason


def test_slow_model_is_refused(tmp_path: Path) -> None:
    """Any answer costs more than 0 ms of CPU."""
    report = probe(tiny.write(tmp_path)[0], max_answer_cpu_ms=0.0)
    assert not report.accepted
    assert "slowest answer" in report.reason


def test_hanging_child_is_a_refusal(tmp_path: Path) -> None:
    """Python cannot even start in a millisecond."""
    assert probe(tiny.write(tmp_path)[0], timeout_seconds=0.001).reason == "no answer within 0.001 s"


def test_missing_bundle_is_a_refusal(tmp_path: Path) -> None:
    """The release table may name a directory that was deleted."""
    assert "manifest.json: found No such file" in probe(tmp_path / "none").reason


def test_probe_by_hand_prints_json_and_exits_by_verdict(tmp_path: Path) -> None:
    """What a person runs before a release."""
    command = [sys.executable, "-m", "pipeline_assets.serving.probe"]
    good = subprocess.run([*command, str(tiny.write(tmp_path)[0])], capture_output=True, check=False)
    bad = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, check=False)
    assert (good.returncode, json.loads(good.stdout)["accepted"]) == (0, True)
    assert (bad.returncode, json.loads(bad.stdout)["accepted"]) == (1, False)
