# SPDX-License-Identifier: Apache-2.0
"""A linear layer on frozen features: it finds what is there, standardised or not, and says what it lacks."""

import pytest
import torch
from ignite.engine import Engine
from scripts.errors import InputError
from scripts.finetuning import FitLastLayer, SegmentationNetwork, fit_head, fit_linear_layer
from scripts.networks import UNetBackbone


def scan(seed, size=(12, 12, 12), scale=1.0, shift=0.0):
    """Three classes that channels 0 and 1 tell apart, rare ones, and a channel of noise."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(3, *size, generator=generator)
    label = torch.zeros(size, dtype=torch.long)
    label[2:6, 2:6, 2:6], label[8:10, 8:10, 8:10] = 1, 2
    noise[0] += 6 * (label == 1)
    noise[1] += 6 * (label == 2)
    return noise * scale + shift, label


def classes_of(layer, features):
    weight, bias = layer
    return (torch.einsum("kc,cdhw->kdhw", weight, features) + bias.reshape(-1, 1, 1, 1)).argmax(dim=0)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-4, 0.0), (50.0, 300.0)])
def test_rare_structures_of_another_scan_are_found_whatever_the_scale(scale, shift):
    layer = fit_linear_layer(*([part] for part in scan(0, scale=scale, shift=shift)), num_classes=3)
    features, truth = scan(1, scale=scale, shift=shift)
    found = classes_of(layer, features)
    for code in (1, 2):
        dice = 2 * ((found == code) & (truth == code)).sum() / ((found == code).sum() + (truth == code).sum())
        assert dice > 0.9


def test_a_class_that_no_scan_shows_is_never_predicted():
    features, label = scan(0)
    layer = fit_linear_layer([features], [label], num_classes=5)
    assert set(classes_of(layer, features).unique().tolist()) == {0, 1, 2}


@pytest.mark.parametrize("told", [True, False])
def test_a_structure_that_one_map_lacks_is_learned_from_the_others(told):
    """Of five scans four show structure 2 without its being drawn: told so, the layer finds it; else hardly."""
    scans = [scan(seed) for seed in range(6)]
    labels = [label if seed == 0 else label * (label != 2) for seed, (_, label) in enumerate(scans[:5])]
    drawn = [torch.tensor([1.0, float(seed == 0)]) for seed in range(5)] if told else None
    layer = fit_linear_layer([part for part, _ in scans[:5]], labels, num_classes=3, drawn=drawn)
    features, truth = scans[5]
    found = classes_of(layer, features)
    dice = 2 * ((found == 2) & (truth == 2)).sum() / ((found == 2).sum() + (truth == 2).sum())
    assert (dice > 0.9) == told


def test_the_weight_decay_counts_less_the_more_scans_there_are():
    """Patches of one scan are one scan: told so, the layer stays as small as of that scan alone."""
    features, label = scan(0)
    alone, patches, scans = (
        fit_linear_layer([features] * count, [label] * count, 3, scans=of, background_share=1.0)[0].norm()
        for count, of in ((1, None), (8, 1), (8, None))
    )
    assert abs(patches / alone - 1) < 0.1
    assert scans > 1.2 * alone


def test_the_same_scans_give_the_same_layer():
    features, label = scan(0)
    first, second = (fit_linear_layer([features], [label], num_classes=3) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_nothing_to_learn_is_refused():
    features, label = scan(0)
    with pytest.raises(InputError, match="at least one labelled scan"):
        fit_linear_layer([], [], num_classes=3)
    with pytest.raises(InputError, match="all labels are background"):
        fit_linear_layer([features], [torch.zeros_like(label)], num_classes=3)


class TestFitHead:
    """The last layer of a network, fitted before it is trained."""

    @staticmethod
    def network(levels):
        torch.manual_seed(0)
        return SegmentationNetwork(UNetBackbone(features=(8, 16, 32)), num_classes=3, linear=True, levels=levels)

    @staticmethod
    def patches(count):
        """Two blocks of other brightness on noise, at other places in each patch."""
        items = []
        for seed in range(count):
            generator = torch.Generator().manual_seed(seed)
            image = 0.05 * torch.randn(1, 16, 16, 16, generator=generator)
            label = torch.zeros(1, 16, 16, 16)
            for code, first in ((1, seed % 4), (2, 9 + seed % 3)):
                block = (0, slice(first, first + 5), slice(3, 12), slice(4, 13))
                image[block] += code
                label[block] = code
            items.append({"image": image, "label": label})
        return items

    def test_structures_are_found_without_a_step_of_training(self):
        network, patches = self.network(levels=2), self.patches(5)
        backbone = {name: value.clone() for name, value in network.backbone.state_dict().items()}
        fit_head(network, patches[:4])
        with torch.no_grad():
            found = network(patches[4]["image"][None]).argmax(dim=1)
        for code in (1, 2):
            truth = patches[4]["label"] == code
            assert 2 * ((found == code) & truth).sum() / ((found == code).sum() + truth.sum()) > 0.7
        assert all(torch.equal(backbone[name], value) for name, value in network.backbone.state_dict().items())
        assert network.training

    def test_cropped_items_come_as_lists_of_one(self):
        first, second = self.network(1), self.network(1)
        fit_head(first, self.patches(2))
        fit_head(second, [[item] for item in self.patches(2)])
        assert torch.equal(first.head.weight, second.head.weight)

    @pytest.mark.parametrize(
        ("only_new", "learned", "fitted"), [(False, True, True), (True, True, False), (True, False, True)]
    )
    def test_when_a_training_starts(self, only_new, learned, fitted):
        """A server's training goes on with a layer that has learned something, and fits one of zeros."""
        network, trainer = self.network(1), Engine(lambda engine, batch: None)
        if not learned:
            for parameter in network.head.parameters():
                torch.nn.init.zeros_(parameter)
        before = network.head.weight.clone()
        FitLastLayer(network, self.patches(2), scans=2, only_new=only_new).attach(trainer)
        trainer.run([0])
        assert torch.equal(network.head.weight, before) != fitted
