# SPDX-License-Identifier: Apache-2.0

"""The checkpoint for nnU-Net: loaded strictly into the library's network, as nnU-Net's two loaders do it."""

from __future__ import annotations

import json
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Any

import export_nnssl
import pytest
import torch
from monai.bundle import ConfigParser
from scripts.data import trained_on
from scripts.files import load_file
from scripts.networks import NetworkBackbone, UNetBackbone
from torch import nn

unet = pytest.importorskip("dynamic_network_architectures.architectures.unet")
CONFIGS = export_nnssl.CONFIGS
SHIPPED = CONFIGS.parent / "models" / "resenc"
FEATURES = [4, 8, 12, 16]


def located(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def from_plan(content: dict, channels: int, classes: int = 3, **changes: Any) -> nn.Module:
    """The network as nnU-Net builds it from a plan."""
    plan = content["nnssl_adaptation_plan"]["architecture_plans"]
    arguments = {**plan["arch_kwargs"], **changes}
    for name in plan["arch_kwargs_requiring_import"]:
        if arguments[name] is not None:
            arguments[name] = located(arguments[name])
    made = getattr(unet, plan["arch_class_name"])
    return made(input_channels=channels, num_classes=classes, deep_supervision=True, **arguments)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with random weights of a narrow network."""
    torch.manual_seed(0)
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(CONFIGS / "resenc.json")])
    settings = {"features": FEATURES, "pixdim": [1.0, 2.0, 3.0], "spatial_size": [32, 40, 48]}
    parser.update(settings)
    network = parser.get_parsed_content("network_def")
    for value in network.parameters():
        nn.init.normal_(value, std=0.2)
    overlay = json.loads((CONFIGS / "resenc.json").read_text(encoding="utf-8"))
    (tmp_path / "settings.json").write_text(json.dumps({**overlay, **settings}))
    torch.save(network.state_dict(), tmp_path / "model.pt")
    return tmp_path


def exported(run: Path, *arguments: str) -> dict:
    assert export_nnssl.main([str(run / "model.pt"), str(run / "out.pth"), "--force", *arguments]) == 0
    return torch.load(run / "out.pth", weights_only=True)


def encoder(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return network.encoder(image)  # type: ignore[operator]


@pytest.mark.parametrize("channels", [1, 4])
def test_every_tensor_loads_as_the_development_version_does_it(run: Path, channels: int) -> None:
    content = exported(run, "--channels", str(channels))
    plan = content["nnssl_adaptation_plan"]
    assert plan["pretrain_num_input_channels"] == channels
    network = from_plan(content, channels)
    wanted = {name for name in network.state_dict() if name.startswith("encoder.")}
    given = {name: value for name, value in content["network_weights"].items() if name.startswith("encoder.")}
    assert set(given) == wanted
    for key in (plan["key_to_encoder"], plan["key_to_stem"]):
        part = reduce(getattr, key.split("."), network)
        own = {name[len(key) + 1 :]: value for name, value in given.items() if name.startswith(f"{key}.")}
        part.load_state_dict(own, strict=True)
    for key in plan["keys_to_in_proj"]:
        assert given[f"{key}.weight"].shape == (FEATURES[0], channels, 3, 3, 3)
    assert plan["pretrain_plan"]["configurations"]["3d_fullres"] == {
        "spacing": [3.0, 2.0, 1.0],
        "patch_size": [48, 40, 32],
    }
    assert plan["recommended_downstream_patchsize"] == [48, 40, 32]


def test_the_features_are_those_of_the_backbone(run: Path) -> None:
    """nnU-Net sees z-scored images whose axes come in the other order."""
    network = from_plan(content := exported(run), 1)
    lines = export_nnssl.load_into(network, content)
    assert "encoder: " in lines[0]
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / "train.json"), str(run / "settings.json")])
    backbone = parser.get_parsed_content("network_def#backbone").eval()
    weights = load_file(run / "model.pt")
    backbone.load_state_dict({k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")})
    image = 100 * torch.rand(1, 1, 16, 24, 32)
    with torch.no_grad():
        expected = backbone(image)[0]
    scored = (image - image.mean()) / image.std(correction=0)
    found = encoder(network.eval(), scored.permute(0, 1, 4, 3, 2))[-1]
    torch.testing.assert_close(found.permute(0, 1, 4, 3, 2), expected, rtol=1e-3, atol=1e-3)


def test_the_newest_release_loads_encoder_and_decoder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``-pretrained_weights`` of 2.8.1: everything but the last layers must be there, with its shape."""
    plans = {"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": {"patch_size": [32, 32, 32]}}}
    (run / "nnUNetPlans.json").write_text(json.dumps(plans))
    content = exported(run, "--plans", str(run / "nnUNetPlans.json"))
    assert "-p nnUNetPlans_gvsl -pretrained_weights" in capsys.readouterr().out
    made = json.loads((run / "nnUNetPlans_gvsl.json").read_text())
    assert made["plans_name"] == "nnUNetPlans_gvsl"
    plan = made["configurations"]["3d_fullres"]["architecture"]
    arguments = dict(plan["arch_kwargs"])
    for name in plan["_kw_requires_import"]:
        arguments[name] = None if arguments[name] is None else located(arguments[name])
    network = located(plan["network_class_name"])(input_channels=1, num_classes=5, deep_supervision=True, **arguments)
    for name, value in network.state_dict().items():
        if ".seg_layers." not in name:
            assert content["network_weights"][name].shape == value.shape, name
    assert not any("seg_layers" in name for name in content["network_weights"])


