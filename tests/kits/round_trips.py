"""What of a source's facts every format shows: images with many facts, written by independent programs, imported, and
read back by independent programs from all that a mount shows.

``python -m tests.kits.round_trips`` writes the table in ``docs/formats.md`` from what is measured;
``tests/ingest/test_round_trips.py`` fails where the table and the measurement differ.
"""

from __future__ import annotations

import json
import math
import struct
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import nibabel
import nrrd
import numpy as np
import pybdv
import pydicom
import SimpleITK as sitk
import tifffile
import zarr
from cloudvolume import CloudVolume
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

import volfs
from tests.kits.paths import DOCS
from volfs.export import export, wanted, wanted_path
from volfs.ingest.importer import import_source
from volfs.ingest.readers import open_source

PAGE = DOCS / "formats.md"
BEGIN, END = "<!-- python -m tests.kits.round_trips -->", "<!-- to here -->"

FACTS = {
    "size": "S",
    "step": "T",
    "position": "P",
    "orientation": "O",
    "rescale": "R",
    "segmentation": "L",
    "names": "N",
    "channels": "C",
    "colours": "K",
    "pairs": "M",
    "header": "H",
}
"""Facts, and their letters in the table. Sizes and positions are in metres, x, y, z; a step in seconds; an orientation
is a matrix to millimetres right, anterior and superior."""

Facts = dict[str, Any]
Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """An image in a file of some format, and what it says. ``header`` reads what only that format has."""

    kind: str
    write: Callable[[Path], Path]
    facts: Facts
    header: Callable[[Path], Any] | None = None


def voxels(shape: tuple[int, ...], dtype: str = "i2") -> Array:
    return np.random.default_rng(1).integers(0, 99, shape).astype(dtype)


TURN = np.array([[0.0, -3.0, 0.0, 10.0], [2.0, 0.0, 0.0, -20.0], [0.0, 0.0, 4.0, 5.0]])
"""x, y, z in millimetres: sizes 2, 3, 4."""
MM, UM, NM, ANGSTROM = 1e-3, 1e-6, 1e-9, 1e-10
SIZE_MM = {"x": 2e-3, "y": 3e-3, "z": 4e-3}

# ------------------------------------------------------------------------------------------------------ what comes in


def nifti(dtype: str = "i2", **fields: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image = nibabel.Nifti1Image(voxels((6, 5, 4), dtype), None)
        image.set_sform(np.vstack([TURN, [0, 0, 0, 1]]), 4)
        image.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), 1)
        image.header.set_xyzt_units("mm", "sec")
        for key, value in fields.items():
            image.header[key] = value
        if "scl_slope" in fields:
            image.header.set_slope_inter(fields["scl_slope"], fields["scl_inter"])
        nibabel.save(image, folder / "a.nii")
        return folder / "a.nii"

    return write


def raw_header(path: Path) -> Any:
    """Images of nibabel forget their slope."""
    with path.open("rb") as file:
        kind = nibabel.Nifti2Header if file.read(4) == struct.pack("<i", 540) else nibabel.Nifti1Header
        file.seek(0)
        return kind.from_fileobj(file)


def nifti_header(path: Path) -> Any:
    header = raw_header(path)
    told = ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    told += ("srow_x", "srow_y", "srow_z", "pixdim", "intent_code", "intent_p1", "descrip", "aux_file", "cal_max")
    return {name: np.asarray(header[name]).tolist() for name in told}


def nifti_of_time(folder: Path) -> Path:
    image = nibabel.Nifti1Image(voxels((6, 5, 4, 3)), None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    image.header.set_zooms((2, 3, 4, 0.5))
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, folder / "a.nii")
    return folder / "a.nii"


def nrrd_text(lines: str, shape: tuple[int, ...]) -> Callable[[Path], Path]:
    """Written by hand: pynrrd orders and reformats what it is given."""

    def write(folder: Path) -> Path:
        sizes = " ".join(map(str, shape[::-1]))
        head = (
            f"NRRD0005\ntype: int16\ndimension: {len(shape)}\nsizes: {sizes}\nencoding: raw\nendian: little\n{lines}\n"
        )
        (folder / "a.nrrd").write_bytes(head.encode() + b"\n" + voxels(shape).astype("<i2").tobytes())
        return folder / "a.nrrd"

    return write


