# SPDX-License-Identifier: Apache-2.0

"""Weights are found in every usual wrapping, told of, and refused where they are of another network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scripts.errors import InputError
from scripts.finetuning import SegmentationNetwork, load_pretrained
from scripts.networks import UNetBackbone, find_weights
from scripts.training import start_from

FEATURES = (4, 8)


def prefixed(weights, prefix):
    return {prefix + name: value for name, value in weights.items()}


WRAPPINGS = {
    "DataParallel": lambda w: prefixed(w, "module."),
    "torch.compile": lambda w: prefixed(w, "_orig_mod."),
    "both, and a part compiled": lambda w: {
        "module._orig_mod." + name.replace("stem.", "stem._orig_mod."): value for name, value in w.items()
    },
    "state_dict": lambda w: {"state_dict": w, "epoch": 3},
    "model": lambda w: {"epoch": 3, "model": w, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}}},
    "model_state_dict": lambda w: {"model_state_dict": prefixed(w, "module.")},
    "Lightning": lambda w: {
        "state_dict": {**prefixed(w, "model."), "criterion.weight": torch.ones(2)},
        "pytorch-lightning_version": "2.4",
        "optimizer_states": [{"state": {}}],
    },
    "Lightning of a larger network": lambda w: {"state_dict": prefixed(w, "student.encoder.")},
    "nnU-Net": lambda w: {
        "network_weights": prefixed(w, "_orig_mod."),
        "optimizer_state": {"state": {}},
        "logging": {"mean_fg_dice": [np.float64(0.5)], "epoch": [np.int64(3)]},
        "trainer_name": "nnUNetTrainer",
    },
    "deep": lambda w: {"a": {"state_dict": {"b": {"model": {"c": {"module": prefixed(w, "net.")}}}}}},
    "double precision": lambda w: {"model": {name: value.double() for name, value in w.items()}},
    "a running average first": lambda w: {
        "ema_state_dict": {name: torch.zeros_like(value) for name, value in w.items()},
        "state_dict": w,
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("whole", [True, False], ids=["network", "backbone"])
def test_every_wrapping_is_read_and_told(tmp_path, capsys, wrapping, whole):
    """By a network of its own kind, and by a child whose backbone alone is in the file."""
    torch.manual_seed(0)
    source = SegmentationNetwork(UNetBackbone(features=FEATURES), 3)
    weights = source.state_dict() if whole else source.backbone.state_dict()
    torch.save(WRAPPINGS[wrapping](weights), tmp_path / "model.pt")
    network = SegmentationNetwork(UNetBackbone(features=FEATURES), 3)
    if whole:
        start_from(network, str(tmp_path / "model.pt"))
        assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    else:
        load_pretrained(network, "linear", str(tmp_path / "model.pt"))
        assert all(torch.equal(value, weights[name]) for name, value in network.backbone.state_dict().items())
    assert f"{len(weights)} of the network's {len(weights)} tensors fit" in capsys.readouterr().out


def test_plain_weights_need_no_word(capsys):
    weights = UNetBackbone(features=FEATURES).state_dict()
    assert find_weights(weights, weights, "model.pt") == weights
    assert find_weights({"network": weights, "optimizer": {}}, weights, "checkpoint.pt") == weights
    assert capsys.readouterr().out == ""


def test_a_wrapped_child_keeps_its_tuned_levels(tmp_path):
    torch.manual_seed(0)
    tuned, network = (SegmentationNetwork(UNetBackbone(features=FEATURES), 3) for _ in range(2))
    torch.save({"state_dict": prefixed(tuned.state_dict(), "module.")}, tmp_path / "model.pt")
    load_pretrained(network, "finetune", str(tmp_path / "model.pt"), fresh_levels=1)
    wanted = tuned.backbone.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in network.backbone.state_dict().items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"conv.kernel": torch.zeros(3)}, r"model\.pt holds no weights of this network: its names are such as conv\.k"),
        ({"epoch": 3}, "none at all"),
        ([1], "not a state dictionary"),
    ],
)
def test_what_is_no_network_of_this_kind_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        find_weights(content, UNetBackbone(features=FEATURES).state_dict(), "model.pt")


@pytest.mark.parametrize("prefix", ["", "module."])
def test_parts_that_are_missing_are_refused(tmp_path, prefix):
    """Whatever the wrapping, a network is filled whole or not at all."""
    source = UNetBackbone(features=FEATURES)
    weights = source.state_dict()
    weights.pop("stem.conv_0.conv.weight")
    torch.save(prefixed(weights, prefix), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"another architecture: .* 1 missing \(stem\.conv_0\.conv\.weight\)"):
        start_from(source, str(tmp_path / "model.pt"))


def spoilt(change):
    """Weights of which one tensor is another."""
    weights = UNetBackbone(features=FEATURES).state_dict()
    return {**weights, "stem.conv_0.conv.weight": change(weights["stem.conv_0.conv.weight"])}


SPOILT = {
    "NaN": (lambda x: x * torch.nan, r"conv\.weight holds NaN or infinite values.*weights of an earlier epoch", None),
    "one infinite": (lambda x: x.index_fill(0, torch.tensor(1), torch.inf), "holds NaN or infinite", None),
    "scaled integers": (
        lambda x: torch.quantize_per_tensor(x, 0.01, 0, torch.qint8),
        "is of qint8 values: save dense floating-point",
        torch.Tensor.dequantize,
    ),
    "integers": (lambda x: (100 * x).to(torch.int8), "is of int8 values", None),
    "sparse": (torch.Tensor.to_sparse, "is of sparse_coo values", torch.Tensor.to_dense),
    "complex": (lambda x: x.to(torch.complex64), "is of complex64 values", lambda x: x.real.float()),
}


@pytest.mark.parametrize("case", SPOILT)
def test_values_that_are_no_weights_are_refused(tmp_path, case):
    """Before, PyTorch took them in silence, or ended in a traceback; what is advised is taken."""
    change, message, remedy = SPOILT[case]
    weights = spoilt(change)
    network = UNetBackbone(features=FEATURES)
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(InputError, match=message):
        start_from(network, str(tmp_path / "model.pt"))
    odd = weights["stem.conv_0.conv.weight"]
    mended = spoilt(lambda _: remedy(odd)) if remedy else spoilt(torch.clone)
    torch.save(mended, tmp_path / "model.pt")
    start_from(network, str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    "other", [{"features": (8, 16)}, {"features": (4, 8, 16)}, {"spatial_dims": 2, "features": FEATURES}]
)
def test_weights_of_another_shape_load_with_their_own_settings(tmp_path, other):
    """Wider, deeper, of images; as the message says."""
    torch.save(UNetBackbone(**other).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"another architecture.*use the settings it was made with"):
        start_from(UNetBackbone(features=FEATURES), str(tmp_path / "model.pt"))
    start_from(UNetBackbone(**other), str(tmp_path / "model.pt"))


def test_several_networks_in_one_file_are_told(capsys):
    """One is taken, the others are named; alone, as advised, nothing is left open."""
    weights = UNetBackbone(features=FEATURES).state_dict()
    best = {name: value + 1 for name, value in weights.items()}
    assert find_weights({"model": weights, "best_model": best}, weights, "f.pt")["stem.conv_0.conv.weight"] is not None
    assert "as many under 'best_model' are not used: save alone what you mean" in capsys.readouterr().out
    assert find_weights(best, weights, "f.pt") == best
    assert capsys.readouterr().out == ""


class Foreign:
    """What only its own program can read."""


FOREIGN = {
    "a network with its code": lambda network, path: torch.save(network, path),
    "TorchScript": lambda network, path: torch.jit.save(torch.jit.trace(network, torch.zeros(1, 1, 8, 8, 8)), path),
    "settings of a framework": lambda network, path: torch.save(
        {"hyper_parameters": Foreign(), "state_dict": network.state_dict()}, path
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_with_code_are_read_after_their_weights_are_saved_alone(tmp_path, kind):
    """As the message says."""
    source, path = UNetBackbone(features=FEATURES), tmp_path / "model.pt"
    FOREIGN[kind](source, path)
    with pytest.raises(InputError, match=r"save torch\.save\(network\.state_dict\(\), 'model\.pt'\)"):
        start_from(UNetBackbone(features=FEATURES), str(path))
    if kind == "TorchScript":
        weights = torch.jit.load(path).state_dict()
    else:
        content = torch.load(path, weights_only=False)
        weights = content["state_dict"] if isinstance(content, dict) else content.state_dict()
    torch.save(weights, path)
    start_from(UNetBackbone(features=FEATURES), str(path))