@pytest.mark.skipif(not SHIPPED.is_dir(), reason="no weights of this network are shipped")
def test_the_shipped_weights() -> None:
    """Encoder and decoder of the library's network, strictly; preprocessing and scans are known."""
    content, _ = export_nnssl.convert(load_file(SHIPPED / "model.pt"), SHIPPED / "model.pt")
    network = from_plan(content, 1)
    own = {name: value for name, value in network.state_dict().items() if ".seg_layers." not in name}
    assert content["network_weights"].keys() == own.keys()
    assert all(value.shape == own[name].shape for name, value in content["network_weights"].items())
    network.load_state_dict(network.state_dict() | content["network_weights"], strict=True)
    backbone = NetworkBackbone.from_pretrained(SHIPPED)
    assert backbone.preprocessing is not None
    image = torch.rand(1, 1, 16, 24, 32)
    with torch.no_grad():
        expected = backbone(image)[0]
    scored = (image - image.mean()) / image.std(correction=0)
    found = encoder(network.eval(), scored.permute(0, 1, 4, 3, 2))[-1]
    torch.testing.assert_close(found.permute(0, 1, 4, 3, 2), expected, rtol=1e-3, atol=1e-3)
    assert set(trained_on(str(SHIPPED / "model.pt"))) == set(trained_on(str(SHIPPED.parent / "model.pt")))
    assert (SHIPPED / "model.pt").stat().st_size < 25e6


def test_the_loader_tells_what_it_covers(run: Path) -> None:
    content = exported(run)
    lines = export_nnssl.load_into(network := from_plan(content, 3), content)
    total = sum(n.startswith("encoder.") for n in network.state_dict())
    assert lines[0] == f"encoder: {total} of {total} tensors filled"
    assert lines[-1] == "last layers: 6 tensors random, they belong to the task"
    one = from_plan(content, 1)
    export_nnssl.load_into(one, content)
    image = torch.rand(1, 1, 16, 16, 16)
    for repeated, alone in zip(encoder(network, image.repeat(1, 3, 1, 1, 1)), encoder(one, image), strict=True):
        torch.testing.assert_close(repeated, alone, rtol=1e-3, atol=1e-3)
    other = from_plan(content, 1, features_per_stage=[4, 8, 12, 20])
    lines = export_nnssl.load_into(other, content)
    assert any(line.startswith("encoder: of another shape, left random: encoder.stages.3") for line in lines)
    with pytest.raises(ValueError, match="nothing of the encoder fits"):
        export_nnssl.load_into(nn.Sequential(nn.Linear(1, 1)), content)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda run: torch.save(
                {f"backbone.{k}": v for k, v in UNetBackbone(3, 1, (4, 8)).state_dict().items()}, run / "model.pt"
            ),
            "holds no residual encoder U-Net: pre-train one with the overlay",
        ),
        (lambda run: (run / "settings.json").write_text((CONFIGS / "resenc.json").read_text()), "another architecture"),
        (lambda run: (run / "settings.json").write_text("{"), "settings.json cannot be read"),
    ],
)
def test_mistakes_get_one_line(run: Path, spoil: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(run)
    assert export_nnssl.main([str(run / "model.pt"), str(run / "out.pth")]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (run / "out.pth").exists()


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"configurations": {"2d": {}}}, "no configuration '3d_fullres'"),
        ({"configurations": {"3d_fullres": {"patch_size": [20, 28, 20]}}}, "is no volume of multiples of 8"),
        (None, "cannot be read"),
    ],
)
def test_plans_that_will_not_do(run: Path, plans: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "nnUNetPlans.json"
    if plans is not None:
        path.write_text(json.dumps(plans))
    assert export_nnssl.main([str(run / "model.pt"), str(run / "out.pth"), "--plans", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_what_is_advised_is_taken(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of the run, a configuration that the plans have, a patch of multiples."""
    path, arguments = run / "nnUNetPlans.json", [str(run / "model.pt"), str(run / "out.pth"), "--force"]
    (run / "settings.json").rename(run / "kept.json")
    (run / "settings.json").write_text("{")
    assert export_nnssl.main(arguments) == 1
    assert "pass the settings.json of the run" in capsys.readouterr().err
    arguments += ["--settings", str(run / "kept.json")]
    assert export_nnssl.main(arguments) == 0
    arguments += ["--plans", str(path)]
    path.write_text(json.dumps({"configurations": {"3d_lowres": {"patch_size": [20, 28, 20]}}}))
    assert export_nnssl.main(arguments) == 1
    assert "pass --configuration with one they have" in capsys.readouterr().err
    arguments += ["--configuration", "3d_lowres"]
    assert export_nnssl.main(arguments) == 1
    assert "is no volume of multiples of 8: set such a one there" in capsys.readouterr().err
    path.write_text(json.dumps({"configurations": {"3d_lowres": {"patch_size": [24, 32, 24]}}}))
    assert export_nnssl.main(arguments) == 0
