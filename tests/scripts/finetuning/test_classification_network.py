# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest
import torch
from scripts.errors import InputError
from scripts.finetuning import ClassificationNetwork, load_pretrained
from scripts.networks import UNetBackbone

FEATURES = (4, 8)


def network(linear=False):
    return ClassificationNetwork(UNetBackbone(features=FEATURES), 3, linear)


def test_logits_are_a_linear_layer_on_the_mean_of_the_global_features():
    net, image = network(), torch.rand(2, 1, 8, 10, 12)
    pooled = net.backbone(image)[0].mean((2, 3, 4))
    assert torch.allclose(net(image), net.head(pooled), atol=1e-6)
    assert net(torch.rand(1, 1, 7, 9, 5)).shape == (1, 3)


def test_a_classification_needs_two_classes():
    with pytest.raises(InputError, match="two classes or more, not 1"):
        ClassificationNetwork(UNetBackbone(features=FEATURES), 1)


def test_the_probe_is_one_linear_layer():
    trained = {name: p.shape for name, p in network(linear=True).named_parameters() if p.requires_grad}
    assert trained == {"head.weight": (3, 8), "head.bias": (3,)}


def test_every_trained_parameter_gets_a_gradient():
    net = network()
    net(torch.rand(1, 1, 8, 8, 8)).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad == (not name.startswith("backbone.ups."))
        assert (parameter.grad is not None) == parameter.requires_grad


def test_the_backbone_comes_whole_from_a_pre_training(tmp_path, capsys):
    source, net = UNetBackbone(features=FEATURES), network(linear=True)
    weights = {f"backbone.{name}": value for name, value in source.state_dict().items()}
    torch.save(weights, tmp_path / "model.pt")
    load_pretrained(net, "linear", str(tmp_path / "model.pt"))
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), net.backbone.parameters(), strict=True))
    assert f"backbone: {len(weights)} of {len(weights)} tensors" in capsys.readouterr().out
    del weights["backbone.ups.0.convs.conv_0.conv.weight"]
    torch.save(weights, tmp_path / "model.pt")
    with pytest.raises(InputError, match="1 missing"):
        load_pretrained(net, "linear", str(tmp_path / "model.pt"))


def test_the_fitted_way_is_of_segmentations():
    with pytest.raises(InputError, match="mode is one of finetune, linear, scratch, not 'fitted'"):
        load_pretrained(network(), "fitted", None)
