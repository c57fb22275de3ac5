# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import copy
import json

import pytest
import torch
from make_child import CHILD
from monai.bundle import ConfigParser
from monai.networks.nets import SegResNet
from scripts.errors import InputError
from scripts.finetuning import ClassificationNetwork, SegmentationNetwork, levels_of_model, load_pretrained
from scripts.networks import (
    GVSL,
    AffineHead,
    DeformableHead,
    NetworkBackbone,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
)
from scripts.networks.weight_norms import scale_weights, weight_norms
from scripts.training import ModelLoader

FEATURES = (4, 8)


def segresnet():
    network = SegResNet(init_filters=8, blocks_down=[1, 1, 1], blocks_up=[1, 1])
    levels = ["down_layers.0", "down_layers.1", "up_layers.0"]
    return NetworkBackbone(network, "down_layers.2", "conv_final.2", levels, multiple=4)


def child(linear=False, features=FEATURES):
    return SegmentationNetwork(UNetBackbone(features=features), 3, linear)


@pytest.fixture
def parent():
    return GVSL(
        UNetBackbone(features=FEATURES), ZMatchingHead(AffineHead(8, 8), DeformableHead(4, 8)), RestorationHead(4, 8)
    )


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def same_directions(first, second):
    """The same weights, but for the norms of convolutions before a normalisation."""
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.allclose(a / a.norm(), b / b.norm(), atol=1e-6) for a, b in pairs if a.norm() or b.norm())


def test_logits_have_the_image_size():
    assert child()(torch.rand(2, 1, 11, 8, 9)).shape == (2, 3, 11, 8, 9)


@pytest.mark.parametrize("levels", [1, 2])
def test_torchscript_gives_the_same(levels):
    network, image = (
        SegmentationNetwork(UNetBackbone(features=(4, 8, 8)), 3, levels=levels).eval(),
        torch.rand(1, 1, 9, 8, 11),
    )
    torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["parent", "checkpoint", "backbone", "child"])
def test_the_backbone_comes_from_whatever_holds_one(tmp_path, capsys, parent, kind):
    contents = {
        "parent": parent.state_dict(),
        "checkpoint": {"network": parent.state_dict(), "optimizer": {}},
        "backbone": parent.backbone.state_dict(),
        "child": SegmentationNetwork(parent.backbone, 5).state_dict(),
    }
    torch.save(contents[kind], tmp_path / "model.pt")
    network = child()
    assert not same(network.backbone, parent.backbone)
    load_pretrained(network, "finetune", str(tmp_path / "model.pt"))
    assert same_directions(network.backbone, parent.backbone)
    count = len(parent.backbone.state_dict())
    assert f"backbone: {count} of {count} tensors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mode", "levels", "random"), [("finetune", 1, {1}), ("finetune", 2, {0, 1}), ("linear", 1, set())]
)
def test_fresh_levels_of_the_decoder_stay_random(tmp_path, capsys, mode, levels, random):
    pretrained, network = UNetBackbone(features=(4, 8, 8)), SegmentationNetwork(UNetBackbone(features=(4, 8, 8)), 3)
    before = copy.deepcopy(network.backbone)
    torch.save(pretrained.state_dict(), tmp_path / "model.pt")
    load_pretrained(network, mode, str(tmp_path / "model.pt"), fresh_levels=levels)
    for level, (now, start, other) in enumerate(zip(network.backbone.ups, before.ups, pretrained.ups, strict=True)):
        assert same(now, start) if level in random else same_directions(now, other)
    assert same_directions(network.backbone.downs, pretrained.downs)
    assert same_directions(network.backbone.stem, pretrained.stem)
    count = len(pretrained.state_dict())
    told = capsys.readouterr().out
    assert f"{count - len(random) * len(pretrained.ups[0].state_dict())} of {count} tensors" in told
    assert ("random levels of the decoder" in told) == bool(random)


@pytest.mark.parametrize(("mode", "scaled"), [("finetune", True), ("fitted", True), ("linear", False)])
def test_weights_to_be_trained_get_the_norms_of_new_ones(tmp_path, mode, scaled):
    """Of a pre-training whose norms have grown: a step turns them as far as new ones, and the features are the same."""
    torch.manual_seed(0)
    pretrained, network = UNetBackbone(features=(4, 8, 8)), SegmentationNetwork(UNetBackbone(features=(4, 8, 8)), 3)
    scale_weights(pretrained, {name: 3 * norm for name, norm in weight_norms(pretrained).items()})
    new, grown = weight_norms(network.backbone), weight_norms(pretrained)
    torch.save(pretrained.state_dict(), tmp_path / "model.pt")
    load_pretrained(network, mode, str(tmp_path / "model.pt"))
    torch.testing.assert_close(weight_norms(network.backbone), new if scaled else grown)
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(image)[1], pretrained(image)[1], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_childs_own_weights_are_taken_whole(tmp_path, checkpoint):
    tuned, network = child(), child()
    content = {"network": tuned.state_dict(), "optimizer": {}} if checkpoint else tuned.state_dict()
    torch.save(content, tmp_path / "model.pt")
    load_pretrained(network, "finetune", str(tmp_path / "model.pt"), fresh_levels=1)
    assert same(network.backbone, tuned.backbone)


