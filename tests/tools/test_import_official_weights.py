# SPDX-License-Identifier: Apache-2.0

"""Tests of the import of the first authors' weights: equal numbers at every level, and its refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import import_official_weights
import pytest
import torch
from import_official_weights import UNET
from scripts.networks import RestorationHead, UNetBackbone, find_weights
from scripts.training import load_weights
from torch.nn import functional
from warm_start import run_warm

WIDTHS = (8, 16, 24, 32, 40)
Weights = dict[str, torch.Tensor]


def layer(weights: Weights, name: str, out: int, into: int = 0, kernel: tuple[int, ...] = (3, 3, 3)) -> None:
    """Add a random convolution or linear layer, or without inputs a normalisation, to the weights."""
    weights[f"{name}.weight"] = 0.2 * torch.randn(out, into, *kernel) if into else 1 + 0.3 * torch.randn(out)
    weights[f"{name}.bias"] = 0.2 * torch.randn(out)


def convolve_twice(weights: Weights, name: str, into: int, out: int, kernel: tuple[int, ...] = (3, 3, 3)) -> None:
    """Add the four layers of a double convolution to the weights."""
    for index, channels in ((0, into), (3, out)):
        layer(weights, f"{name}.double_conv.{index}", out, channels, kernel)
        layer(weights, f"{name}.double_conv.{index + 1}", out)


def released_unet(dims: int = 3, channels: int = 1, widths: tuple[int, ...] = WIDTHS) -> Weights:
    """Random weights by the release's names and shapes, the U-Net alone."""
    torch.manual_seed(0)
    weights: Weights = {}
    kernel = (3,) * dims
    convolve_twice(weights, "inc", channels, widths[0], kernel)
    for k in range(1, 5):
        convolve_twice(weights, f"down{k}.maxpool_conv.1", widths[k - 1], widths[k], kernel)
    for k in range(1, 5):
        convolve_twice(weights, f"up{k}.conv", widths[5 - k] + widths[4 - k], widths[4 - k], kernel)
    return weights


def released() -> Weights:
    """Random weights by the release's names and shapes, the whole network."""
    weights = {f"unet.{name}": value for name, value in released_unet().items()}
    convolve_twice(weights, "f_conv", 2 * WIDTHS[-1], 24)
    convolve_twice(weights, "sp_conv", 2 * WIDTHS[0], 16)
    layer(weights, "res_conv.0", 16, WIDTHS[0])
    layer(weights, "res_conv.1", 16)
    layer(weights, "res_conv.3", 1, 16, (1, 1, 1))
    layer(weights, "out_flow", 3, 16)
    for name, count in (("rot", 3), ("scl", 3), ("trans", 3), ("shear", 6)):
        layer(weights, f"fc_{name}", count, 24, ())
    return weights


