# SPDX-License-Identifier: Apache-2.0
"""How scans are read, and whether they can be: one routine for every format, which checks where they lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import DtypeLike, KeysCollection
from monai.data.image_reader import ImageReader
from monai.transforms import LoadImage, LoadImaged, MapTransform
from monai.utils import MetaKeys, convert_to_dst_type, ensure_tuple

from ..errors import InputError
from .channels import channel_files
from .dicom_series import find_series
from .dicom_stack import read_pixels, stack
from .geometry import ScanGeometry, UnusableScan, other_grid
from .itk_files import ITK_ENDINGS, itk_geometry, read_itk
from .labels import ONE_VOLUME, as_codes
from .nifti_geometry import nifti_geometry, read_header, read_values
from .resampled_size import check_resampled

NIFTI_ENDINGS = (".nii", ".nii.gz")
UNREAD_ENDINGS = (".mgz", ".mgh", ".mnc", ".hdr", ".nii.bz2")
"""Of volumes that are not read."""
UNREAD = "is of a format that is not read: make it NIfTI, as with nibabel.save(nibabel.load(it), 'scan.nii.gz')"

STRAIGHTEN = "resample it to straight axes: NIfTI by nibabel.processing.resample_to_output, DICOM by dcm2niix (_Tilt)"
"""What helps where shear does not."""


class ScanReader(ImageReader):
    """
    MONAI reader of NIfTI files, DICOM series (a folder, a series of one, a file), NRRD and MetaImage files. The affine
    matrix is in millimetres whatever the file's unit; ``original_affine`` is the one that ITK-based tools give the same
    file, which MONAI Label writes with.
    """

    def verify_suffix(self, filename: Any) -> bool:
        """Every path is tried: what cannot be read is named."""
        return True

    def read(self, data: Any, **_: Any) -> tuple[ScanGeometry, np.ndarray]:
        """
        Args:
            data: a path.

        Returns:
            where the scan lies, and its values, see :func:`read_scan`.
        """
        (path,) = ensure_tuple(data)
        try:
            return read_scan(str(path))
        except UnusableScan as error:
            raise InputError(f"{path} {error}") from error

    def get_data(self, img: tuple[ScanGeometry, np.ndarray]) -> tuple[np.ndarray, dict]:
        """
        Args:
            img: of :meth:`read`.

        Returns:
            the values, ``(D, H, W)`` or ``(D, H, W, C)``, and MONAI's meta data.
        """
        geometry, array = img
        in_itk = geometry.affine if geometry.itk_affine is None else geometry.itk_affine
        return array, {
            MetaKeys.AFFINE: geometry.affine.copy(),
            MetaKeys.ORIGINAL_AFFINE: in_itk.copy(),
            MetaKeys.SPACE: "RAS",
            MetaKeys.SPATIAL_SHAPE: np.asarray(geometry.size),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan") if array.ndim == len(geometry.size) else -1,
        }


def scan_geometry(path: str) -> ScanGeometry:
    """
    Where a scan lies, from its header alone.

    Raises:
        UnusableScan: where that is not valid or not known.
    """
    if _is_file_of(path, NIFTI_ENDINGS):
        return nifti_geometry(path)
    if _is_file_of(path, ITK_ENDINGS):
        return itk_geometry(path)
    _refuse_unread(path)
    return stack(find_series(path))[0]


def read_scan(path: str) -> tuple[ScanGeometry, np.ndarray]:
    """
    Read a scan.

    Args:
        path: a NIfTI, NRRD or MetaImage file, a folder of one DICOM series, ``folder/SERIES`` or a DICOM file.

    Returns:
        its geometry, and its values as the file has them, ``(D, H, W)`` or ``(D, H, W, C)``.

    Raises:
        UnusableScan: see :func:`scan_geometry`; for complex numbers or colours.
    """
    if _is_file_of(path, NIFTI_ENDINGS):
        header = read_header(path)
        geometry = nifti_geometry(path, header)
        array, behind = read_values(path, header)
        if behind:
            geometry.notes["bytes left over"] = (
                f"goes on for {behind} bytes behind its voxels; if its header has a wrong size or type, correct it"
            )
        channels = [-1] if array.size > np.prod(geometry.size) else []
        array = array.reshape(*geometry.size, *channels, order="F")
        return geometry, array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if _is_file_of(path, ITK_ENDINGS):
        return read_itk(path)
    _refuse_unread(path)
    geometry, slices = stack(find_series(path))
    return geometry, read_pixels(slices)


def _is_file_of(path: str, endings: tuple[str, ...]) -> bool:
    return path.lower().endswith(endings) and not Path(path).is_dir()  # a folder of DICOM files may be called so


def _refuse_unread(path: str) -> None:
    if path.lower().endswith((*UNREAD_ENDINGS, ".img")) and Path(path).is_file():
        raise UnusableScan(UNREAD)


class LoadScan(LoadImage):
    """
    MONAI's ``LoadImage`` with :class:`ScanReader` as its one reader: MONAI's own makes every reader it knows, with
    their warnings, and asks them in turn. Channels come first.

    Args:
        dtype: of the values; None keeps the file's.
    """

    def __init__(self, dtype: DtypeLike = np.float32) -> None:
        self.readers, self.auto_select = [ScanReader()], True
        self.image_only, self.dtype, self.ensure_channel_first = True, dtype, True
        self.simple_keys, self.pattern, self.sep, self.expanduser = False, None, ".", True


class LoadScand(LoadImaged):
    """
    MONAI's ``LoadImaged`` with :class:`LoadScan`; what would be enormous, or vanish, at the voxel size that preparing
    brings it to is refused before memory is taken.

    Args:
        keys: of paths.
        pixdim: millimetres of the voxels that the scan will be resampled to; None for no such step.
        max_voxels: that it may have then; None for as many as this machine's memory takes, see
            :func:`~scripts.data.resampled_size.most_voxels`.
        allow_missing_keys: skip keys that are not there.
        dtype: of the values; None keeps the file's.
        label_keys: of label maps among the keys, whose codes stay the whole numbers they are, however large.
        channels: of the images, in their files or in files beside them, see :func:`~scripts.data.channel_files`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixdim: Sequence[float] | None = None,
        max_voxels: int | None = None,
        allow_missing_keys: bool = False,
        dtype: DtypeLike = np.float32,
        label_keys: Sequence[str] = ("label",),
        channels: int = 1,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self._loader, self.dtype, self.label_keys = LoadScan(None), dtype, label_keys
        self.meta_keys, self.meta_key_postfix = (None,) * len(self.keys), ("meta_dict",) * len(self.keys)
        self.overwriting = False
        self.pixdim, self.max_voxels, self.channels = pixdim, max_voxels, channels

    def __call__(self, data: Mapping[str, Any], reader: ImageReader | None = None) -> dict[str, Any]:
        """
        Args:
            data: paths by key; ``zoom`` makes the voxels of this scan so many times finer.
            reader: another one.

        Returns:
            the same with the scans, ``(C, D, H, W)``; a label map lies on the grid of its scan, which is the one under
            ``moving`` where there is one.

        Raises:
            InputError: for what cannot be read, or does not fit the voxel size; for a label map of another grid.
        """
        places: dict[Any, ScanGeometry] = {}
        for key in self.key_iterator(dict(data)):  # type: ignore[arg-type]
            try:
                geometry = places[key] = scan_geometry(str(data[key]))
                if self.pixdim is not None:
                    check_resampled(geometry, self.pixdim, self.max_voxels, float(data.get("zoom", 1.0)))
                if not self._loader.image_only and "shear" in geometry.notes:  # MONAI Label alone asks for meta data
                    raise UnusableScan(f"is sheared, which ITK cannot write: {STRAIGHTEN}")
            except UnusableScan as error:
                raise InputError(f"{data[key]} {error}") from error
            except FileNotFoundError as error:
                raise InputError(f"{data[key]} does not exist: correct its path") from error
        loaded = super().__call__(data, reader)
        for key in self.key_iterator(loaded):
            if self.channels > 1 and key not in self.label_keys:
                loaded[key] = self._all_channels(loaded[key], str(data[key]))
            loaded[key] = self._typed(key, loaded[key], data[key])
            of = "moving" if "moving" in places else "image"
            if key in self.label_keys and of in places:
                wrong = other_grid(places[key], places[of])
                if wrong:
                    raise InputError(f"{data[key]} does not lie on its scan {data[of]} {wrong}")
                loaded[key].affine = places[of].affine
        return loaded

    def _all_channels(self, image: Any, path: str) -> Any:
        """An image with the channels of the files beside its own."""
        further = [self._loader(file) for file in channel_files(path, self.channels)[1:] if Path(file).exists()]
        if any(part.shape != image.shape for part in further):
            raise InputError(f"{path} and the further channels beside it are of different sizes: resample them")
        both = torch.cat([image, *further]) if further else image
        if len(both) != self.channels:
            raise InputError(
                f"{path} has {len(both)} of {self.channels} channels: store all in it, or a file each: case_0000, "
                "case_0001 and so on"
            )
        return both

    def _as_image(self, values: Any, path: Any) -> Any:
        """An image in the type asked for, of which nothing is lost by it; what a folder holds was checked before."""
        if len(values) != self.channels:
            raise InputError(f"{path} holds {len(values)} volumes or colours; store one scan a file")
        if values.ndim != 4:
            raise InputError(f"{path} has {values.ndim - 1} axes; store its slices as one volume")
        image = values if self.dtype is None else convert_to_dst_type(values, values, dtype=self.dtype)[0]
        if not torch.as_tensor(image).isfinite().all():
            raise InputError(f"{path} has voxels that are NaN, infinite, or too large for {image.dtype}")
        return image

    def _typed(self, key: str, values: Any, path: Any) -> Any:
        """The values in the type asked for; label codes as float64, which PyTorch resamples and which is exact."""
        if key not in self.label_keys:
            return self._as_image(values, path)
        if len(values) > 1:
            raise InputError(f"{path} holds {len(values)} {ONE_VOLUME}")
        try:
            codes = as_codes(np.asarray(values)).astype(np.float64)
        except ValueError as error:
            raise InputError(f"{path} {error}") from error
        return convert_to_dst_type(codes, values, dtype=np.float64)[0]
