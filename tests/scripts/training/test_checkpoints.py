# SPDX-License-Identifier: Apache-2.0

"""Files are written whole, read without running code, and loaded exactly or not at all."""

from __future__ import annotations

import gzip
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scripts.errors import InputError
from scripts.files import load_file, save_atomically
from scripts.networks import GVSL, AffineHead, DeformableHead, RestorationHead, UNetBackbone, ZMatchingHead
from scripts.training import ModelLoader, checkpoints, load_weights


class Bomb:
    """What a pickle with code in it looks like: unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class TestSaving:
    def test_content_comes_back(self, tmp_path):
        content = {"weights": torch.arange(4.0), "epoch": 3, "nested": [1, {"a": None, "b": (2.5, "text")}]}
        save_atomically(content, tmp_path / "file.pt")
        found = load_file(tmp_path / "file.pt")
        assert torch.equal(found.pop("weights"), content.pop("weights"))
        assert found == content
        assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]

    @pytest.mark.parametrize("step", ["torch.save", "os.fsync", "os.replace"])
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("PytorchStreamWriter")])
    def test_failure_keeps_the_previous_file(self, tmp_path, monkeypatch, step, error):
        """Whatever step fails, the old content stays and nothing else is left behind."""
        path = tmp_path / "file.pt"
        save_atomically({"epoch": 1}, path)

        def fail(*args):
            if step == "torch.save":
                args[1].write(b"half a file")
            raise error

        module, name = step.split(".")
        monkeypatch.setattr(getattr(checkpoints, module), name, fail)
        with pytest.raises(InputError, match=r"file\.pt cannot be written .* the previous one is kept"):
            save_atomically({"epoch": 2}, path)
        assert load_file(path) == {"epoch": 1}
        assert [path.name for path in tmp_path.iterdir()] == ["file.pt"]


class TestLoading:
    @pytest.mark.parametrize("write", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))])
    def test_code_is_refused_and_not_run(self, tmp_path, write):
        path, trace = tmp_path / "hostile.pt", tmp_path / "trace"
        write({"network": Bomb(trace)}, path)
        with pytest.raises(InputError, match=r"hostile\.pt is not a readable checkpoint"):
            load_file(path)
        assert not trace.exists()
        torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
        assert trace.exists()  # it was a real bomb

    def test_missing(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.pt does not exist"):
            load_file(tmp_path / "none.pt")

    @given(share=st.floats(0, 0.999))
    def test_cut_short(self, tmp_path_factory, share):
        path = tmp_path_factory.mktemp("cut") / "cut.pt"
        save_atomically({"weights": torch.arange(300.0), "epoch": 3}, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(InputError, match=r"cut\.pt is not a readable checkpoint"):
            load_file(path)

    @given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
    def test_a_changed_weight_is_noticed(self, tmp_path_factory, place, flip):
        """One byte of the stored numbers, which PyTorch itself reads as another number."""
        path = tmp_path_factory.mktemp("changed") / "changed.pt"
        weights = torch.arange(300.0)
        save_atomically({"weights": weights}, path)
        content, stored = bytearray(path.read_bytes()), weights.numpy().tobytes()
        content[content.index(stored) + int(place * len(stored))] ^= flip
        path.write_bytes(content)
        assert not torch.equal(torch.load(path, weights_only=True)["weights"], weights)
        with pytest.raises(InputError, match=r"changed\.pt is not a readable checkpoint"):
            load_file(path)

    @pytest.mark.parametrize(
        "write",
        [
            lambda path: path.write_text("epoch,loss\n1,0.5\n"),
            lambda path: path.write_text("{}"),
            lambda path: path.write_bytes(b""),
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
            lambda path: path.write_bytes(gzip.compress(bytes(400))),
            lambda path: path.write_bytes(pickle.dumps({"network": [1.5]})),
            lambda path: np.savez(path.open("wb"), weights=np.zeros(3)),
            lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path),
            lambda path: torch.save(torch.nn.Linear(1, 1), path),
        ],
        ids=["table", "JSON", "empty", "picture", "gzip", "pickle", "npz", "TorchScript", "module"],
    )
    def test_another_kind_of_file(self, tmp_path, write):
        write(tmp_path / "foreign.pt")
        with pytest.raises(InputError, match=r"foreign\.pt is not a readable checkpoint"):
            load_file(tmp_path / "foreign.pt")

    def test_older_format_of_pytorch(self, tmp_path):
        """It has no checksums, and is read all the same."""
        torch.save({"epoch": 3}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        assert load_file(tmp_path / "old.pt") == {"epoch": 3}

    def test_a_folder(self, tmp_path):
        with pytest.raises(InputError, match=r"cannot be read .*directory"):
            load_file(tmp_path)

    @pytest.mark.parametrize(
        "error",
        [
            MemoryError(),
            KeyboardInterrupt(),
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        ],
        ids=["memory", "Ctrl-C", "allocation", "worker"],
    )
    def test_what_is_not_about_the_file_goes_on(self, tmp_path, monkeypatch, error):
        save_atomically({}, tmp_path / "good.pt")
        monkeypatch.setattr(torch, "load", lambda *_, **__: (_ for _ in ()).throw(error))
        with pytest.raises(type(error)) as caught:
            load_file(tmp_path / "good.pt")
        assert caught.value is error

    @given(content=st.binary(max_size=60) | st.binary(max_size=60).map(lambda b: b"\x80\x02" + b))
    def test_arbitrary_bytes(self, tmp_path_factory, content):
        """Whatever lies in a file is refused (or is plain content, which a pickle may be); nothing else is raised."""
        path = tmp_path_factory.mktemp("bytes") / "bytes.pt"
        path.write_bytes(content)
        with suppress(InputError):
            load_file(path)


class TestWeights:
    @pytest.fixture
    def module(self):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))

    def test_exact(self, module):
        weights = {name: torch.randn_like(value) for name, value in module.state_dict().items()}
        load_weights(module, weights, "model.pt")
        assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda w: w.pop("0.bias"), r"of 4 tensors 1 missing \(0\.bias\)"),
            (lambda w: w.update({"2.bias": torch.zeros(1)}), r"1 unexpected \(2\.bias\)"),
            (lambda w: w.update({"1.weight": torch.zeros(1, 4)}), r"1 of another shape \(1\.weight\)"),
        ],
    )
    def test_anything_else_is_refused_and_changes_nothing(self, module, change, message):
        before = {name: value.clone() for name, value in module.state_dict().items()}
        weights = {name: torch.randn_like(value) for name, value in before.items()}
        change(weights)
        with pytest.raises(InputError, match=rf"model\.pt is of another architecture: .*{message}"):
            load_weights(module, weights, "model.pt")
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_of_former_names_are_read(tmp_path, capsys):
    """Those of the first releases, which had the heads side by side; a line says so, once for each file."""
    network = GVSL(
        UNetBackbone(features=(4, 8)), ZMatchingHead(AffineHead(8, 8), DeformableHead(4, 8)), RestorationHead(4, 1, 8)
    )
    weights = network.state_dict()
    former = {
        name.replace("matching_head.global_matching.", "affine_head.").replace(
            "matching_head.local_matching.", "deformable_head."
        ): torch.rand_like(value)
        for name, value in weights.items()
    }
    assert former.keys() != weights.keys()
    torch.save(former, tmp_path / "model.pt")
    ModelLoader(network, str(tmp_path / "model.pt"))()
    for value, expected in zip(network.state_dict().values(), former.values(), strict=True):
        assert torch.equal(value, expected)
    assert capsys.readouterr().out.count("affine_head. and deformable_head.") == 1
    torch.save(network.state_dict(), tmp_path / "model.pt")
    ModelLoader(network, str(tmp_path / "model.pt"))()
    assert not capsys.readouterr().out


def test_a_folder_is_no_file_of_weights(tmp_path):
    with pytest.raises(InputError, match=f"{tmp_path} is a folder: pass the model.pt"):
        ModelLoader(torch.nn.Linear(1, 1), str(tmp_path))()
