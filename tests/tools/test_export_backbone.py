# SPDX-License-Identifier: Apache-2.0

"""Tests of the export of a backbone: its names, equal features in MONAI's network, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import export_backbone
import pytest
import torch
from monai.networks.nets import BasicUNet, DynUNet, SegResNet, SwinUNETR
from scripts.networks import (
    GVSL,
    DeformableHead,
    NetworkBackbone,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
    group_norm,
)
from torch import nn
from warm_start import run_warm

UNEQUAL = (8, 16, 24, 32, 40)
EQUAL = (8, 9, 8, 10, 8)
ACT = ("leakyrelu", {"negative_slope": 0.2})


def trained(features: tuple[int, ...] = (8, 16), dims: int = 3, channels: int = 1) -> GVSL:
    """A network of random weights, of which no two tensors are alike."""
    torch.manual_seed(0)
    heads = ZMatchingHead(None, DeformableHead(features[0], 8, dims)), RestorationHead(features[0], channels, 8, dims)
    network = GVSL(UNetBackbone(dims, channels, features), *heads)
    for value in network.parameters():
        nn.init.normal_(value, std=0.3)
    return network.eval()


def exported(content: Any, folder: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """What the command makes of a file with that content."""
    torch.save(content, folder / "model.pt")
    assert export_backbone.main([str(folder / "model.pt"), str(folder / "out.pt"), *arguments]) == 0
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.mark.parametrize("features", [(8, 16), (8, 16, 12, 16, 8, 16)])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_documented_names_are_those_of_our_backbone(
    features: tuple[int, ...], checkpoint: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = trained(features)
    content = network.state_dict()
    result = exported({"network": content, "optimizer": {}} if checkpoint else content, tmp_path)
    other = UNetBackbone(3, 1, features).eval()
    other.load_state_dict(result)
    image = torch.randn(1, 1, 9, 16, 11)
    with torch.no_grad():
        for ours, theirs in zip(network.backbone(image), other(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    report = capsys.readouterr().out
    assert f"written, all {len(result)}: stem, downs.0, " in report
    assert f"UNetBackbone(spatial_dims=3, in_channels=1, features={features})" in report


@pytest.mark.parametrize(
    ("features", "dims", "channels"),
    [(UNEQUAL, 3, 1), (UNEQUAL, 2, 3), (EQUAL, 3, 1), ((8, 16), 3, 1), ((8, 16, 8, 16, 8, 16), 3, 1)],
)
def test_monai_encoder_gives_the_same_features(
    features: tuple[int, ...], dims: int, channels: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = trained(features, dims, channels).backbone
    result = exported({f"backbone.{k}": v for k, v in backbone.state_dict().items()}, tmp_path, "--format", "monai")
    report = capsys.readouterr().out
    first = features[:5]
    six = (*first, *[first[-1]] * (5 - len(first)), first[0])
    assert f"features={six}, act={ACT}, norm=('group', {{'num_groups': 1}})" in report
    net = BasicUNet(dims, channels, 2, six, act=ACT, norm=("group", {"num_groups": 1})).eval()
    missing, unexpected = net.load_state_dict(result, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {
        *(f"down_{k}" for k in range(len(first), 5)),
        "final_conv",
        *(f"upcat_{k}" for k in range(1, 5)),
    }
    image = torch.randn(1, channels, *(32, 64, 32)[:dims])
    with torch.no_grad():
        expected = backbone.encode(image)[: len(first)]
    if features == EQUAL:
        assert "num_groups of its" not in report
    else:
        assert "then set num_groups of its GroupNorms: {'conv_0': 1, 'down_1': 2" in report
        assert not torch.allclose(encoded(net, image, len(first))[-1], expected[-1], atol=1e-3)
        for module in net.modules():
            if isinstance(module, nn.GroupNorm):
                module.num_groups = group_norm(module.num_channels)[1]["num_groups"]
    for theirs, ours in zip(encoded(net, image, len(first)), expected, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    written = 8 * len(first)
    assert f"written, {written} of {len(backbone.state_dict())}: conv_0, down_1" in report
    assert f"NOT written, {8 * (len(features) - 1)}: ups.0" in report
    assert ("NOT written, 8: downs.4: BasicUNet has five levels" in report) == (len(features) == 6)
    assert ("BasicUNet's down_2, down_3, down_4 stay at random" in report) == (len(features) == 2)


def encoded(net: BasicUNet, image: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """The outputs of the first levels of MONAI's encoder."""
    outputs = []
    with torch.no_grad():
        for module in (net.conv_0, net.down_1, net.down_2, net.down_3, net.down_4)[:levels]:
            image = module(image)
            outputs.append(image)
    return outputs


