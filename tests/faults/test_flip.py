"""Single bits flipped in every kind of file of a store."""

from __future__ import annotations

import pytest

from tools.flip_bits import KINDS, UNCLEAN, explore, flips, make_sample

# What nobody needs: all that comes of a flip is that it is made again, or nothing.
DISPOSABLE = ("end", "view", "index", "leaves", "seal", "files", "history", "rest")


@pytest.fixture(scope="module")
def sample():
    return make_sample()


def test_the_sample_has_every_kind_of_file(sample):
    """What is in no kind is never flipped."""
    left = [
        name
        for name, data in sample.image.items()
        if data and not any(is_one(name) for is_one in KINDS.values())
    ]
    assert left == []


@pytest.mark.parametrize("kind", [*KINDS, UNCLEAN])
def test_a_sample_of_flips(sample, kind):
    every = {"files": 16_000, "view": 9_000, "rest": 60_000, "history": 2_000}.get(kind, 700)
    wanted = list(flips(sample, [kind], every=every))
    tally = explore(sample, wanted[:: max(1, len(wanted) // 24)])
    assert tally.flips >= 5
    assert not tally.wrong
    endings = set(tally.counts[kind])
    if kind in DISPOSABLE:
        assert not endings & {"told", "lost"} or kind == "leaves"
    if kind in ("segment", "settled", "pack", "heads"):
        assert endings == {"told"}
    assert ("lost" in endings) <= (kind == UNCLEAN)
    assert ("again" in endings) <= (kind == "cursor")


@pytest.mark.thorough
@pytest.mark.timeout(36_000)
@pytest.mark.parametrize("kind", [*KINDS, UNCLEAN])
def test_every_flip(sample, kind, capsys):
    """Every bit of every byte; of the reserve, which nobody reads, one bit of every 64th byte."""
    is_all = kind != "rest"
    tally = explore(sample, flips(sample, [kind], is_all=is_all), jobs=2)
    with capsys.disabled():
        print(f"\n{tally}")
    assert not tally.wrong
