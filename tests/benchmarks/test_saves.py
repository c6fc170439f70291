"""The benchmark of saves that are cut off and of flipped bits, at its smallest."""

import json
import random

import pytest

from benchmarks import saves


@pytest.mark.slow
def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    saves.main(["--kills", "2", "--sizes", "1", "--flips", "2"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    for kind in ("checkpoint", "replaced", "pipeline"):
        kills, sizes = result[kind]["kills"], result[kind]["sizes"]
        assert sum(kills[state] for state in ("old", "new", "refused", "mixed")) == 2
        assert sizes is None or (sizes["old"], sizes["errors"]) == (1, {"No space left on device": 1})
    assert (result["flips"]["refused"], result["flips_of_bytes"]["refused"]) == (2, 2)
    holds = result["holds"]
    assert holds["never_mixed"] and holds["checkpoint.old_or_new"] and holds["replaced.old_or_new"]


def test_a_flip_changes_one_bit() -> None:
    content = bytes(range(9))
    changed = saves.flipped(content, random.Random(0))
    assert [(a ^ b).bit_count() for a, b in zip(content, changed, strict=True) if a != b] == [1]
