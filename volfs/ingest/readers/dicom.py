"""DICOM series (PS3.3, C.7.6.2 and C.7.6.16), in one file per slice or in multi-frame files, through pydicom.

Slices lie in the order of their positions along the normal of their plane, the first having the smallest; what lies
at the same place several times lies along t, in the order of acquisition. Voxels are taken as they are stored: rescale
slope and intercept, and MONOCHROME1, are facts beside them. The affine takes (x, y, z, 1) to DICOM's space of the
patient, in millimetres. Nothing that names the patient is kept.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from volfs.errors import BadInput, VolfsError
from volfs.ingest.readers.dicom_frames import Frame, Stack, stack_frames
from volfs.ingest.readers.marks import DICOM_ENDINGS, is_dicom, picture_kind
from volfs.ingest.readers.stack import gather
from volfs.ingest.source import Description, Fingerprint, Source, files_fingerprint, unreadable
from volfs.model.box import Box, Index
from volfs.model.facts import Rescale
from volfs.model.names import natural_key
from volfs.model.ngff import Axis, axis

_MOST_FILES = 1_000_000

# What is wrong is said in our errors, in one line.
warnings.filterwarnings("ignore", module=r"pydicom(\.|\Z)")

_LABELS = ("BINARY", "LABELMAP")
"""Types of segmentations whose voxels are labels, not probabilities."""

_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "TemporalPositionIdentifier",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "FrameTime",
    "GridFrameOffsetVector",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "SegmentationType",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]


def holds_dicom(folder: Path) -> bool:
    """Whether a directory holds DICOM files, or directories of them."""
    return next(_found(folder), None) is not None


def open_folder(folder: Path, part: str | None = None) -> Source:
    """Open the series in a directory. If it has no images itself, those of the directories in it count, however deep:
    discs and archives keep them so. ``part`` is the number or UID of a series. BadInput if pictures lie beside them."""
    files = list(_found(folder))
    if (
        any(picture_kind(path.name) and path.parent == folder for path in _visible(folder))
        and files[0].parent == folder
    ):
        raise BadInput(f"{folder} holds DICOM files and pictures: name the ones to import, like {folder}/*.dcm")
    files.sort(key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])
    return open_dicom(files, folder, part, folder=folder)


def _visible(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if not path.name.startswith("."))


def _found(folder: Path) -> Iterator[Path]:
    """The DICOM files of a directory, else those below it. Pictures are known by their endings, and not looked into; a
    DICOMDIR is a list of files."""
    alone = True
    for path in _visible(folder):
        if picture_kind(path.name) is None and path.name.upper() != "DICOMDIR" and path.is_file() and is_dicom(path):
            alone = False
            yield path
    if not alone or any(picture_kind(path.name) for path in _visible(folder)):
        return
    looked = 0
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names if Path(root) != folder else ():
            path = Path(root, name)
            looked += 1
            if looked > _MOST_FILES:
                return
            known = picture_kind(path.name) is not None or name.startswith(".") or name.upper() == "DICOMDIR"
            if not known and path.is_file() and is_dicom(path):
                yield path


def open_file(path: Path, part: str | None = None) -> Source:
    """Open the images of one file: a multi-frame one, or a single slice."""
    return open_dicom([path], path, part)


def open_dicom(paths: Sequence[Path], given: Path, series: str | None = None, *, folder: Path | None = None) -> Source:
    """Open one series. ``series`` is its number or UID, where the files are of several; files without pixels are left
    aside. BadInput if slices are missing or do not belong together."""
    try:
        import pydicom  # noqa: F401 (asked for here, so that the error says what is missing)
    except ImportError as error:
        raise BadInput("DICOM files need the package pydicom: pip install 'volfs[import]'") from error
    pictures = [found for path in paths if (found := _header(path)) is not None]
    if not pictures:
        raise BadInput(f"{given} holds no DICOM image")
    chosen = _pick(pictures, given, series)
    return _Series(chosen, given, folder)


@dataclass(frozen=True, slots=True)
class _File:
    """One file's header."""

    path: Path
    uid: str
    series: str
    number: str
    facts: dict[str, Any]
    rows: int
    columns: int
    samples: int
    dtype: np.dtype[Any]
    frames: tuple[Frame, ...]
    frame_time: float | None
    has_table: bool = False
    """Whether a table takes stored values to real ones, which no slope can say."""
    between: float | None = None
    """What is said to be between slices, in millimetres; counts where their positions are not known."""

    @property
    def text(self) -> str:
        samples = f", {self.samples} samples" if self.samples > 1 else ""
        return f"{self.columns} x {self.rows} {self.dtype.name}{samples}"


