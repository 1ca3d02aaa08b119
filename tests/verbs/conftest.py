"""Each verb is tested in each era that has it."""

from __future__ import annotations

import pytest

from tests.verbs.servers import LEGACY, MODERN, Era, Scripted, World


@pytest.fixture(params=[LEGACY, MODERN])
def era(request: pytest.FixtureRequest) -> Era:
    return request.param


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()
