# SPDX-License-Identifier: Apache-2.0

"""NIfTI files whose headers say where they lie in odd ways, DICOM series that lie oddly, and how ITK reads a place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])

CT, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"


def grid(size: Sequence[int], spacing: Sequence[float] = (1, 1, 1)) -> np.ndarray:
    """An affine matrix along the axes, centred."""
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -np.array(spacing) * (np.array(size) - 1) / 2
    return affine


def turned(angle: float, shift: Sequence[float] = (0, 0, 0)) -> np.ndarray:
    """A rotation about the first axis, radians, and a shift."""
    affine = np.eye(4)
    affine[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, 3] = shift
    return affine


def sheared(degrees: float) -> np.ndarray:
    """A shear of the second axis along the third."""
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(degrees))
    return affine


def header_kinds(affine: np.ndarray) -> dict[str, dict[str, Any]]:
    """
    What headers say where a scan lies, by kind.

    Args:
        affine: ``(4, 4)``, voxels to millimetres, without shear.

    Returns:
        arguments of :func:`write_header`.
    """
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    return {
        "ordinary": {"sform": affine},
        "codes are 0": {"sform": affine, "codes": (0, 0)},
        "only a qform": {"sform": affine, "codes": (0, 1)},
        "sform and qform differ": {"sform": turned(0.2, [10, -20, 15]) @ affine, "qform": affine, "codes": (2, 1)},
        "sform of a scanner and another qform": {
            "sform": turned(0.2, [5, 0, 9]) @ affine,
            "qform": affine,
            "codes": (1, 1),
        },
        "pixdim against sform": {"sform": affine, "codes": (2, 0), "pixdim": [1, 1, 1]},
        "sheared": {"sform": affine @ sheared(15), "codes": (1, 0), "pixdim": [*sizes[:2], sizes[2] * 1.0353]},
        "sheared with a qform": {"sform": affine @ sheared(15), "qform": affine, "codes": (2, 1)},
        "micrometres": {"sform": np.diag([1e3, 1e3, 1e3, 1.0]) @ affine, "xyzt_units": 3},
        "left-handed": {"sform": np.diag([-1, 1, 1, 1]) @ affine},
        "axes exchanged": {"sform": turned(0.3, [4, 5, 6]) @ affine @ np.eye(4)[[2, 0, 1, 3]]},
        "big-endian": {"sform": affine, "endianness": ">"},
    }


def write_header(
    path: Path,
    volume: np.ndarray,
    sform: np.ndarray,
    qform: np.ndarray | None = None,
    codes: tuple[int, int] = (1, 1),
    kind: type = nib.Nifti1Image,
    endianness: str = "<",
    **fields: Any,
) -> Path:
    """
    Write an uncompressed NIfTI file whose header says what is asked for, also what nibabel would not write.

    Args:
        path: destination, ``.nii``.
        volume: ``(D, H, W)`` or more axes.
        sform: ``(4, 4)``.
        qform: ``(4, 4)``, None for the sform without shear.
        codes: of sform and qform.
        kind: image class of nibabel.
        endianness: order of bytes, ">" or "<".
        fields: further fields of the header; ``pixdim`` is three voxel sizes.
    """
    header = kind(volume, np.eye(4)).header.as_byteswapped(endianness)
    header.set_qform(sform if qform is None else qform, 1, strip_shears=True)
    header.set_sform(sform, 1)
    header["sform_code"], header["qform_code"] = codes
    header["vox_offset"] = 352 if kind is nib.Nifti1Image else 544
    header["magic"] = b"n+1" if kind is nib.Nifti1Image else header["magic"]
    for name, value in fields.items():
        if name == "pixdim":
            header["pixdim"][1:4] = value
        else:
            header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.binaryblock + b"\0" * 4 + volume.astype(header.get_data_dtype()).tobytes(order="F"))
    return path


def as_itk_reads(path: Path) -> np.ndarray | None:
    """Voxels to millimetres, RAS, of the first three axes; None where SimpleITK refuses the file."""
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    n, affine = image.GetDimension(), np.eye(4)
    direction = np.array(image.GetDirection()).reshape(n, n) * np.array(image.GetSpacing())
    affine[:3, :3], affine[:3, 3] = direction[:3, :3], image.GetOrigin()[:3]
    return RAS_TO_LPS @ affine


def same(first: np.ndarray | None, second: np.ndarray | None, tolerance: float = 1e-3) -> bool:
    """Whether two affine matrices are alike, or both are missing."""
    if first is None or second is None:
        return first is second
    return bool(np.abs(first - second).max() <= tolerance * max(1.0, np.abs(first).max()))


def _item(volume: np.ndarray, kind: str, series: str, number: int) -> pydicom.Dataset:
    header = pydicom.dataset.FileMetaDataset()
    header.TransferSyntaxUID = ExplicitVRLittleEndian
    header.MediaStorageSOPClassUID, header.MediaStorageSOPInstanceUID = kind, generate_uid()
    item = pydicom.Dataset()
    item.file_meta = header
    item.SOPClassUID, item.SOPInstanceUID = kind, header.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.StudyInstanceUID, item.FrameOfReferenceUID = series, "1.2.3", "1.2.4"
    item.Modality, item.PatientID, item.InstanceNumber = "CT" if kind == CT else "MR", "phantom", number
    item.StudyDate, item.StudyTime, item.StudyID, item.SeriesNumber = "20240101", "120000", "1", 1
    item.Rows, item.Columns = volume.shape[1], volume.shape[0]
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    return item


def write_series(
    folder: Path,
    volume: np.ndarray,
    step: Sequence[float] = (0, 0, 2),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    pixel: Sequence[float] = (1, 1),
    origin: Sequence[float] = (0, 0, 0),
    order: Sequence[int] | None = None,
    places: Sequence[float] | None = None,
    uid: str | None = None,
    name: str = "image_{:03d}.dcm",
    scales: Sequence[float] | None = None,
    **attributes: Any,
) -> str:
    """
    Write a classic DICOM series.

    Args:
        folder: where to.
        volume: ``(columns, rows, slices)``, whole numbers.
        step: from slice to slice, millimetres, LPS.
        orientation: ImageOrientationPatient.
        pixel: PixelSpacing: between rows, between columns.
        origin: of the first slice.
        order: of the slices in the numbering of the files.
        places: of the slices, in steps; default 0, 1, 2, ...
        uid: of the series.
        name: of the files.
        scales: RescaleSlope of each slice.
        attributes: of every file.

    Returns:
        the UID.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uid = uid or generate_uid()
    for number, k in enumerate(range(volume.shape[2]) if order is None else order):
        item = _item(volume, CT, uid, number + 1)
        item.ImageOrientationPatient, item.PixelSpacing = list(orientation), list(pixel)
        place = k if places is None else places[k]
        item.ImagePositionPatient = [float(f"{v:.6f}") for v in np.array(origin) + place * np.array(step)]
        item.SliceThickness = float(np.linalg.norm(step))
        item.RescaleSlope, item.RescaleIntercept = 1 if scales is None else scales[k], 0
        for key, value in attributes.items():
            setattr(item, key, value)
        item.PixelData = volume[:, :, k].T.astype("<i2").tobytes()
        pydicom.dcmwrite(folder / name.format(number), item, enforce_file_format=True)
    return uid