@pytest.mark.parametrize("levels", [-1, 2, 0.5, "1"])
def test_levels_that_do_not_exist_are_refused(levels):
    with pytest.raises(InputError, match="fresh_levels is 0 to 1"):
        load_pretrained(child(), "finetune", None, fresh_levels=levels)


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_levels_are_found_in_the_weights(tmp_path, levels, checkpoint):
    features = (4, 8, 8, 16)
    weights = SegmentationNetwork(UNetBackbone(features=features), 3, levels=levels).state_dict()
    torch.save({"network": weights, "optimizer": {"state": {0: {}}}} if checkpoint else weights, tmp_path / "model.pt")
    assert levels_of_model(str(tmp_path / "model.pt"), features) == levels
    assert levels_of_model(str(tmp_path / "model.pt"), (5, 10)) == 1  # refused when they are loaded


@pytest.mark.parametrize("content", [None, [1, 2], {}, {"backbone.stem.weight": torch.zeros(1)}])
def test_without_a_last_layer_one_level_is_built(tmp_path, content):
    if content is not None:
        torch.save(content, tmp_path / "model.pt")
    assert levels_of_model(str(tmp_path / "model.pt"), FEATURES) == 1


@pytest.mark.parametrize(
    ("mode", "features", "levels"),
    [
        *[("linear", (4, 8, 8, 16), 3), ("linear", (4, 8), 1), ("linear", (4, 4, 4, 4, 4), 3)],
        *[("fitted", (4, 8, 8, 16), 3), ("finetune", (4, 8, 8), 1)],
    ],
)
def test_a_linear_layer_reads_several_levels_wherever_it_is_used(tmp_path, mode, features, levels):
    """By the templates: trained, predicting and measuring, where a wrong number is refused."""
    settings = {"classes": [{"name": "a", "codes": [1]}], "features": features}
    used = {"bundle_root": str(tmp_path), "model": str(tmp_path / "model.pt")}

    def template(*names, **given):
        parser = ConfigParser()
        parser.read_config([str(CHILD / "segmentation" / f"{name}.json") for name in names])
        parser.update(settings | given)
        return parser

    trained = template("train", mode=mode).get_parsed_content("network_def")
    assert trained.levels == levels
    torch.save(trained.state_dict(), tmp_path / "model.pt")
    for names in (["inference"], ["train", "evaluate"]):
        parser = template(*names, **used)
        parser.get_parsed_content("checkpointloader")()
        assert same(parser.get_parsed_content("network_def"), trained)
        if len(features) > 2:
            network = template(*names, **used, decoder_levels=levels % 2 + 1).get_parsed_content("network_def")
            with pytest.raises(InputError, match=r"model.pt is of another architecture.* \(head.weight\)"):
                ModelLoader(network, used["model"])()


def test_incomplete_weights_are_refused_and_change_nothing(tmp_path, parent):
    weights = parent.state_dict()
    del weights["backbone.stem.conv_0.conv.weight"]
    torch.save(weights, tmp_path / "model.pt")
    network = child()
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(InputError, match=r"1 missing \(stem.conv_0.conv.weight\)"):
        load_pretrained(network, "finetune", str(tmp_path / "model.pt"))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_another_architecture_is_refused(tmp_path, parent):
    torch.save(parent.state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="another architecture"):
        load_pretrained(child(features=(4, 16)), "linear", str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("mode", "path", "message"),
    [("probe", None, "mode is one of"), ("scratch", "model.pt", "starts from random"), ("linear", "no.pt", "exist")],
)
def test_wrong_modes_are_refused(mode, path, message):
    with pytest.raises(InputError, match=message):
        load_pretrained(child(), mode, path)


def test_something_else_than_weights_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "model.pt")
    with pytest.raises(InputError, match="not a state dictionary"):
        load_pretrained(child(), "finetune", str(tmp_path / "model.pt"))


