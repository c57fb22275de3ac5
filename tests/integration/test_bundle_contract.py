# SPDX-License-Identifier: Apache-2.0

"""What MONAI's tools and the model zoo expect of the bundle, and what users may set."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from jsonschema import Draft201909Validator
from monai.bundle import ConfigParser
from zoo.files import SCHEMA

MATCHING = ("evaluate", "inference")


@pytest.fixture
def parsed(config_files, cohort, tmp_path):
    """A parser of train.json with overlays and overrides, as the command line makes it; nothing is trained."""

    def make(*overlays: str, **overrides):
        parser = ConfigParser()
        parser.read_config(config_files(*overlays))
        parser.update({"dataset_dir": str(cohort), "output_dir": str(tmp_path), "num_workers": 0, **overrides})
        return parser

    return make


class TestMetadata:
    @pytest.fixture
    def metadata(self, repository):
        return json.loads((repository / "bundle" / "configs" / "metadata.json").read_text(encoding="utf-8"))

    def test_passes_the_schema(self, metadata):
        schema = json.loads(SCHEMA.read_text())
        Draft201909Validator.check_schema(schema)
        validator = Draft201909Validator(schema)
        assert not list(validator.iter_errors(metadata))
        assert list(validator.iter_errors({**metadata, "network_data_format": None}))  # the schema does look

    def test_version_is_in_the_changelog(self, metadata):
        assert metadata["version"] in metadata["changelog"]
        assert all(int(part) < 10 for part in metadata["version"].split("."))

    def test_licence_is_there(self, repository):
        assert "Apache License" in (repository / "bundle" / "LICENSE").read_text()


@pytest.mark.parametrize("overlays", [(), ("demo",), ("paper",)], ids=["train", "demo", "paper"])
def test_properties_are_those_of_a_training_workflow(cohort, tmp_path, workflow, overlays):
    made = workflow(cohort, tmp_path, overlays)
    made.initialize()
    assert made.check_properties() == []


class TestOverrides:
    """Every id below changes what is built."""

    @pytest.mark.parametrize(
        ("given", "part", "look", "expected"),
        [
            ({"features": [4, 8, 16]}, "network_def", lambda n: n.backbone.features, (4, 8, 16)),
            ({"symmetric": True}, "network_def", lambda n: n.symmetric, True),
            ({"known_share": 0.25}, "train#dataset", lambda d: d.known_share, 0.25),
            ({"learning_rate": 0.125}, "optimizer", lambda o: o.param_groups[0]["lr"], 0.125),
            (
                {"matching_weight": 2, "smoothness_weight": 3, "restoration_weight": 4, "redundancy_weight": 5}
                | {"place_weight": 6, "known_map_weight": 7},
                "loss",
                lambda loss: [term.weight for term in loss.terms.values()],
                [6, 7, 2, 3, 4, 5],
            ),
            ({"batch_size": 3, "epoch_length": 5}, "train#dataloader", lambda d: (d.batch_size, len(d)), (3, 5)),
            ({"seed": 9}, "train#dataset", lambda d: d.seed, 9),
            ({"spatial_size": [12, 20, 16]}, "train#dataset", lambda d: d[0]["image"].shape, (1, 12, 20, 16)),
            ({"pixdim": [2.0, 2.0, 2.0]}, "train#dataset", lambda d: d[0]["image"].shape, (1, 24, 24, 24)),
            ({"epochs": 7}, "train#trainer", lambda t: t.state.max_epochs, 7),
            ({"epochs": 7}, "lr_scheduler", lambda s: s.lr_lambdas[0](7), 0.0),
            ({"epoch_length": 11}, "train#trainer", lambda t: t.state.epoch_length, 11),
            ({"amp": True}, "train#trainer", lambda t: t.amp, True),
            ({"resume": True}, "train#handlers", lambda h: [x.resume for x in h if hasattr(x, "resume")], [True]),
        ],
        ids=lambda value: "+".join(value) if isinstance(value, dict) else None,
    )
    def test_override(self, parsed, given, part, look, expected):
        defaults = {"features": [4, 8], "spatial_size": [24, 24, 24], "pixdim": [1.0, 1.0, 1.0]}
        assert look(parsed(**{**defaults, **given}).get_parsed_content(part)) == expected


def test_a_report_measures_the_match_that_users_get(repository):
    """On the prepared grid; both configurations state the numbers of a match."""
    evaluation, use = (json.loads((repository / "bundle/configs" / f"{name}.json").read_text()) for name in MATCHING)
    measured, used = evaluation["validate#inferer"], use["inferer"]
    assert measured == {name: used[name] for name in measured}
    assert evaluation["evaluation"]["spacing"] == "@pixdim"
    assert [evaluation[name] for name in ("trusted", "global_matches", "both_ways")] == [
        use[name] for name in ("trusted", "global_matches", "both_ways")
    ]


class TestPaper:
    """paper.json is the published setting."""

    def test_network(self, parsed):
        network = parsed("paper").get_parsed_content("network_def")
        assert sum(weight.numel() for weight in network.parameters()) == 32_440_739
        assert sum(weight.numel() for weight in network.backbone.parameters()) == 23_538_144
        assert (network.symmetric, network.corrupted) == (False, "moving")
        bounds = network.matching_head.global_matching.bounds[:3]
        assert bounds == pytest.approx([math.pi / 9, 0.25, math.pi / 18], rel=1e-4)

    def test_course(self, parsed):
        """Adam at a constant 1e-4, 200,000 steps of two pairs."""
        parser = parsed("paper", features=[4, 8])
        assert parser.get_parsed_content("epochs") * parser.get_parsed_content("epoch_length") == 200_000
        assert parser.get_parsed_content("batch_size") == 2
        optimizer, scheduler = (parser.get_parsed_content(name) for name in ("optimizer", "lr_scheduler"))
        assert type(optimizer) is torch.optim.Adam
        for _ in range(20):
            optimizer.step()
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 1e-4

    def test_loss(self, parsed):
        """The NCC of zero-padded sums: two flat images score 0, of which the masked form says that they are equal."""
        loss, ours = (parsed(*names).get_parsed_content("loss") for names in (["paper"], []))
        weights = {name: term.weight for name, term in loss.terms.items()}
        paper = {"matching": 1, "smoothness": 1, "restoration": 1}
        assert {name: weight for name, weight in weights.items() if weight} == paper
        assert loss.terms["matching"].similarity.window == 9
        assert loss.terms["smoothness"].field == "local_displacement"
        flat = torch.zeros(1, 1, 12, 12, 12)
        assert loss.terms["matching"].similarity(flat, flat) == 1
        assert ours.terms["matching"].similarity(flat, flat) == 0

    def test_intensities(self, parsed):
        prepare = parsed("paper").get_parsed_content("train#preprocessing")
        scaling = next(step for step in prepare.transforms if type(step).__name__.startswith("ScaleIntensity"))
        scaled = scaling({"image": torch.tensor([[-1024.0, 0.0, 1024.0, 2048.0]])})["image"]
        assert scaled.tolist() == [[0, 0.5, 1, 1]]


class TestShippedWeights:
    """models/model.pt is what the model card says, and what inference and evaluation load."""

    def test_fill_the_network(self, repository, tmp_path):
        """All tensors and no other, by the loader that both configurations use; the network restores a scan."""
        bundle = repository / "bundle"
        for names in (["inference"], ["train", "evaluate"]):
            parser = ConfigParser()
            parser.read_config([str(bundle / "configs" / f"{name}.json") for name in names])
            parser.update({"bundle_root": str(bundle), "device": torch.device("cpu")})
            network = parser.get_parsed_content("network")
            before = [weight.clone() for weight in network.parameters()]
            parser.get_parsed_content("checkpointloader")(None)
            assert all(not torch.equal(new, old) for new, old in zip(network.parameters(), before, strict=True))
        restored = network.eval()(torch.rand(1, 1, 16, 24, 16))
        assert restored.shape == (1, 1, 16, 24, 16)

    def test_settings(self, repository, parsed, shared_data):
        """shipped.json learns from six sets together, each with its own voxel sizes and key of the subjects."""
        folders = json.loads((repository / "bundle" / "configs" / "shipped.json").read_text())["dataset_dir"]
        found: dict[tuple[str, float], set] = {}
        for scan in parsed("shipped", data_dir=str(shared_data), dataset_dir=folders).get_parsed_content("scans"):
            found.setdefault((Path(scan["cohort"]).name, scan["zoom"]), set()).add(scan["subject"])
        assert {key: len(subjects) for key, subjects in found.items()} == {
            ("ixi_brain", 2.0): 42,
            ("ixi_unlabelled", 2.0): 113,
            ("ds002748_brain", 2.0): 72,
            ("hippocampus", 5.0): 113,
            ("openkbp_headneck_ct", 1.111): 210,
            ("sunnybrook_cardiac", 2.0): 30,
        }

    def test_card(self, repository):
        weights = (repository / "bundle" / "models" / "model.pt").read_bytes()
        assert len(weights) < 25e6
        card = (repository / "bundle" / "docs" / "README.md").read_text(encoding="utf-8")
        assert hashlib.sha256(weights).hexdigest() in card
