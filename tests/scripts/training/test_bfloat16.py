# SPDX-License-Identifier: Apache-2.0

"""The network in bfloat16: close to float32, and float32 all around."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from scripts.files import load_file
from scripts.losses import GVSLLoss
from scripts.networks import (
    GVSL,
    AffineHead,
    CorrelationHead,
    DeformableHead,
    RestorationHead,
    UNetBackbone,
    ZMatchingHead,
)
from scripts.spatial import warp
from scripts.training import BFloat16Inferer
from torch.nn.functional import cosine_similarity

module = import_module("scripts.training.bfloat16")
KINDS = {"convolution": DeformableHead, "correlation": CorrelationHead}


@pytest.fixture(autouse=True)
def any_cpu(monkeypatch):
    """Rounding is the same where it is emulated."""
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: True)


@pytest.fixture(params=list(KINDS))
def network(request):
    """Away from the identity, where a network starts."""
    torch.manual_seed(0)
    head = ZMatchingHead(AffineHead(16, 8), KINDS[request.param](8, 8))
    made = GVSL(UNetBackbone(3, 1, (8, 16)), head, RestorationHead(8, 1, 8), symmetric=True)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if name.startswith("matching_head"):
                weight += 0.02 * torch.randn_like(weight)
    return made


@pytest.fixture
def pair(anatomy):
    return [torch.as_tensor(anatomy(subject, 20))[None, None] / 400 + 0.5 for subject in (0, 1)]


def dtypes(prediction):
    if isinstance(prediction, torch.Tensor):
        yield prediction.dtype
        return
    for value in prediction.values() if isinstance(prediction, dict) else prediction:
        yield from dtypes(value)


def learn(network, pair, enabled):
    network.zero_grad()
    loss = GVSLLoss()
    prediction = BFloat16Inferer(enabled)(pair[0], network, pair[1])
    terms = loss(prediction, torch.cat(pair, dim=1))
    terms["loss"].backward()
    gradient = torch.cat([weight.grad.flatten() for weight in network.parameters()])
    return prediction, {name: term.item() for name, term in terms.items()}, gradient


def test_close_to_float32_and_in_it(network, pair):
    """Losses within 1 %, one direction of the gradient, no half-precision tensor outside; yet rounded within."""
    exact, exact_terms, exact_gradient = learn(network, pair, False)
    found, terms, gradient = learn(network, pair, True)
    assert set(dtypes(found)) == {torch.float32}
    assert gradient.dtype == torch.float32
    assert terms == pytest.approx(exact_terms, rel=0.01)
    assert cosine_similarity(gradient, exact_gradient, dim=0) > 0.99
    assert not torch.equal(found["restored"], exact["restored"])
    assert (found["restored"] == found["restored"].bfloat16()).all()


def test_positions_keep_their_digits(network, pair):
    """An image is sampled where its displacement says, in float32; the maps are no 8-bit numbers."""
    found = BFloat16Inferer()(pair[0], network.eval(), pair[1])
    assert torch.equal(found["warped"], warp(pair[1], found["displacement"]))
    for name in ("affine", "displacement"):
        assert (found[name] != found[name].bfloat16()).any()


def test_switched_off_it_is_not_there(network, pair):
    off = BFloat16Inferer(enabled=False)(pair[0], network, pair[1])
    plain = network(*pair)
    assert all(torch.equal(off[name], plain[name]) for name in ("affine", "restored", "displacement"))


def test_where_it_would_be_emulated(network, pair, monkeypatch, capsys):
    """It was: a step took many times as long, without a word."""
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: False)
    module._tell_once.cache_clear()
    network.eval()
    found = [BFloat16Inferer()(pair[0], network, pair[1]) for _ in range(2)]
    assert torch.equal(found[1]["warped"], network(*pair)["warped"])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("bfloat16 True: float32 is used instead, since this CPU (")


@pytest.mark.parametrize(
    ("told", "fast"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx512_f": True, "avx512_bf16": False}, False)],
)
def test_asked_for_where_the_processor_is_fast_at_it(pair, monkeypatch, capsys, told, fast):
    """Nothing is said where it is not: nobody has asked for it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    found = BFloat16Inferer(enabled=None)(pair[0], torch.nn.Conv3d(1, 1, 3))
    assert bool((found == found.bfloat16()).all()) == fast
    assert not capsys.readouterr().out


def test_not_asked_for_where_pytorch_cannot_tell(monkeypatch):
    """Its older releases."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not module.is_fast_in_bfloat16(torch.device("cpu"))
    assert not module.is_fast_in_bfloat16(torch.device("meta"))


def test_an_image_as_prediction(pair):
    """As fine-tuned networks give it."""
    backbone = UNetBackbone(3, 1, (8, 16))
    assert BFloat16Inferer()(pair[0], lambda image: backbone(image)[1]).dtype == torch.float32


def test_training(cohort, tmp_path, pretrain):
    """The same course within 6 % (the redundancy of rounded features: 20 %); weights and moments stay float32."""
    exact = pretrain(cohort, tmp_path / "float32")
    rounded = pretrain(cohort, tmp_path / "bfloat16", bfloat16=True)
    assert rounded != exact
    for first, second in zip(exact, rounded, strict=True):
        assert second.pop("redundancy") == pytest.approx(first.pop("redundancy"), rel=0.2)
        assert second == pytest.approx(first, rel=0.06, abs=0.002)
    state = load_file(tmp_path / "bfloat16" / "checkpoint.pt")
    moments = [value for entry in state["optimizer"]["state"].values() for value in entry.values()]
    kinds = {value.dtype for value in [*state["network"].values(), *moments]}
    assert kinds == {torch.float32}


def test_a_switch_is_true_or_false(cohort, tmp_path, refusal):
    assert "bfloat16 must be True or False" in refusal(cohort, tmp_path, bfloat16="false")
