# SPDX-License-Identifier: Apache-2.0

"""What is refused before a tracked training starts, and that nothing happens without tracking."""

from __future__ import annotations

import pytest
from ignite.engine import Engine
from monai.utils import path_to_sqlite_uri
from scripts.errors import InputError
from scripts.training import check_tracking, complete_tracking, tracking

TRACKED = "runs + '/config.json'"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("uri", ["runs/mlruns", "file:///runs/mlruns"])
def test_a_folder_of_files_is_refused(uri):
    with pytest.raises(InputError, match=f"MLflow keeps no records in {uri}: pass --tracking_uri sqlite:///"):
        check_tracking(TRACKED, uri)


def test_the_environment_comes_first(monkeypatch, tmp_path):
    """As in MONAI's handler."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "elsewhere")
    with pytest.raises(InputError, match="no records in elsewhere"):
        check_tracking(TRACKED, path_to_sqlite_uri(tmp_path / "mlruns.db"))


@pytest.mark.parametrize(
    ("missing", "uri", "refused"),
    [
        ("mlflow", "sqlite:///runs.db", True),
        ("sqlalchemy", "sqlite:///runs.db", True),  # mlflow-skinny brings none
        ("mlflow", "https://tracking.org", True),
        ("sqlalchemy", "https://tracking.org", False),
    ],
)
def test_a_missing_package_is_named(monkeypatch, missing, uri, refused):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == missing else name)
    if refused:
        with pytest.raises(InputError, match=f"needs the package {missing}: pip install mlflow"):
            check_tracking(TRACKED, uri)
    else:
        check_tracking(TRACKED, uri)


@pytest.mark.parametrize("untouched", [True, False])
def test_without_tracking_nothing_is_asked_for(monkeypatch, untouched, tmp_path):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    check_tracking(untouched, "anything")
    trainer = Engine(lambda *_: None)
    complete_tracking(trainer, [object()], str(tmp_path))
    trainer.run([0])
    assert not list(tmp_path.iterdir())