def nrrd_header(path: Path) -> Any:
    header = nrrd.read_header(str(path))
    told = ("space", "space directions", "space origin", "measurement frame", "kinds", "centerings", "spacings")
    told += ("axis mins", "sample units")
    return {name: np.asarray(header[name]).tolist() for name in told if name in header}


NRRD_ORIENTED = (
    "space: right-anterior-superior\nspace directions: (0,2,0) (-3,0,0) (0,0,4)\nspace origin: (10,-20,5)\n"
    "measurement frame: (1,0,0) (0,-1,0) (0,0,1)\nkinds: space space space\ncenterings: node node cell\n"
    "sample units: HU\nRescaleSlope:=2.5\nRescaleIntercept:=-1024\nwho:=me"
)
NRRD_BY_AXIS = (
    'spacings: 2 3 4\naxis mins: 10 20 30\ncenterings: node node node\nunits: "mm" "mm" "mm"\n'
    "kinds: domain domain domain"
)
NRRD_SEGMENTS = (
    "space: left-posterior-superior\nspace directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (0,0,0)\n"
    "Segment0_ID:=Segment_1\nSegment0_Name:=liver\nSegment0_LabelValue:=7\nSegment0_Color:=1 0 0.5"
)


def metaimage(folder: Path) -> Path:
    image = sitk.GetImageFromArray(voxels((4, 5, 6)))
    image.SetSpacing((2.0, 3.0, 4.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetMetaData("who", "me")
    image.SetMetaData("RescaleSlope", "2.5")
    image.SetMetaData("RescaleIntercept", "-1024")
    sitk.WriteImage(image, str(folder / "a.mha"))
    path = folder / "a.mha"
    raw = path.read_bytes()
    mark = b"CenterOfRotation = 0 0 0"
    assert mark in raw
    head = raw.replace(mark, b"CenterOfRotation = 1 2 3\nDistanceUnits = mm", 1)
    path.write_bytes(head)
    return path


def metaimage_header(path: Path) -> Any:
    lines = dict(
        line.split(" = ", 1) for line in path.read_bytes().decode("latin1").split("ElementDataFile")[0].splitlines()
    )
    told = ("CenterOfRotation", "AnatomicalOrientation", "TransformMatrix", "Offset", "ElementSpacing")
    return {key: lines[key].strip() for key in told}


def mrc(folder: Path) -> Path:
    with mrcfile.new(folder / "a.mrc") as file:
        file.set_data(voxels((4, 5, 6)))
        file.header.mx, file.header.my, file.header.mz = 12, 10, 16
        file.header.cella = (24, 30, 64)
        file.header.cellb = (90, 80, 70)
        file.header.nxstart, file.header.nystart, file.header.nzstart = 5, 6, 7
        file.header.ispg = 19
        file.add_label("one")
        file.add_label("two")
    return folder / "a.mrc"


def mrc_header(path: Path) -> Any:
    with mrcfile.open(path, header_only=True) as file:
        told = ("nxstart", "nystart", "nzstart", "mx", "my", "mz", "cella", "cellb", "origin", "ispg", "mapc")
        found = {name: file.header[name].tolist() for name in told}
        return {**found, "labels": [label.split("  ")[0][:3] for label in file.get_labels()]}


def dicom(folder: Path) -> Path:
    series = folder / "ct"
    series.mkdir()
    for z, plane in enumerate(voxels((4, 5, 6))):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = f"1.2.{z + 1}"
        made = pydicom.Dataset()
        made.file_meta, made.SOPClassUID, made.SOPInstanceUID = meta, CTImageStorage, f"1.2.{z + 1}"
        made.Modality, made.SeriesInstanceUID, made.InstanceNumber = "CT", "1.2.3", z
        made.ImagePositionPatient, made.ImageOrientationPatient = [-10, 20, 5 + 4 * z], [0, -1, 0, 1, 0, 0]
        made.PixelSpacing = [3, 2]
        made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 5, 6, 1, "MONOCHROME2"
        made.BitsAllocated = made.BitsStored = 16
        made.HighBit, made.PixelRepresentation = 15, 1
        made.RescaleSlope, made.RescaleIntercept, made.RescaleType = 2.5, -1024, "HU"
        made.PixelData = plane.tobytes()
        made.save_as(series / f"{z}.dcm", enforce_file_format=True)
    return series


def netcdf(folder: Path) -> Path:
    """Coordinates as netCDF 4 keeps them: dimension scales."""
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("data", data=voxels((4, 5, 6), "u2"))
        for dim, count, name in zip(data.dims, data.shape, "zyx", strict=True):
            file[name] = (PLACE_UM[name] + SIZE_UM[name] * np.arange(count)) / UM
            file[name].attrs["units"] = "um"
            file[name].make_scale(name)
            dim.attach_scale(file[name])
    return folder / "a.h5"


def hdf5(labels: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            data = file.create_dataset("data", data=voxels((4, 5, 6), "u2"))
            data.attrs["element_size_um"] = [4.0, 3.0, 2.0]
            if labels:
                data.attrs["display_mode"] = b"random-colortable"
            else:
                data.attrs["scale_factor"], data.attrs["add_offset"] = 2.5, -1024.0
        return folder / "a.h5"

    return write


def ome_tiff(folder: Path) -> Path:
    told: dict[str, Any] = {"axes": "TZCYX", "TimeIncrement": 0.5, "TimeIncrementUnit": "s"}
    for letter, size in (("X", 2), ("Y", 3), ("Z", 4)):
        told |= {f"PhysicalSize{letter}": size, f"PhysicalSize{letter}Unit": "µm"}
    told["Channel"] = {"Name": ["DAPI", "GFP"], "Color": [struct.unpack(">i", bytes((0, 0, 255, 255)))[0], 16711935]}
    tifffile.imwrite(folder / "a.ome.tif", voxels((3, 4, 2, 5, 6), "u2"), metadata=told, photometric="minisblack")
    return folder / "a.ome.tif"


def imagej(folder: Path) -> Path:
    told = {
        "axes": "TZCYX",
        "spacing": 4.0,
        "unit": "um",
        "finterval": 0.5,
        "Info": "who = me",
        "c0": -1024.0,
        "c1": 2.5,
    }
    told |= {"cf": 0, "vunit": "HU", "Labels": [f"plane {n}" for n in range(24)]}
    path = folder / "a.tif"
    tifffile.imwrite(path, voxels((3, 4, 2, 5, 6), "u2"), imagej=True, resolution=(1 / 2, 1 / 3), metadata=told)
    return path


def imagej_header(path: Path) -> Any:
    with tifffile.TiffFile(path) as file:
        told = file.imagej_metadata or {}
        return {name: told.get(name) for name in ("Info", "c0", "c1", "vunit", "Labels")}


def ome_zarr(version: str, labels: bool = False) -> Callable[[Path], Path]:
    def block(axes: str, **more: Any) -> dict[str, Any]:
        kinds = {"t": ("time", "second"), "c": ("channel", None)}
        named = [(n, *kinds.get(n, ("space", "micrometer"))) for n in axes]
        scale = [{"t": 0.5, "c": 1.0, "z": 4.0, "y": 3.0, "x": 2.0}[n] for n in axes]
        shift = [{"z": 30.0, "y": 20.0, "x": 10.0}.get(n, 0.0) for n in axes]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        listed = [{"name": n, "type": kind, **({"unit": unit} if unit else {})} for n, kind, unit in named]
        multiscale = {"name": "a", "axes": listed, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
        if version == "0.5":
            return {"ome": {"version": "0.5", "multiscales": [multiscale], **more}}
        return {"multiscales": [{**multiscale, "version": "0.4"}], **more}

    def write(folder: Path) -> Path:
        form: Any = 3 if version == "0.5" else 2
        group = zarr.create_group(str(folder / "a.zarr"), zarr_format=form)
        axes, shape = ("zyx", (4, 5, 6)) if labels else ("tczyx", (3, 2, 4, 5, 6))
        names = {"dimension_names": list(axes)} if form == 3 else {}
        made = group.create_array("0", shape=shape, dtype="u2", chunks=shape, **names)
        made[...] = voxels(shape, "u2")
        if labels:
            about = {"colors": [{"label-value": 7, "rgba": [255, 0, 128, 255]}]}
            group.attrs.update(
                block(axes, **{"image-label": {**about, "properties": [{"label-value": 7, "name": "liver"}]}})
            )
        else:
            channels = [{"label": "DAPI", "color": "0000FF"}, {"label": "GFP", "color": "00FF00"}]
            group.attrs.update(block(axes, omero={"channels": channels}) | {"who": "me"})
        return folder / "a.zarr"

    return write


def n5(folder: Path) -> Path:
    data = voxels((4, 5, 6), "u2")
    transform = {
        "axes": ["z", "y", "x"],
        "scale": [4.0, 3.0, 2.0],
        "translate": [30.0, 20.0, 10.0],
        "units": ["um"] * 3,
    }
    told: dict[str, Any] = {
        "dimensions": [6, 5, 4],
        "blockSize": [6, 5, 4],
        "dataType": "uint16",
        "transform": transform,
    }
    told |= {"compression": {"type": "raw"}, "painteraData": {"type": "label"}}
    place = folder / "a.n5" / "seg"
    (place / "0/0").mkdir(parents=True)
    (place / "attributes.json").write_text(json.dumps(told))
    (place / "0/0/0").write_bytes(struct.pack(">HH3I", 0, 3, 6, 5, 4) + data.astype(">u2").tobytes())
    return place


def bdv(folder: Path) -> Path:
    for c, name in enumerate(("DAPI", "GFP")):
        pybdv.make_bdv(
            voxels((4, 5, 6), "u2"),
            str(folder / "a.n5"),
            resolution=[4.0, 3.0, 2.0],
            unit="um",
            setup_id=c,
            affine=[float(n) for n in (2, 0, 0, 10, 0, 3, 0, 20, 0, 0, 4, 30)],
            attributes={"channel": {"id": c, "name": name}},
        )
    return folder / "a.xml"


def precomputed(folder: Path) -> Path:
    place = folder / "a"
    info = CloudVolume.create_new_info(1, "segmentation", "uint32", "raw", [2, 3, 4], [5, 10, 10], [6, 5, 4], [6, 5, 4])
    info["segment_properties"] = "names"
    volume = CloudVolume(f"file://{place}", info=info, compress=False, progress=False)
    volume.commit_info()
    volume[:, :, :] = voxels((4, 5, 6), "u4").transpose()[..., None]
    (place / "names").mkdir()
    inline = {"ids": ["7"], "properties": [{"id": "label", "type": "label", "values": ["liver"]}]}
    (place / "names/info").write_text(json.dumps({"@type": "neuroglancer_segment_properties", "inline": inline}))
    return place


def imaris(folder: Path) -> Path:
    def text(value: object) -> Array:
        return np.frombuffer(str(value).encode(), "S1")

    with h5py.File(folder / "a.ims", "w") as file:
        about = file.create_group("DataSetInfo/Image")
        ends = {
            "ExtMin0": 10,
            "ExtMin1": 20,
            "ExtMin2": 30,
            "ExtMax0": 10 + 6 * 2,
            "ExtMax1": 20 + 5 * 3,
            "ExtMax2": 30 + 16,
        }
        for key, value in {"X": 6, "Y": 5, "Z": 4, "Unit": "um", **ends}.items():
            about.attrs[key] = text(value)
        for c, (name, colour) in enumerate((("DAPI", "0 0 1"), ("GFP", "0 1 0"))):
            channel = file.create_group(f"DataSetInfo/Channel {c}")
            channel.attrs["Name"], channel.attrs["Color"] = text(name), text(colour)
            padded = np.zeros((4, 8, 8), "u2")
            padded[:, :5, :6] = voxels((4, 5, 6), "u2")
            file.create_dataset(f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {c}/Data", data=padded)
            group = file[f"DataSet/ResolutionLevel 0/TimePoint 0/Channel {c}"]
            for letter, n in zip("XYZ", (6, 5, 4), strict=True):
                group.attrs[f"ImageSize{letter}"] = text(n)
    return folder / "a.ims"


ORIENTATION = TURN.tolist()
SIZE_UM = {"x": 2e-6, "y": 3e-6, "z": 4e-6}
PLACE_UM = {"x": 10e-6, "y": 20e-6, "z": 30e-6}
SCALED = {"rescale": (2.5, -1024.0)}
NAMED = {"segmentation": True, "names": {7: "liver"}}
CHANNELS = {"channels": ["DAPI", "GFP"], "colours": ["0000FF", "00FF00"]}
MINE = {"pairs": {"who": "me"}}

SAMPLES = (
    Sample(
        "NIfTI",
        nifti(scl_slope=2.5, scl_inter=-1024, descrip=b"a head", aux_file=b"other", cal_max=9.0, intent_p1=3.0),
        {"size": SIZE_MM, "orientation": ORIENTATION, **SCALED},
        nifti_header,
    ),
    Sample("NIfTI", nifti("u1", intent_code=1002), {"size": SIZE_MM, "segmentation": True}, nifti_header),
    Sample("NIfTI", nifti_of_time, {"size": SIZE_MM, "step": 0.5}, nifti_header),
    Sample(
        "NRRD",
        nrrd_text(NRRD_ORIENTED, (4, 5, 6)),
        {"size": SIZE_MM, "orientation": ORIENTATION, **SCALED, **MINE},
        nrrd_header,
    ),
    Sample(
        "NRRD",
        nrrd_text(NRRD_BY_AXIS, (4, 5, 6)),
        {"size": SIZE_MM, "position": {"x": 0.01, "y": 0.02, "z": 0.03}},
        nrrd_header,
    ),
    Sample("NRRD", nrrd_text(NRRD_SEGMENTS, (4, 5, 6)), {"size": SIZE_MM, **NAMED}),
    Sample("MetaImage", metaimage, {"size": SIZE_MM, "orientation": ORIENTATION, **SCALED, **MINE}, metaimage_header),
    Sample(
        "MRC",
        mrc,
        {"size": {"x": 2e-10, "y": 3e-10, "z": 4e-10}, "position": {"x": 1e-9, "y": 1.8e-9, "z": 2.8e-9}},
        mrc_header,
    ),
    Sample("DICOM", dicom, {"size": SIZE_MM, "orientation": ORIENTATION, **SCALED}),
    Sample("HDF5", hdf5(False), {"size": SIZE_UM, **SCALED}),
    Sample("HDF5", netcdf, {"size": SIZE_UM, "position": PLACE_UM}),
    Sample("HDF5", hdf5(True), {"size": SIZE_UM, "segmentation": True}),
    Sample("OME-TIFF", ome_tiff, {"size": SIZE_UM, "step": 0.5, **CHANNELS}),
    Sample("ImageJ TIFF", imagej, {"size": SIZE_UM, "step": 0.5, **SCALED}, imagej_header),
    Sample("OME-Zarr", ome_zarr("0.5"), {"size": SIZE_UM, "step": 0.5, "position": PLACE_UM, **CHANNELS, **MINE}),
    Sample("OME-Zarr", ome_zarr("0.5", True), {"size": SIZE_UM, "position": PLACE_UM, **NAMED}),
    Sample("OME-Zarr", ome_zarr("0.4"), {"size": SIZE_UM, "step": 0.5, "position": PLACE_UM, **CHANNELS, **MINE}),
    Sample("N5", n5, {"size": SIZE_UM, "position": PLACE_UM, "segmentation": True}),
    Sample("BigDataViewer", bdv, {"size": SIZE_UM, "position": PLACE_UM, "channels": ["DAPI", "GFP"]}),
    Sample(
        "precomputed",
        precomputed,
        {"size": {"x": 2e-9, "y": 3e-9, "z": 4e-9}, "position": {"x": 1e-8, "y": 3e-8, "z": 4e-8}, **NAMED},
    ),
    Sample("Imaris", imaris, {"size": SIZE_UM, "position": PLACE_UM, **CHANNELS}),
)

# ----------------------------------------------------------------------------------------------------- what comes out

LPS = np.diag([-1.0, -1.0, 1.0])


def of_nifti(path: Path) -> Facts:
    image = nibabel.load(path)
    header = raw_header(path)
    unit = {"mm": MM, "meter": 1.0, "micron": UM}.get(header.get_xyzt_units()[0])
    zooms = header.get_zooms()
    found: Facts = {"segmentation": int(header["intent_code"]) == 1002}
    if unit is not None:
        found["size"] = {name: float(zooms[i]) * unit for i, name in enumerate("xyz")}
    if int(header["sform_code"]):
        found["orientation"] = image.affine[:3].tolist()
        found["position"] = {name: float(image.affine[i, 3]) * MM for i, name in enumerate("xyz")}
    if len(zooms) > 3 and header.get_xyzt_units()[1] == "sec":
        found["step"] = float(zooms[3])
    found["rescale"] = (float(header["scl_slope"]), float(header["scl_inter"]))
    return found


def of_nrrd(path: Path) -> Facts:
    image, header = sitk.ReadImage(str(path)), nrrd.read_header(str(path))
    return _itk(image, {key: str(header[key]) for key in header}, known=bool({"space units", "units"} & header.keys()))


def of_metaimage(path: Path) -> Facts:
    image = sitk.ReadImage(str(path))
    raw = path.read_bytes()[:4096]
    return _itk(
        image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}, known=b"DistanceUnits = mm" in raw
    )


def _itk(image: sitk.Image, pairs: Mapping[str, str], *, known: bool) -> Facts:
    found: Facts = {"pairs": dict(pairs)}
    if known:
        found["size"] = {name: image.GetSpacing()[i] * MM for i, name in enumerate("xyz")}
        found["position"] = {name: image.GetOrigin()[i] * MM for i, name in enumerate("xyz")}
        if image.GetDimension() >= 4:
            found["step"] = image.GetSpacing()[-1]
    if image.GetDimension() == 3:
        steps = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
        found["orientation"] = np.column_stack((LPS @ steps, LPS @ image.GetOrigin())).tolist()
    if "RescaleSlope" in pairs:
        found["rescale"] = (float(pairs["RescaleSlope"]), float(pairs["RescaleIntercept"]))
    return found


def of_mrc(path: Path) -> Facts:
    with mrcfile.open(path, header_only=True) as file:
        size, origin, header = file.voxel_size, file.header.origin, file.header
        starts = (header.nxstart, header.nystart, header.nzstart)
        found: Facts = {"size": {name: float(size[name]) * ANGSTROM for name in "xyz"}}
        at = {name: float(origin[name]) or float(start * size[name]) for name, start in zip("xyz", starts, strict=True)}
        found["position"] = {name: value * ANGSTROM for name, value in at.items()}
        return found


def of_tiff(path: Path) -> Facts:
    with tifffile.TiffFile(path) as file:
        found: Facts = {}
        if file.ome_metadata:
            pixels = ET.fromstring(file.ome_metadata).find(".//{*}Pixels")
            assert pixels is not None
            units = {"µm": UM, "mm": MM, "nm": NM, "Å": ANGSTROM}
            sizes = {name: pixels.get(f"PhysicalSize{name.upper()}") for name in "xyz"}
            if all(sizes.values()) and pixels.get("PhysicalSizeXUnit") in units:
                by = units[str(pixels.get("PhysicalSizeXUnit"))]
                found["size"] = {name: float(size or "nan") * by for name, size in sizes.items()}
            if pixels.get("TimeIncrement") and pixels.get("TimeIncrementUnit", "s") == "s":
                found["step"] = float(str(pixels.get("TimeIncrement")))
            channels = pixels.findall("{*}Channel")
            found["channels"] = [channel.get("Name") for channel in channels]
            colours = [int(channel.get("Color", "-1")) for channel in channels]
            found["colours"] = [f"{(colour & 0xFFFFFFFF) >> 8:06X}" for colour in colours]
        told = file.imagej_metadata or {}
        if "c1" in told:
            found["rescale"] = (float(told["c1"]), float(told["c0"]))
        if {"xorigin", "yorigin", "zorigin"} <= told.keys() and "size" in found:
            found["position"] = {name: -float(told[f"{name}origin"]) * found["size"][name] for name in "xyz"}
        pairs = (line.partition(" = ") for line in str(told.get("Info", "")).splitlines())
        found["pairs"] = {key: value for key, mark, value in pairs if mark}
        return found


def of_hdf5(path: Path) -> Facts:
    with h5py.File(path) as file:
        told = dict(file["data"].attrs)
    found: Facts = {"segmentation": told.get("display_mode") == "random-colortable"}
    if "element_size_um" in told:
        found["size"] = {name: float(size) * UM for name, size in zip("zyx", told["element_size_um"], strict=True)}
    tags = {tag["key"]: tag["resolution"] for tag in json.loads(told["axistags"])["axes"]}
    if json.loads(told.get("axis_units", "{}")).get("t") == "second":
        found["step"] = tags["t"]
    if "scale_factor" in told:
        found["rescale"] = (float(told["scale_factor"]), float(told["add_offset"]))
    return found


METRES = {"nanometer": NM, "micrometer": UM, "millimeter": MM, "angstrom": ANGSTROM}


def of_raw(path: Path) -> Facts:
    told = json.loads(path.read_text())
    by = dict(zip(told["axes"], zip(told["voxel_size"], told["origin"], told["units"], strict=True), strict=True))
    found: Facts = {"segmentation": told["kind"] == "labels", "channels": told.get("channels")}
    found["size"] = {name: by[name][0] * METRES.get(by[name][2], math.nan) for name in "xyz"}
    found["position"] = {name: by[name][1] * METRES.get(by[name][2], math.nan) for name in "xyz"}
    found["step"] = by["t"][0] if by.get("t", (0, 0, ""))[2] == "second" else None
    if "rescale" in told:
        found["rescale"] = (told["rescale"]["slope"], told["rescale"]["intercept"])
    found["orientation"] = told.get("affine_mm")
    return found


def of_zarr(path: Path) -> Facts:
    told = zarr.open_group(path, mode="r").attrs.asdict()
    ome, own = told.get("ome", told), told.get("volfs", {})
    block = ome["multiscales"][0]
    steps = {one["type"]: one[one["type"]] for one in block["datasets"][0]["coordinateTransformations"]}
    axes = {one["name"]: (i, one.get("unit")) for i, one in enumerate(block["axes"])}
    shift = steps.get("translation", [0.0] * len(axes))
    found: Facts = {"segmentation": "image-label" in ome}
    found["size"] = {name: steps["scale"][axes[name][0]] * METRES.get(axes[name][1], math.nan) for name in "xyz"}
    found["position"] = {name: shift[axes[name][0]] * METRES.get(axes[name][1], math.nan) for name in "xyz"}
    if axes.get("t", (0, ""))[1] == "second":
        found["step"] = steps["scale"][axes["t"][0]]
    channels = ome.get("omero", {}).get("channels", [])
    found["channels"] = [channel.get("label") for channel in channels]
    found["colours"] = [channel.get("color") for channel in channels]
    properties = ome.get("image-label", {}).get("properties", [])
    found["names"] = {one["label-value"]: one.get("name") for one in properties}
    if "rescale" in own:
        found["rescale"] = (own["rescale"]["slope"], own["rescale"]["intercept"])
    source = own.get("source", {})
    if "affine" in source:
        sides = LPS if source["format"] in ("dicom", "metaimage") else np.eye(3)
        found["orientation"] = (sides @ np.array(source["affine"])[:3]).tolist()
    found["pairs"] = {
        key: value for key, value in {**told, **source.get("notes", {})}.items() if isinstance(value, str)
    }
    return found


def of_bdv(path: Path) -> Facts:
    root = ET.parse(path).getroot()
    unit = {"µm": UM, "mm": MM, "nm": NM, "angstrom": ANGSTROM}.get(root.findtext(".//voxelSize/unit", ""))
    found: Facts = {}
    if unit is not None:
        sizes = [float(n) * unit for n in root.findtext(".//voxelSize/size", "").split()]
        rows = np.reshape([float(n) for n in root.findtext(".//ViewTransform/affine", "").split()], (3, 4))
        found["size"] = dict(zip("xyz", sizes, strict=True))
        found["position"] = dict(zip("xyz", (rows[:, 3] * unit).tolist(), strict=True))
    found["channels"] = [one.findtext("name") for one in root.findall(".//Attributes[@name='channel']/Channel")]
    return found


def of_precomputed(path: Path) -> Facts:
    if not (path / "info").exists():
        path = path / "t0000"
    volume = CloudVolume(f"file://{path}", progress=False)
    size = dict(zip("xyz", (float(n) * NM for n in volume.resolution), strict=True))
    found: Facts = {"size": size, "segmentation": volume.layer_type == "segmentation"}
    found["position"] = {name: int(at) * size[name] for name, at in zip("xyz", volume.voxel_offset, strict=True)}
    names = path / str(volume.info.get("segment_properties", "none")) / "info"
    if names.exists():
        inline = json.loads(names.read_text())["inline"]
        found["names"] = dict(zip(map(int, inline["ids"]), inline["properties"][0]["values"], strict=True))
    return found


OUT: dict[str, tuple[str, Callable[[Path], Facts], str]] = {
    ".tif": ("s0/volume.tif", of_tiff, "OME-TIFF, ImageJ TIFF"),
    ".nii": ("s0/volume.nii", of_nifti, "NIfTI"),
    ".nrrd": ("s0/volume.nrrd", of_nrrd, "NRRD"),
    ".mha": ("s0/volume.mha", of_metaimage, "MetaImage"),
    ".mrc": ("s0/volume.mrc", of_mrc, "MRC"),
    ".h5": ("s0/volume.h5", of_hdf5, "HDF5"),
    ".raw.json": ("s0/volume.raw.json", of_raw, ""),
    "zarr": ("zarr", of_zarr, "OME-Zarr"),
    "v2.zarr": ("formats/{name}.v2.zarr", of_zarr, "OME-Zarr"),
    "n5, xml": ("formats/{name}.xml", of_bdv, ""),
    "precomputed": ("formats/{name}.precomputed", of_precomputed, "precomputed"),
}
"""What is shown: its place in a snapshot, how an independent program reads it, and the formats that it is itself."""

# ------------------------------------------------------------------------------------------------------------ measuring


def same(expected: Any, found: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(found, dict) and all(
            key in found and same(value, found[key]) for key, value in expected.items()
        )
    if isinstance(expected, str | bool) or expected is None:
        return bool(expected == found)
    try:
        return bool(np.allclose(np.array(expected, float), np.array(found, float), rtol=1e-5, atol=1e-9))
    except (TypeError, ValueError):
        return bool(expected == found)


def measure(folder: Path) -> dict[tuple[str, str], str]:
    """The letters of what is kept, by the format of the source and what is shown. A fact is kept if every file that can
    hold the image has it right."""
    kept: dict[tuple[str, str, str], list[bool]] = {}
    with volfs.init_store(folder / "store") as store:
        jobs = []
        for number, sample in enumerate(SAMPLES):
            place = folder / f"{number}"
            place.mkdir()
            with open_source([sample.write(place)]) as source:
                import_source(store, f"a{number}", "", source)
            snapshot = store[f"a{number}"]["v1"]
            (place / "out").mkdir()
            jobs += [wanted_path(snapshot, part, place / "out" / part) for part in ("s0", "formats")]
            jobs.append(wanted(snapshot, "", "zarr", place / "out" / "zarr"))
        export(
            store, [one for job in jobs for one in (job if isinstance(job, list) else [job])], lambda done, total: None
        )
    for number, sample in enumerate(SAMPLES):
        for shown, (where, read, own) in OUT.items():
            path = folder / f"{number}" / "out" / where.format(name=f"a{number}")
            if not path.exists():
                continue
            found = read(path)
            for fact, value in sample.facts.items():
                kept.setdefault((sample.kind, shown, fact), []).append(fact in found and same(value, found[fact]))
            if sample.header is not None and sample.kind in own:
                source = next(one for one in (folder / f"{number}").iterdir() if one.is_file())
                right = same(sample.header(source), sample.header(path))
                kept.setdefault((sample.kind, shown, "header"), []).append(right)
    letters = {}
    for kind in dict.fromkeys(sample.kind for sample in SAMPLES):
        for shown in OUT:
            letters[kind, shown] = "".join(
                letter
                for fact, letter in FACTS.items()
                if (found_in := kept.get((kind, shown, fact))) and all(found_in)
            )
    return letters


def brought(kind: str) -> str:
    """The letters of what samples of a format say."""
    told = {fact for sample in SAMPLES if sample.kind == kind for fact in sample.facts}
    if any(sample.header is not None for sample in SAMPLES if sample.kind == kind):
        told.add("header")
    return "".join(letter for fact, letter in FACTS.items() if fact in told)


def table(letters: Mapping[tuple[str, str], str]) -> str:
    kinds = list(dict.fromkeys(sample.kind for sample in SAMPLES))
    rows = [f"| from | says | {' | '.join(OUT)} |", f"|---|---|{'---|' * len(OUT)}"]
    for kind in kinds:
        cells = [letters[kind, shown] or "none" for shown in OUT]
        rows.append(f"| {kind} | {brought(kind)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def in_page() -> str:
    """The table as the page has it."""
    return PAGE.read_text().split(BEGIN)[1].split(END)[0].strip()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = table(measure(Path(scratch)))
    text = PAGE.read_text()
    if BEGIN in text:
        before, rest = text.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}")
    print(made)