def _header(path: Path) -> _File | None:
    """What a file says of itself; None if it holds no pixels. Of more than its pixels nothing is read."""
    import pydicom

    if not is_dicom(path):
        raise unreadable(path, "it does not start as a DICOM file does, with or without a preamble")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS], force=True)
            if "Rows" not in found or "Columns" not in found or found.get("BitsAllocated") is None:
                return None
            return _file(path, found)
    except VolfsError:
        raise
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise unreadable(path, error) from error


def _file(path: Path, found: Any) -> _File:
    photometric = str(found.get("PhotometricInterpretation", "MONOCHROME2"))
    samples = int(found.get("SamplesPerPixel", 1))
    if photometric == "PALETTE COLOR":
        raise BadInput(f"{path} is a palette image: its numbers are not intensities, convert it to RGB first")
    if samples not in (1, 3):
        raise BadInput(f"{path} has {samples} samples per pixel: 1 or 3 are imported")
    bits = int(found.BitsAllocated)
    kind = "u" if int(found.get("PixelRepresentation", 0)) == 0 else "i"
    if bits not in (1, 8, 16, 32, 64):
        raise BadInput(f"{path} has {bits} bits per sample: 1, 8, 16, 32 and 64 are imported")
    dtype = np.dtype(f"{kind}{max(1, bits // 8)}")
    facts: dict[str, Any] = {
        "modality": str(found.get("Modality", "")),
        "series_description": str(found.get("SeriesDescription", "")),
        "photometric_interpretation": photometric,
        "bits_stored": int(found.get("BitsStored", bits)),
        "rescale_type": str(found.get("RescaleType", "")),
        "segmentation_type": str(found.get("SegmentationType", "")),
        "transfer_syntax": str(found.file_meta.get("TransferSyntaxUID", "")),
    }
    time, between = _number(found.get("FrameTime")), _number(found.get("SpacingBetweenSlices"))
    return _File(
        path,
        str(found.get("SOPInstanceUID", "")),
        str(found.get("SeriesInstanceUID", "")),
        str(found.get("SeriesNumber") if found.get("SeriesNumber") is not None else ""),
        {key: value for key, value in facts.items() if value != ""},
        int(found.Rows),
        int(found.Columns),
        samples,
        dtype,
        _frames(path, found),
        time if time is not None and time > 0 else None,
        "ModalityLUTSequence" in found,
        abs(between) if between else None,
    )


def _frames(path: Path, found: Any) -> tuple[Frame, ...]:
    """The planes of a file, with where they lie."""
    count = int(found.get("NumberOfFrames", 1) or 1)
    if count < 1:
        raise BadInput(f"{path} has {count} frames")
    common = _geometry(Frame(path, None if "NumberOfFrames" not in found else 0), found)
    order = tuple(
        _number(found.get(name)) or 0.0
        for name in ("TemporalPositionIdentifier", "AcquisitionNumber", "InstanceNumber")
    )
    common = replace(common, order=order)
    if common.index is None:
        return (common,)
    shared = _first(found.get("SharedFunctionalGroupsSequence"))
    common = _groups(common, shared)
    each = found.get("PerFrameFunctionalGroupsSequence") or []
    if each and len(each) != count:
        raise BadInput(f"{path} tells of {len(each)} frames, but has {count}")
    offsets = found.get("GridFrameOffsetVector")
    frames = []
    for index in range(count):
        frame = replace(common, index=index, order=(*order, index))
        if each:
            frame = _groups(frame, each[index])
        elif offsets is not None and len(offsets) == count and common.orientation and common.position:
            along = _number(offsets[index]) or 0.0
            place = tuple(p + along * n for p, n in zip(common.position, common.normal, strict=True))
            frame = replace(frame, position=place)
        elif count > 1:
            frame = replace(frame, position=None)
        frames.append(frame)
    return tuple(frames)


def _geometry(frame: Frame, found: Any) -> Frame:
    """Where a plane lies, as far as ``found`` says."""
    position = _numbers(found.get("ImagePositionPatient"), 3)
    orientation = _numbers(found.get("ImageOrientationPatient"), 6)
    spacing = _numbers(found.get("PixelSpacing"), 2)
    slope, intercept = _number(found.get("RescaleSlope")), _number(found.get("RescaleIntercept"))
    return replace(
        frame,
        position=position or frame.position,
        orientation=orientation or frame.orientation,
        spacing=spacing if spacing is not None and min(spacing) > 0 else frame.spacing,
        slope=frame.slope if slope is None else slope,
        intercept=frame.intercept if intercept is None else intercept,
    )