def write_enhanced(
    path: Path,
    volume: np.ndarray,
    step: Sequence[float] = (0, 0, 2),
    order: Sequence[int] | None = None,
    scales: Sequence[float] | None = None,
) -> None:
    """Write an enhanced multi-frame MR file, see :func:`write_series`; ``order`` is that of the frames."""
    order = list(range(volume.shape[2]) if order is None else order)
    item = _item(volume, ENHANCED_MR, generate_uid(), 1)
    item.NumberOfFrames = len(order)

    def group(**values: Any) -> pydicom.Dataset:
        found = pydicom.Dataset()
        for key, value in values.items():
            setattr(found, key, value)
        return found

    orientation = Items([group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    measures = Items([group(PixelSpacing=[1, 1], SliceThickness=float(np.linalg.norm(step)))])
    item.SharedFunctionalGroupsSequence = Items(
        [group(PlaneOrientationSequence=orientation, PixelMeasuresSequence=measures)]
    )
    frames = []
    for number, k in enumerate(order):
        frame = group(
            PlanePositionSequence=Items([group(ImagePositionPatient=[float(v) for v in k * np.array(step)])]),
            FrameContentSequence=Items([group(DimensionIndexValues=[number + 1])]),
        )
        if scales is not None:
            values = group(RescaleSlope=float(scales[k]), RescaleIntercept=0.0, RescaleType="US")
            frame.PixelValueTransformationSequence = Items([values])
        frames.append(frame)
    item.PerFrameFunctionalGroupsSequence = Items(frames)
    item.PixelData = np.stack([volume[:, :, k].T for k in order]).astype("<i2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, item, enforce_file_format=True)