@pytest.mark.parametrize("form", ["documented", "monai"])
@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (partial(SegResNet, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)), ("down_layers.1", "conv_final.2")),
        (partial(DynUNet, 3, 1, 2, [3] * 3, [1, 2, 2], [2, 2], filters=[4, 8, 12]), ("bottleneck", "output_block")),
        (partial(SwinUNETR, 1, 2, depths=(1,) * 4, num_heads=(1,) * 4, feature_size=12), ("encoder10", "out")),
    ],
)
def test_a_network_that_is_the_backbone_is_written_as_it_is(
    make: Callable[[], nn.Module], layers: tuple[str, str], form: str, tmp_path: Path
) -> None:
    backbone = NetworkBackbone(make, *layers).to(memory_format=torch.channels_last_3d)
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    result = exported({**weights, "warp.unused": torch.zeros(1)}, tmp_path, "--format", form)
    plain = make()
    plain.load_state_dict(result)  # strictly
    for name, value in backbone.network.state_dict().items():
        assert torch.equal(plain.state_dict()[name], value), name
    storages = {value.data_ptr() for value in result.values()}
    assert len(storages) == len({value.data_ptr() for value in plain.state_dict().values()})  # none doubled


LAST = "backbone.ups.0.convs.conv_1.adn.N.bias"
STEM = "backbone.stem.conv_0.conv.weight"


@pytest.mark.parametrize("form", ["documented", "monai"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: {k: v for k, v in weights.items() if k != LAST}, "1 missing (ups.0.convs.conv_1.adn.N.bias)"),
        (lambda weights: {k: v for k, v in weights.items() if k != STEM}, "holds no whole backbone"),
        (lambda weights: {**weights, STEM: torch.zeros(8, 1)}, "holds no whole backbone"),
        (lambda weights: {**weights, STEM: torch.zeros(8, 0, 3, 3, 3)}, "holds no whole backbone"),
        (lambda weights: {**weights, LAST: torch.zeros(5)}, "1 of another shape (ups.0.convs.conv_1.adn.N.bias)"),
        (lambda weights: {**weights, "backbone.extra": torch.zeros(5)}, "1 unexpected (extra)"),
        (lambda weights: {**weights, LAST: 3}, f"{LAST} is no tensor of finite floating-point numbers"),
        (lambda weights: {**weights, LAST: torch.full((8,), torch.inf)}, "is no tensor of finite floating-point"),
        (lambda weights: {k: v for k, v in weights.items() if "backbone" not in k}, "holds no backbone"),
        (lambda weights: {k: v for k, v in weights.items() if "downs" not in k}, "features needs two or more levels"),
        (lambda weights: {}, "holds no backbone"),
        (lambda weights: [1], "holds no state dictionary"),
        (lambda weights: nn.Linear(1, 1), "is not a readable checkpoint"),
    ],
)
def test_other_content_is_refused(
    change: Callable[[dict], Any], message: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(change(trained().state_dict()), tmp_path / "model.pt")
    assert message in refusal(capsys, tmp_path / "model.pt", tmp_path / "out.pt", "--format", form)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """Run the command, which must refuse in one line, and give that line."""
    assert export_backbone.main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("export_backbone: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_unusable_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "model.pt", tmp_path / "out.pt"
    torch.save(trained().state_dict(), source)
    assert "does not exist" in refusal(capsys, tmp_path / "none.pt", out)
    assert "is a folder" in refusal(capsys, source, tmp_path, "--force")
    assert "is IN itself" in refusal(capsys, source, source, "--force")
    out.write_text("kept")
    assert "out.pt exists: pass another name, or --force" in refusal(capsys, source, out)
    assert out.read_text() == "kept"
    assert export_backbone.main([str(source), str(out), "--force"]) == 0
    assert torch.load(out, weights_only=True)


def test_what_is_advised_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A training's model.pt in the place of an optimiser, of heads alone, or of an export; another name."""
    source, out = tmp_path / "model.pt", tmp_path / "out.pt"
    network = trained()
    exported = {name.removeprefix("backbone."): value for name, value in network.state_dict().items()}
    for other in ([1], {"optimizer": {}}, exported):
        torch.save(other, source)
        assert "pass the model.pt of a training" in refusal(capsys, source, out)
    torch.save(network.state_dict(), source)
    assert export_backbone.main([str(source), str(out)]) == 0
    capsys.readouterr()
    assert "pass another name" in refusal(capsys, source, source, "--force")
    assert export_backbone.main([str(source), str(tmp_path / "other.pt")]) == 0


def test_command_as_typed(tmp_path: Path) -> None:
    torch.save(trained().state_dict(), tmp_path / "in.pt")
    done = run_warm((export_backbone.__file__, "in.pt", "out.pt"), tmp_path)
    assert (done.returncode, done.stdout.count("written")) == (0, 2), done.stderr
    wrong = run_warm((export_backbone.__file__, "a", "b", "--format", "c"))
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("export_backbone: error: argument --format: invalid choice: 'c'")
    assert wrong.stderr.count("\n") == 1
