"""Checkpoints on disk, each made once a session."""

from __future__ import annotations

import pytest

from .checkpoints import Case, Checkpoint, CheckpointOf, write_checkpoint


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> CheckpointOf:
    """A function from a case to its checkpoint, written when first asked for."""
    made: dict[str, Checkpoint] = {}

    def checkpoint(case: Case) -> Checkpoint:
        if case.name not in made:
            made[case.name] = write_checkpoint(tmp_path_factory.mktemp(case.name), case)
        return made[case.name]

    return checkpoint