def block(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Their double convolution, restated."""
    convolve = functional.conv2d if x.dim() == 4 else functional.conv3d
    for index in (0, 3):
        inner, norm = (f"{name}.double_conv.{index + step}" for step in (0, 1))
        x = convolve(x, weights[f"{inner}.weight"], weights[f"{inner}.bias"], padding=1)
        x = functional.group_norm(x, x.shape[1] // 8, weights[f"{norm}.weight"], weights[f"{norm}.bias"])
        x = torch.where(x > 0, x, 0.2 * x)
    return x


def levels_of(weights: Weights, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs of their nine levels, restated, for an image that needs no padding."""
    pool, mode = (functional.max_pool2d, "bilinear") if x.dim() == 4 else (functional.max_pool3d, "trilinear")
    levels = [block(weights, "inc", x)]
    for k in range(1, 5):
        levels.append(block(weights, f"down{k}.maxpool_conv.1", pool(levels[-1], 2)))
    for k in range(1, 5):
        larger = functional.interpolate(levels[-1], scale_factor=2, mode=mode, align_corners=True)
        levels.append(block(weights, f"up{k}.conv", torch.cat([levels[4 - k], larger], dim=1)))
    return levels


def imported(content: Any, folder: Path) -> Weights:
    """What the command makes of a file with that content."""
    torch.save(content, folder / "in.pth")
    assert import_official_weights.main([str(folder / "in.pth"), str(folder / "out.pt")]) == 0
    return torch.load(folder / "out.pt", weights_only=True)


def assert_same_levels(result: Weights, weights: Weights, dims: int = 3, channels: int = 1) -> None:
    """Our backbone, with the imported weights, gives the restated network's output at every level."""
    features = [weights[f"{name}.double_conv.0.bias"].numel() for name in import_official_weights.ENCODER]
    backbone = UNetBackbone(dims, channels, features).eval()
    load_weights(backbone, find_weights(result, backbone.state_dict(), "out"), "out")
    outputs: list[torch.Tensor] = []
    for module in (backbone.stem, *backbone.downs, *backbone.ups):
        module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    image = torch.randn(1, channels, *(16, 32, 16)[:dims])
    with torch.no_grad():
        bottleneck, local = backbone(image)
        expected = levels_of(weights, image)
    assert len(outputs) == len(expected) == 9
    for ours, theirs in zip(outputs, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(bottleneck, expected[4], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(local, expected[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("prefix", "wrapping"),
    [("", ""), ("unet.", ""), ("module.", ""), ("module.unet.", "state_dict"), ("module.module.unet.", "model")]
    + [("", "state_dict"), ("unet.", "model_state_dict"), ("", "network"), ("unet.", "net"), ("module.", "weights")],
)
def test_unet_gives_the_same_numbers_at_every_level(prefix: str, wrapping: str, tmp_path: Path) -> None:
    weights = released_unet()
    content: dict[str, Any] = {f"{prefix}{name}": value for name, value in weights.items()}
    if wrapping:
        content = {"epoch": 3, wrapping: content, "optimizer": {"state": {}}}
    result = imported(content, tmp_path)
    assert len(result) == len(UNET) == 72
    assert all(name.startswith("backbone.") for name in result)
    assert_same_levels(result, weights)


@pytest.mark.parametrize(("dims", "channels", "widths"), [(2, 1, WIDTHS), (3, 2, (16, 16, 32, 8, 24))])
def test_sizes_are_read_from_the_file(dims: int, channels: int, widths: tuple[int, ...], tmp_path: Path) -> None:
    weights = released_unet(dims, channels, widths)
    assert_same_levels(imported(weights, tmp_path), weights, dims, channels)


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    weights = {name: value.half() for name, value in released_unet().items()}
    result = imported(weights, tmp_path)
    assert {value.dtype for value in result.values()} == {torch.float32}
    assert_same_levels(result, {name: value.float() for name, value in weights.items()})


@pytest.mark.parametrize("prefix", ["", "module."])
def test_whole_network_gives_backbone_and_restoration(
    prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = released()
    result = imported({f"{prefix}{name}": value for name, value in weights.items()}, tmp_path)
    assert {name.split(".")[0] for name in result} == {"backbone", "restoration_head"}
    assert_same_levels(result, {name.removeprefix("unet."): value for name, value in weights.items()})
    head = RestorationHead(WIDTHS[0], 1, 16).eval()
    head.load_state_dict({name[17:]: value for name, value in result.items() if name.startswith("restoration_head.")})
    local = torch.randn(1, WIDTHS[0], 8, 8, 8)
    hidden = functional.conv3d(local, weights["res_conv.0.weight"], weights["res_conv.0.bias"], padding=1)
    hidden = functional.group_norm(hidden, 4, weights["res_conv.1.weight"], weights["res_conv.1.bias"])
    expected = functional.conv3d(
        torch.where(hidden > 0, hidden, 0.2 * hidden), weights["res_conv.3.weight"], weights["res_conv.3.bias"]
    )
    with torch.no_grad():
        torch.testing.assert_close(head(local), expected, rtol=1e-4, atol=1e-5)
    report = capsys.readouterr().out
    assert "backbone: 72 of 72 tensors matched" in report
    assert "restoration head: 6 of 6 tensors matched" in report
    assert "affine head: 16 of 16 tensors matched" in report
    assert report.count("LEFT OUT") == 2


def test_paper_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(released_unet(widths=(32, 64, 128, 256, 512)), tmp_path)
    report = capsys.readouterr().out
    assert "levels of 32-64-128-256-512 channels" in report
    assert "backbone: 72 of 72 tensors matched, 23,538,144 parameters" in report
    assert "heads: none in the file" in report


def without(name: str) -> Callable[[Weights], Any]:
    """A change that takes a tensor away."""
    return lambda weights: {key: value for key, value in weights.items() if key != name}


def replaced(name: str, value: Any) -> Callable[[Weights], Any]:
    """A change that puts another value under a name."""
    return lambda weights: {**weights, name: value}


STEM = "unet.inc.double_conv.0.weight"
LATE = "unet.up4.conv.double_conv.4.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(LATE), "not complete: 1 of 104 tensors are missing (up4.conv.double_conv.4.bias)"),
        (without("fc_rot.bias"), "not complete: 1 of 104 tensors are missing (fc_rot.bias)"),
        (lambda weights: {k: v for k, v in weights.items() if "unet" not in k}, "72 of 104 tensors are missing"),
        (lambda weights: {k: v for k, v in weights.items() if "down4" not in k}, "8 of 104 tensors are missing"),
        (lambda weights: {**without(LATE)(weights), LATE[5:]: weights[LATE]}, "tensors that the release does not have"),
        (replaced("out_conv.weight", torch.zeros(1)), "1 tensors that the release does not have (out_conv.weight)"),
        (replaced(LATE, torch.zeros(7)), "up4.conv.double_conv.4.bias is of shape [7], not [8]"),
        (replaced("fc_shear.weight", torch.zeros(3, 24)), "fc_shear.weight is of shape [3, 24], not [6, 24]"),
        (replaced("out_flow.bias", torch.zeros(2)), "out_flow.bias is of shape [2], not [3]"),
        (replaced("res_conv.0.weight", torch.zeros(())), "res_conv.0.weight is of shape []"),
        (replaced(STEM, torch.zeros(8, 1, 3)), "is of shape [8, 1, 3], not a 2D or 3D kernel"),
        (replaced(STEM, torch.zeros(0, 1, 3, 3, 3)), "is of shape [0, 1, 3, 3, 3]"),
        (
            replaced(STEM, torch.zeros(8, 1, 3, 3)),
            "inc.double_conv.3.weight is of shape [8, 8, 3, 3, 3], not [8, 8, 3, 3]",
        ),
        (replaced(LATE, torch.zeros(8, dtype=torch.int64)), "no finite floating-point numbers"),
        (replaced(LATE, torch.full((8,), torch.nan)), "no finite floating-point numbers"),
        (replaced("epoch", 7), "is not a checkpoint: its entry 'epoch' is not a named tensor"),
        (lambda weights: {}, "is not a checkpoint: it holds no state dictionary"),
        (lambda weights: list(weights.values()), "is not a checkpoint: it holds no state dictionary"),
        (lambda weights: {"state_dict": {}}, "is not a checkpoint: it holds no state dictionary"),
        (lambda weights: {0: torch.zeros(1)}, "is not a checkpoint: its entry '0' is not a named tensor"),
        (lambda weights: UNetBackbone(3, 1, (8, 8)).state_dict(), "not of the authors' release: it begins with 'stem"),
        (lambda weights: torch.nn.Linear(1, 1), "is not a readable checkpoint"),
    ],
)
def test_other_content_is_refused(
    change: Callable[[Weights], Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(change(released()), tmp_path / "in.pth")
    assert message in refusal(capsys, tmp_path / "in.pth", tmp_path / "out.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["in.pth"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: Path | str) -> str:
    """Run the command, which must refuse in one line, and give that line."""
    assert import_official_weights.main([str(argument) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("import_official_weights: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_unusable_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "in.pth", tmp_path / "out.pt"
    torch.save(released_unet(), source)
    before = source.read_bytes()
    assert "does not exist" in refusal(capsys, tmp_path / "none.pth", out)
    assert "is a folder, not a file of weights" in refusal(capsys, tmp_path, out)
    assert "is a folder" in refusal(capsys, source, tmp_path, "--force")
    assert "none does not exist" in refusal(capsys, source, tmp_path / "none" / "out.pt")
    assert "is IN itself" in refusal(capsys, source, source, "--force")
    assert source.read_bytes() == before
    (tmp_path / "text").write_text("no weights")
    assert "is not a readable checkpoint" in refusal(capsys, tmp_path / "text", out)
    (tmp_path / "cut").write_bytes(before[: len(before) // 2])
    assert "is not a readable checkpoint" in refusal(capsys, tmp_path / "cut", out)
    out.write_text("kept")
    assert "out.pt exists: pass another name, or --force" in refusal(capsys, source, out)
    assert out.read_text() == "kept"

    def full(content: Any, file: Any) -> None:
        raise RuntimeError("disk full\nand a trace")

    monkeypatch.setattr(torch, "save", full)
    assert "out.pt cannot be written: disk full\n" in refusal(capsys, source, out, "--force")
    assert out.read_text() == "kept"
    monkeypatch.undo()
    assert import_official_weights.main([str(source), str(out), "--force"]) == 0
    assert len(torch.load(out, weights_only=True)) == 72


def test_command_as_typed(tmp_path: Path) -> None:
    torch.save(released_unet(), tmp_path / "in.pth")
    done = run_warm((import_official_weights.__file__, "in.pth", "out.pt"), tmp_path)
    assert (done.returncode, done.stdout.count("72 of 72")) == (0, 1), done.stderr
    wrong = run_warm((import_official_weights.__file__, "in.pth"), tmp_path)
    assert wrong.returncode == 2
    assert wrong.stderr == "import_official_weights: error: the following arguments are required: OUT\n"
