# SPDX-License-Identifier: Apache-2.0
"""A linear layer on frozen features: it finds what is there, standardised or not, and says what it lacks."""

import pytest
import torch
from scripts.errors import InputError
from scripts.finetuning import fit_linear_layer


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