@pytest.mark.parametrize("linear", [True, False])
def test_a_step_moves_the_backbone_unless_linear(linear):
    """The optimiser of the template: the layer at its own rate, the backbone at the optimiser's."""
    parser = ConfigParser(json.loads((CHILD / "segmentation" / "train.json").read_text()))
    parser.update({"classes": [{"name": "a", "codes": [1]}], "features": FEATURES})
    parser.update({"learning_rate": 1.0, "head_learning_rate": 3.0, "mode": "linear" if linear else "finetune"})
    network, optimizer = parser.get_parsed_content("network_def"), parser.get_parsed_content("optimizer")
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert {rates[id(p)] for p in network.head.parameters()} == {3.0}
    assert {rates[id(p)] for p in network.backbone.parameters()} == {1.0}
    before = [p.clone() for p in network.backbone.parameters()]
    network(torch.rand(1, 1, 8, 8, 8)).square().mean().backward()
    head = network.head.weight.clone()
    optimizer.step()
    assert not torch.equal(head, network.head.weight)
    assert linear == all(torch.equal(a, b) for a, b in zip(before, network.backbone.parameters(), strict=True))


@pytest.mark.parametrize("default", [True, False])
def test_fitted_begins_with_a_fitted_layer_and_all_pretrained_weights(tmp_path, default):
    """By the template, whose default it is: three levels, nothing random, rates of its own, and all weights move."""
    torch.save(UNetBackbone(features=(4, 8, 8, 16)).state_dict(), tmp_path / "model.pt")
    parser = ConfigParser(json.loads((CHILD / "segmentation" / "train.json").read_text()))
    parser.update({"classes": [{"name": "a", "codes": [1]}], "features": (4, 8, 8, 16)})
    parser.update({} if default else {"mode": "fitted"})
    read = {name: parser.get_parsed_content(name) for name in ("fresh_levels", "learning_rate", "head_learning_rate")}
    assert read == {"fresh_levels": 0, "learning_rate": 8e-4, "head_learning_rate": 8e-3}
    network = parser.get_parsed_content("network_def")
    load_pretrained(network, "fitted", str(tmp_path / "model.pt"), read["fresh_levels"])
    pretrained = UNetBackbone(features=(4, 8, 8, 16))
    pretrained.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert same_directions(network.backbone, pretrained)
    assert all(parameter.requires_grad for parameter in network.parameters())
    (fitted,) = [each for each in parser["train"]["handlers"] if each["_target_"].endswith("FitLastLayer")]
    parser.update({"label_server": False, "train": {"dataset": {"data": ["a", "b"]}}})
    parser.update({"disabled": fitted["_disabled_"], "scans": fitted["scans"], "only_new": fitted["only_new"]})
    told = {name: parser.get_parsed_content(name) for name in ("disabled", "scans", "only_new")}
    assert told == {"disabled": False, "scans": 2, "only_new": False}


def test_the_probe_is_one_1x1x1_convolution():
    trained = {name: p.shape for name, p in child(linear=True).named_parameters() if p.requires_grad}
    assert trained == {"head.weight": (3, 4, 1, 1, 1), "head.bias": (3,)}


def test_a_segmentation_needs_a_structure():
    with pytest.raises(InputError, match="at least one structure"):
        SegmentationNetwork(UNetBackbone(features=FEATURES), 1)


def test_several_channels_begin_with_the_weights_for_one(tmp_path, capsys):
    torch.manual_seed(0)
    one = UNetBackbone(3, 1, (4, 8)).eval()
    torch.save({f"backbone.{name}": value for name, value in one.state_dict().items()}, tmp_path / "model.pt")
    network = SegmentationNetwork(UNetBackbone(3, 4, (4, 8)), 2).eval()
    load_pretrained(network, "finetune", str(tmp_path / "model.pt"))
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        for ours, theirs in zip(network.backbone(image.repeat(1, 4, 1, 1, 1)), one(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert "tensors" in capsys.readouterr().out
    torch.save(UNetBackbone(3, 2, (4, 8)).state_dict(), tmp_path / "model.pt")
    with pytest.raises(InputError, match="weights for images of 2 channels cannot be used for 4"):
        load_pretrained(network, "finetune", str(tmp_path / "model.pt"))


@pytest.mark.parametrize("kind", ["unet", "segresnet"])
def test_a_backbone_that_a_frozen_layer_has_read_is_trained_by_the_next_network(kind):
    """But for layers on which no feature depends."""
    backbone = UNetBackbone(features=(4, 8)) if kind == "unet" else segresnet()
    before = [name for name, value in backbone.named_parameters() if value.requires_grad]
    SegmentationNetwork(backbone, 3, linear=True)
    assert not any(value.requires_grad for value in backbone.parameters())
    SegmentationNetwork(backbone, 3)
    assert [name for name, value in backbone.named_parameters() if value.requires_grad] == before


def test_a_classification_trains_the_encoder_of_another_network():
    """All that is trained gets a gradient."""
    network = ClassificationNetwork(segresnet(), 2)
    network(torch.rand(1, 1, 8, 8, 8)).square().sum().backward()
    trained = {name for name, value in network.named_parameters() if value.requires_grad}
    assert trained == {name for name, value in network.named_parameters() if value.grad is not None}
    assert any("down_layers" in name for name in trained)