def _groups(frame: Frame, groups: Any) -> Frame:
    """What functional groups say of a frame."""
    if groups is None:
        return frame
    for name in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
        if (inside := _first(groups.get(name))) is not None:
            frame = _geometry(frame, inside)
    if (inside := _first(groups.get("PixelValueTransformationSequence"))) is not None:
        frame = _geometry(frame, inside)
    if (content := _first(groups.get("FrameContentSequence"))) is not None:
        time = _number(content.get("TemporalPositionIndex"))
        if time is not None:
            frame = replace(frame, order=(time, *frame.order))
    return frame


def _first(sequence: Any) -> Any:
    return sequence[0] if sequence else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
        return None
    found = [_number(value) for value in values]
    return None if any(n is None for n in found) else tuple(n for n in found if n is not None)


def _pick(files: list[_File], given: Path, series: str | None) -> list[_File]:
    """The files of the series that is wanted, or of the only one."""
    groups: dict[str, list[_File]] = {}
    for file in files:
        groups.setdefault(file.series, []).append(file)
    if series is not None:
        wanted = [uid for uid, members in groups.items() if series in (uid, members[0].number)]
        if len(wanted) == 1:
            return groups[wanted[0]]
        if not wanted:
            raise BadInput(f"{given} has no series {series}: it has {_listed(groups)}")
        groups = {uid: groups[uid] for uid in wanted}
    if len(groups) > 1:
        some = next(iter(_names(groups)))
        raise BadInput(f"{given} holds {len(groups)} series ({_listed(groups)}): name one, like {given}:{some}")
    return next(iter(groups.values()))


def _names(groups: dict[str, list[_File]]) -> list[str]:
    """What series are called: their numbers, where these tell them apart."""
    numbers = [members[0].number for members in groups.values()]
    return [*groups] if "" in numbers or len({*numbers}) < len(numbers) else numbers


def _listed(groups: dict[str, list[_File]]) -> str:
    texts = []
    for name, members in zip(_names(groups), groups.values(), strict=True):
        what = " ".join(filter(None, [members[0].facts.get("modality"), members[0].facts.get("series_description")]))
        images = sum(len(file.frames) for file in members)
        texts.append(f"{name}: {what + ', ' if what else ''}{images} image{'s' if images > 1 else ''}")
    return "; ".join(texts[:12]) + ("; …" if len(texts) > 12 else "")


def _as_size(between: float | None) -> tuple[float, Axis]:
    return (1.0, axis("z")) if between is None else (between, axis("z", "mm"))


def _order(given: Path, files: Sequence[_File], stack: Stack) -> list[str]:
    """What a user should know of slices of which nobody says where they lie."""
    if len(files) == 1 or any(frame.position for frame in stack.frames):
        return []
    return [f"the images of {given} have no positions: they are in the order of their instance numbers"]


