"""Targets with AMX, whatever processor the tests run on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lanewise.errors import EngineError
from lanewise.native.target import Target, find_target


def with_matrices(cpu: str, *lacking: str) -> Target:
    try:
        machine = find_target("avx512")
    except EngineError as error:
        pytest.skip(str(error))
    ours = {"avx512bf16", "amx-tile", "amx-bf16"}
    words = [word for word in machine.features.split(",") if word[1:] not in ours]
    has = [f"+{word}" for word in sorted(ours - set(lacking))]
    return replace(machine, cpu=cpu, features=",".join([*words, *has]))
