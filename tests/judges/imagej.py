"""What ImageJ sees in files: ``python -m tests.judges.imagej [--virtual] FILE…`` prints one JSON object a line.

Debian's ImageJ, headless, through its own Java API (JPype): the machine needs ``ij.jar``, a Java runtime, no display
and no compiler. It runs in a process of its own, because a Java machine cannot be started twice in one.
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import jpype
import numpy as np

JAR = Path("/usr/share/java/ij.jar")

_NUMPY = {"byte[]": "u1", "short[]": "u2", "float[]": "f4", "int[]": "i4"}


def opened(ij: Any, path: str, *, virtual: bool) -> dict[str, Any]:
    """Size, calibration and statistics of a stack, whole and of each image in it (of some, if it is virtual)."""
    picture = ij.plugin.FileInfoVirtualStack.openVirtual(path) if virtual else ij.IJ.openImage(path)
    if picture is None:
        return {"path": path, "error": "ImageJ does not open it"}
    stack, calibration = picture.getStack(), picture.getCalibration()
    count = int(stack.getSize())
    looked_at = (
        sorted({1, 2, count // 2, count - 1, count} & {*range(1, count + 1)}) if virtual else range(1, count + 1)
    )
    found: dict[str, Any] = {
        "path": path,
        "virtual": bool(stack.isVirtual()),
        "bits": int(picture.getBitDepth()),
        "width": int(picture.getWidth()),
        "height": int(picture.getHeight()),
        "channels": int(picture.getNChannels()),
        "slices": int(picture.getNSlices()),
        "frames": int(picture.getNFrames()),
        "hyperstack": bool(picture.isHyperStack()),
        "unit": str(calibration.getUnit()),
        "voxel": [float(n) for n in (calibration.pixelDepth, calibration.pixelHeight, calibration.pixelWidth)],
        "origin": [float(n) for n in (calibration.zOrigin, calibration.yOrigin, calibration.xOrigin)],
        "interval": float(calibration.frameInterval),
        "images": {},
    }
    measured = ij.measure.Measurements.MIN_MAX | ij.measure.Measurements.MEAN
    for number in looked_at:
        processor = stack.getProcessor(number)
        told = ij.process.ImageStatistics.getStatistics(processor, measured, calibration)
        pixels = processor.getPixels()
        data = np.array(pixels).view(_NUMPY[type(pixels).__name__])
        found["images"][number] = {
            "min": float(told.min),
            "max": float(told.max),
            "mean": float(told.mean),
            "crc32": zlib.crc32(data.tobytes()),
        }
    if not virtual:
        whole = ij.process.StackStatistics(picture)
        found |= {"min": float(whole.min), "max": float(whole.max), "mean": float(whole.mean)}
    return found


def main(arguments: list[str]) -> None:
    virtual = "--virtual" in arguments
    jpype.startJVM("-Djava.awt.headless=true", "-Xmx1g", classpath=[str(JAR)], convertStrings=False)
    ij = jpype.JPackage("ij")
    for path in arguments:
        if path != "--virtual":
            print("found " + json.dumps(opened(ij, path, virtual=virtual)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
