# SPDX-License-Identifier: Apache-2.0
"""One line from a folder, a zip or a name to a pre-trained backbone, and from a scan to its features where they lie."""

from __future__ import annotations

import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import torch
from monai.bundle import ConfigParser, download
from monai.data import MetaTensor
from torch import nn

from ..errors import InputError, user_message
from ..files import load_file
from .find_weights import find_weights
from .weights import load_weights

MODEL, SETTINGS, CONFIG = "model.pt", "settings.json", Path("configs") / "inference.json"
BUNDLE = Path(__file__).resolve().parents[2]
"""The bundle that this code is part of, whose configuration a training run's settings complete."""

Backbone = TypeVar("Backbone", bound="Pretrained")


class Embedding(NamedTuple):
    """
    The features of a scan.

    Attributes:
        global_features: f^g, ``(Cg, d, h, w)``.
        local_features: f^l, ``(Cl, D, H, W)``, on the grid that the backbone sees.

    Both know where they lie: ``affine`` takes their voxels to the scan's millimetres (RAS).
    """

    global_features: MetaTensor
    local_features: MetaTensor


class Pretrained(nn.Module):
    """What every backbone has that can be loaded with its preprocessing."""

    preprocessing: Any = None

    @classmethod
    def from_pretrained(cls: type[Backbone], source: str | Path) -> Backbone:
        """
        Load a backbone with its weights, and the preprocessing they were made with.

        Args:
            source: the folder of a training run or of a bundle, its zip, a ``model.pt`` in one of these, all offline;
                or the name of a bundle of MONAI's model zoo, which is downloaded.

        Returns:
            the backbone, in evaluation mode.

        Raises:
            InputError: when there is no such thing; when the weights do not cover the network; for another backbone.
        """
        with _unpacked(source) as folder:
            model, configurations = _files(folder)
            parser = ConfigParser()
            try:
                parser.read_config([str(path) for path in configurations])
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{configurations[-1]} cannot be read ({error}): bring back what the training wrote"
                ) from error
            parser["bundle_root"] = str(configurations[0].parents[1])
            network = parser.get_parsed_content("network_def")
            load_weights(network, find_weights(load_file(model), network.state_dict(), model), model)
            backbone = network.backbone
            if not isinstance(backbone, cls):
                raise InputError(f"{source} holds a {type(backbone).__name__}: call {type(backbone).__name__} instead")
            backbone.preprocessing = parser.get_parsed_content("preprocessing")
        return cast(Backbone, backbone.eval())

    def embed(self, scan: str | Path) -> Embedding:
        """
        The features of a scan, prepared as the weights want it: orientation, voxel size, intensities, crop.

        Args:
            scan: a file, the folder of a DICOM series, or one of several series in a folder, ``folder/SERIES``.

        Returns:
            f^g and f^l, on the device of the weights.

        Raises:
            InputError: without the preprocessing that :meth:`from_pretrained` brings, or for a scan that cannot be
                used.
        """
        if self.preprocessing is None:
            raise InputError("this backbone does not know how scans are prepared: load it by from_pretrained")
        try:
            image = self.preprocessing({"image": str(scan)})["image"]
        except Exception as error:  # MONAI wraps what a transform raises
            message = user_message(error)
            if message is None:
                raise
            raise InputError(message) from error
        device = next(self.parameters()).device
        with torch.no_grad():
            found, local = self(image.as_tensor()[None].float().to(device))
        affine = image.affine.double()
        return Embedding(
            MetaTensor(found[0], affine=affine @ _coarse(list(image.shape[1:]), list(found.shape[2:]))),
            MetaTensor(local[0], affine=affine),
        )


def _coarse(size: list[int], coarse: list[int]) -> torch.Tensor:
    """
    Voxels of f^g to voxels of the image: the image is padded symmetrically to a multiple of both sizes' ratio.

    Args:
        size: of the image.
        coarse: of f^g.

    Returns:
        ``(4, 4)``.
    """
    matrix = torch.eye(len(size) + 1, dtype=torch.float64)
    for axis, (n, m) in enumerate(zip(size, coarse, strict=True)):
        ratio = 1
        while ratio * m < n:
            ratio *= 2
        matrix[axis, axis] = ratio
        matrix[axis, -1] = (ratio - 1) / 2 - (ratio * m - n) // 2
    return matrix


@contextmanager
def _unpacked(source: str | Path) -> Iterator[Path]:
    """The folder or file that a source names, for as long as it is needed."""
    path = Path(source)
    if path.suffix == ".zip" and path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            try:
                with zipfile.ZipFile(path) as archive:
                    archive.extractall(folder)
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(f"{path} cannot be unpacked ({error}): copy it anew") from error
            inner = sorted(Path(folder).rglob(str(CONFIG)))
            if not inner:
                raise InputError(f"{path} holds no bundle: {CONFIG} is not in it")
            yield inner[0].parents[1]
    elif path.exists():
        yield path
    elif path.suffix or len(path.parts) > 1:
        raise InputError(f"{path} does not exist: name a run's folder, a bundle, its zip or a bundle of the model zoo")
    else:
        cache = Path(torch.hub.get_dir()) / "bundle"
        try:
            download(name=str(source), bundle_dir=str(cache))
        except Exception as error:  # whatever the network, the server or MONAI makes of it
            raise InputError(
                f"{source} is neither a folder here nor a bundle that could be downloaded ({error})"
            ) from error
        yield cache / str(source)


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The weights, and the configurations that say what they are of."""
    if path.is_file():
        model = path
    else:
        model = next((path / part / MODEL for part in ("", "models") if (path / part / MODEL).is_file()), path / MODEL)
    if not model.is_file():
        raise InputError(f"{path} holds no {MODEL}: name the folder of a training run, or of a bundle")
    folder = Path(os.path.abspath(model)).parent
    settings, own = folder / SETTINGS, folder.parent / CONFIG
    if settings.is_file():
        return model, [BUNDLE / CONFIG, settings]
    if own.is_file():
        return model, [own]
    raise InputError(f"{model} lies neither beside a {SETTINGS} nor in a bundle: how scans are prepared is not known")
