"""Limits that the disk keeps: room before bytes, files that pass through, processes that die."""

from __future__ import annotations

from pathlib import Path

from process_rig import finish, save_options, start
from room_rig import LIMIT, TRANSIT, Sampler, fill_bucket, small


def test_the_disk_never_holds_more_than_the_limits(tmp_path: Path) -> None:
    """Three processes of eight threads read what does not fit, in every way there is."""
    bucket, count = tmp_path / "bucket", 300
    fill_bucket(bucket, count)
    options = save_options(small(tmp_path), tmp_path / "options")
    with Sampler(tmp_path / "cache") as sampler:
        children = [
            start("room_rig:child_reads", options, bucket, count, 4, seed) for seed in range(3)
        ]
        said = [finish(child).split() for child in children]
    assert sampler.looks > 100
    assert sum(int(words[2]) for words in said) > 100, said
    assert [words[4:] for words in said] == [[], [], []]
    assert sampler.peak <= LIMIT + TRANSIT, (sampler.peak, sampler.sure)
    print(sampler.looks, sampler.peak, sampler.sure, said)
