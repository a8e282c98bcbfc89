"""Sources of imports as other people's libraries write them, and what a reader must make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from volfs.errors import BadInput
from volfs.ingest.readers import open_source
from volfs.ingest.source import Source, check_unchanged
from volfs.model.box import Box


def holds(source: Source, expected: np.ndarray, axes: str) -> None:
    """The description fits, and any box reads as numpy slices it, into new memory or given one."""
    found = source.description
    assert "".join(a.name for a in found.axes) == axes
    assert found.shape == expected.shape and found.dtype == expected.dtype and found.dtype.isnative
    assert len(found.scale) == len(found.grain) == len(found.shape) and min(found.grain) >= 1
    rng = np.random.default_rng(0)
    for attempt in range(6):
        edges = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in expected.shape]
        box = Box.whole(found.shape) if not attempt else Box(tuple(a for a, _ in edges), tuple(b for _, b in edges))
        seen = source.read(box)
        assert seen.dtype == expected.dtype and seen.dtype.isnative
        np.testing.assert_array_equal(seen, expected[box.slices()])
        for room in (box.shape, tuple(n + 3 for n in box.shape)):  # memory of its own, and a part of larger memory
            out = np.zeros(room, expected.dtype)[tuple(slice(n) for n in box.shape)]
            source.read_into(box, out)
            np.testing.assert_array_equal(out, seen)
    check_unchanged(source.fingerprint(), source.fingerprint())
    source.close()


def write_slices(folder: Path, planes: np.ndarray, ending: str = ".png", **options: Any) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for z, plane in enumerate(planes, start=8):  # z8, z9, z10: only natural order is right
        path = folder / f"stack z{z}{ending}"
        if ending.startswith(".tif"):
            tifffile.imwrite(path, plane, **options)
        elif ending == ".png" and plane.ndim == 3 and plane.dtype == np.uint16:
            path.write_bytes(imagecodecs.png_encode(plane))
        else:
            Image.fromarray(plane).save(path, **options)
        paths.append(path)
    return paths


def write_ome_set(folder: Path, data: np.ndarray, gone: Sequence[int] = ()) -> None:
    """An OME-TIFF over several files, one for each plane, ``z0.ome.tif`` and so on, without those that are gone."""
    ids = [f"urn:uuid:00000000-0000-0000-0000-00000000000{n}" for n in range(len(data))]
    planes = "".join(
        f'<TiffData FirstZ="{n}" IFD="0" PlaneCount="1"><UUID FileName="z{n}.ome.tif">{name}</UUID></TiffData>'
        for n, name in enumerate(ids)
    )
    for n, name in enumerate(ids):
        text = (
            f'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{name}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16" SizeX="30" SizeY="20" '
            f'SizeZ="{len(data)}" SizeC="1" SizeT="1" PhysicalSizeX="2">{planes}</Pixels></Image></OME>'
        )
        if n not in gone:
            tifffile.imwrite(folder / f"z{n}.ome.tif", data[n], description=text, metadata=None)


def nifti(path: Path, data: np.ndarray, *, zooms: tuple[float, ...], kind: Any = None, big: bool = False) -> np.ndarray:
    """Write ``data`` (i, j, k, …) with nibabel; returns the affine."""
    affine = np.array([[-zooms[0], 0, 0, 90], [0, zooms[1], 0, -126], [0, 0, zooms[2], -72], [0, 0, 0, 1.0]])
    header = (kind or nibabel.Nifti1Image).header_class(endianness=">" if big else "<")
    header.set_data_dtype(data.dtype.newbyteorder(">" if big else "<"))
    image = (kind or nibabel.Nifti1Image)(data, affine, header)
    image.header.set_zooms(zooms[: data.ndim])
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, path)
    return affine


def reads_bad(path: Path, match: str) -> None:
    """Opening or reading is refused in one line."""
    with pytest.raises(BadInput, match=match) as told:
        source = open_source([path])
        source.read(Box.whole(source.description.shape))
    assert "\n" not in str(told.value)


def itk_affine(image: Any) -> np.ndarray:
    """From (x, y, z, 1) to the space of the patient, as ITK itself says."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return affine


def write_slice(
    path: Path,
    plane: np.ndarray,
    z: float,
    *,
    series: str = "1.2.3",
    number: int | None = 4,
    instance: int = 1,
    step: tuple[float, float, float] = (0.0, 0.0, 1.0),
    **more: Any,
) -> None:
    """One slice, at ``z`` times ``step``."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    made.SOPInstanceUID = generate_uid()
    made.SeriesInstanceUID = series
    if number is not None:
        made.SeriesNumber = number
    made.SeriesDescription = "T1 axial"
    made.Modality = "MR"
    made.PatientName = "Somebody^Real"
    made.InstanceNumber = instance
    made.ImagePositionPatient = [-10 + z * step[0], 20 + z * step[1], z * step[2]]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.PixelSpacing = [0.5, 0.25]
    made.Rows, made.Columns = plane.shape[:2]
    made.SamplesPerPixel = 1 if plane.ndim == 2 else 3
    made.PhotometricInterpretation = "MONOCHROME2" if plane.ndim == 2 else "RGB"
    if plane.ndim == 3:
        made.PlanarConfiguration = 0
    made.BitsAllocated = made.BitsStored = plane.dtype.itemsize * 8
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(plane.dtype.kind == "i")
    made.PixelData = plane.tobytes()
    for key, value in more.items():
        setattr(made, key, value)
    made.save_as(path, enforce_file_format=True)


def write_series(folder: Path, data: np.ndarray, zs: list[float] | None = None, **more: Any) -> list[Path]:
    """Slices whose names are in no order that means anything."""
    folder.mkdir(exist_ok=True)
    names = np.random.default_rng(len(data)).permutation(len(data))
    series = more.pop("series", "1.2.3")
    paths = []
    for i, plane in enumerate(data):
        paths.append(folder / f"IM{names[i]}-{series}")
        write_slice(paths[-1], plane, zs[i] if zs else 2.5 * i, series=series, instance=i, **more)
    return paths