class _Series(Source):
    def __init__(self, files: list[_File], given: Path, folder: Path | None) -> None:
        first = files[0]
        uids: dict[str, Path] = {}
        for file in files:
            if (file.rows, file.columns, file.samples, file.dtype) != (
                first.rows,
                first.columns,
                first.samples,
                first.dtype,
            ):
                raise BadInput(
                    f"{file.path} is {file.text}, but {first.path.name} is {first.text}: slices must be alike"
                )
            if file.uid and uids.setdefault(file.uid, file.path) != file.path:
                raise BadInput(f"{file.path} and {uids[file.uid].name} are the same image: keep one of them")
        self._folder = folder
        self._syntax = {file.path: str(file.facts.get("transfer_syntax", "")) for file in files}
        self._paths = [file.path for file in files]
        self._frame_shape: Index = (first.rows, first.columns) + ((first.samples,) if first.samples > 1 else ())
        self._stored = first.dtype
        self._stack = stack = stack_frames(given, [frame for file in files for frame in file.frames])
        cine = first.frame_time if stack.names == ("z",) and stack.affine is None and len(files) == 1 else None
        outer = [axis("t", "ms")] if cine is not None else [axis(name) for name in stack.names]
        scale = [cine] if cine is not None else [1.0] * len(outer)
        if stack.step is not None:
            scale[-1], outer[-1] = stack.step, axis("z", "mm")
        elif stack.names[-1:] == ("z",) and cine is None and len(between := {file.between for file in files}) == 1:
            scale[-1], outer[-1] = _as_size(*between)
        inner = [axis(n, "mm" if stack.spacing else None) for n in "yx"]
        shape = (*stack.shape, *self._frame_shape)
        samples = first.samples > 1
        rescales = {_rescale(frame, first) for frame in stack.frames} if not samples else {None}
        #: Frames of one volume whose numbers mean different things are brought to real values.
        self._real = len(rescales) > 1
        self._dtype = np.dtype(np.float32) if self._real else first.dtype
        told = next(iter(rescales)) if not self._real else None
        self.description = Description(
            _name(given, first),
            shape,
            self._dtype,
            (*outer, *inner, *((axis("c"),) if samples else ())),
            (*scale, *(stack.spacing or (1.0, 1.0)), *((1.0,) if samples else ())),
            (*(1,) * len(outer), *self._frame_shape),
            rgb=samples,
            facts=_facts(first, files, stack),
            rescale=told,
            is_label=first.facts.get("segmentation_type") in _LABELS,
            lost=_lost(files),
            remarks=(*([_real_values(given, stack)] if self._real else []), *_order(given, files, stack)),
        )

    def read(self, box: Box) -> np.ndarray:
        return gather(box, self._stack.shape, self._dtype, self._part)

    def _part(self, number: int, box: Box) -> np.ndarray:
        frame = self._stack.frames[number]
        pixels = self._pixels(frame)[box.slices()]
        return _values(pixels, frame) if self._real else pixels

    def fingerprint(self) -> Fingerprint:
        found = files_fingerprint(self._paths)
        if self._folder is not None:
            for folder in {self._folder, *(path.parent for path in self._paths)}:
                found[str(folder)] = sorted(os.listdir(folder))
        return found

    def _pixels(self, frame: Frame) -> np.ndarray:
        from volfs.ingest.readers.dicom_pixels import decoded

        try:
            found = decoded(frame.path, frame.index or 0, self._syntax[frame.path])
        except VolfsError:
            raise
        except Exception as error:  # pydicom and its decoders raise whatever the damage leads to
            raise unreadable(frame.path, error) from error
        if found.shape != self._frame_shape or found.dtype.itemsize != self._stored.itemsize:
            raise unreadable(frame.path, f"its pixels are {found.shape} {found.dtype}, not {self._frame_shape}")
        return found.astype(self._stored, copy=False)


def _rescale(frame: Frame, first: _File) -> Rescale | None:
    """What takes a frame's stored values to real ones; None where its file does not say."""
    if frame.slope is None and frame.intercept is None:
        return None
    unit = str(first.facts.get("rescale_type", "HU" if first.facts.get("modality") == "CT" else ""))
    return Rescale.of(1.0 if frame.slope is None else frame.slope, frame.intercept or 0.0, unit if unit != "US" else "")


def _values(pixels: np.ndarray, frame: Frame) -> np.ndarray:
    slope = 1.0 if frame.slope is None else frame.slope
    real: np.ndarray = (pixels.astype(np.float64) * slope + (frame.intercept or 0.0)).astype(np.float32)
    return real


def _real_values(given: Path, stack: Stack) -> str:
    """The line about numbers that are not those in the files."""
    slopes = sorted({1.0 if frame.slope is None else frame.slope for frame in stack.frames})
    intercepts = sorted({frame.intercept or 0.0 for frame in stack.frames})
    texts = [
        f"{name} from {values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"{name} {values[0]:g}"
        for name, values in (("slopes", slopes), ("intercepts", intercepts))
    ]
    return f"the slices of {given} have {' and '.join(texts)}: voxels are the real values, in float32"


def _lost(files: Sequence[_File]) -> tuple[str, ...]:
    found = ["all other tags of the headers (patient, study, equipment, acquisition)"]
    if any(file.has_table for file in files):
        found.insert(0, "the modality LUT, which takes stored values to real ones")
    return tuple(found)


def _name(given: Path, first: _File) -> str:
    name = given.resolve().name
    stem = Path(name).stem if name.lower().endswith(DICOM_ENDINGS) else name
    return stem or str(first.facts.get("series_description", "dicom"))


def _facts(first: _File, files: list[_File], stack: Stack) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": "dicom", **first.facts}
    if first.number:
        facts["series_number"] = first.number
    if stack.affine is not None:
        facts["affine"] = stack.affine
        facts["space"] = "left-posterior-superior"
    for key, values in (
        ("rescale_slope", [frame.slope for frame in stack.frames]),
        ("rescale_intercept", [frame.intercept for frame in stack.frames]),
    ):
        if any(value is not None for value in values):
            facts[key] = values[0] if len({*values}) == 1 else values
    return facts
