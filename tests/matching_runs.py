# SPDX-License-Identifier: Apache-2.0

"""Configurations that use a model, run in this process on a small network, and their refusals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow
from scripts.errors import InputError, user_message
from scripts.networks import GVSL, AffineHead, DeformableHead, RestorationHead, UNetBackbone, ZMatchingHead

BUNDLE = Path(__file__).parents[1] / "bundle"
SETTINGS = {"pixdim": [10, 10, 10], "spatial_size": [28, 24, 24], "intensity": "window", "features": [4, 8, 16]}
for overlay in ("correlation_head", "convolution_head"):
    SETTINGS |= json.loads((BUNDLE / "configs" / f"{overlay}.json").read_text())
HEART = (205, 420, 500, 550, 600, 820, 850)


def made_network() -> GVSL:
    """Of the settings above."""
    matching = ZMatchingHead(AffineHead(16, 8), DeformableHead(4, 8))
    return GVSL(UNetBackbone(features=(4, 8, 16)), matching, RestorationHead(4, 1, 8))


def run(names, model, output, monkeypatch, **overrides):
    """Run a configuration in this process, as ``python -m monai.bundle run`` does."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / f"{name}.json") for name in names],
        workflow_type="train" if names[0] == "train" else "infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        model=str(model),
        output_dir=str(output),
        **{**SETTINGS, **overrides},
    )
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    workflow.initialize()
    problems = workflow.check_properties()
    workflow.run()
    workflow.finalize()
    return problems


def expect_refusal(message, *args, **kwargs):
    """The error that reaches the user is one line that matches."""
    with pytest.raises((InputError, RuntimeError)) as caught:
        run(*args, **kwargs)
    shown = user_message(caught.value)
    assert shown is not None
    assert message in shown
