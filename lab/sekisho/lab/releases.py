"""Releases made of this tree: as they lie on a box, a folder with its own copy of the product, and as they are
published, a bundle of tier 1 with one wheel of it. Packages of others come from where this program has them.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

import sekisho.appliance
import sekisho.firmware
import sekisho.inspect
import sekisho.policy
import sekisho.portal_agent
import sekisho.signatures
import sekisho.telemetry
from sekisho.appliance.core.settings import Settings
from sekisho.firmware.build import bundle, wheels
from sekisho.firmware.build.bundle import Terms
from sekisho.firmware.content import REQUIREMENTS, WHEELS, Content
from sekisho.firmware.published import Release
from sekisho.firmware.source import hardware_of

_ROOMS: Final = (
    sekisho.appliance, sekisho.firmware, sekisho.inspect, sekisho.policy, sekisho.portal_agent, sekisho.signatures,
    sekisho.telemetry,
)  # fmt: skip
_OTHERS: Final = "others.pth"


def make(root: Path, name: str, *, engine: str | Path = "") -> Path:
    """A release called `name` (CTR-SHA) under `root`; with an engine of its own: a shell program's text, or a binary
    that is copied.
    """
    release = system(root, name)
    (site,) = (release / "venv" / "lib").glob("python*/site-packages")
    for room in _ROOMS:
        source = Path(room.__path__[0])
        shutil.copytree(source, site / "sekisho" / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    if engine:
        program = release / "engine" / "bin" / "suricata"
        program.parent.mkdir(parents=True)
        if isinstance(engine, Path):
            shutil.copy(engine, program)
        else:
            program.write_text(engine)
        program.chmod(0o755)
    return release


def system(root: Path, name: str = "system") -> Path:
    """The programs a system came with, for which this tree's own stand."""
    release = root / name
    site = release / "venv" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    site.mkdir(parents=True)
    (site / _OTHERS).write_text(_others())
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (release / "venv" / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    python = release / "venv" / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(base)
    return release


def build(out: Path, counter: int, version: str, changed: Mapping[str, str], terms: Terms) -> Release:
    """COUNTER.tar.zst and release.json in `out`, as `sekisho firmware build` makes them. `changed`: the text of modules
    (sekisho.telemetry.daemon) in this release.
    """
    here, python = hardware_of(Settings(box="lab")), f"{sys.version_info[0]}.{sys.version_info[1]}"
    told = {"counter": counter, "version": version, "hardware": here, "machine": here, "python": python}
    content = msgspec.convert(told, Content)
    epoch = int(time.time())
    with tempfile.TemporaryDirectory(prefix="sekisho-lab-") as scratch:
        ours, listed = _wheel(Path(scratch), version, changed), Path(scratch) / REQUIREMENTS
        listed.write_text(wheels.requirement(*wheels.named(ours), [wheels.digest(ours)]))
        files = {f"{WHEELS}/{ours.name}": ours, REQUIREMENTS: listed}
        out.mkdir(parents=True)
        path = out / f"{counter}.tar.zst"
        bundle.pack(content, files, epoch, path)
        made = bundle.describe(content, files, epoch, path, terms)
    bundle.write(made, out)
    return made


def image(out: Path, counter: int, version: str, terms: Terms) -> Release:
    """COUNTER.raucb and release.json in `out`, as `make image` makes them; what is in it starts nowhere."""
    made, bundled = build(out, counter, version, {}, terms), out / f"{counter}.raucb"
    (out / f"{counter}.tar.zst").rename(bundled)
    made = msgspec.structs.replace(made, tier=3, path=f"fw/{made.hardware}/{bundled.name}")
    bundle.write(made, out)
    return made


def _wheel(folder: Path, version: str, changed: Mapping[str, str]) -> Path:
    info, files = f"sekisho-{version}.dist-info", dict[str, tuple[bytes, bool]]()
    for room in _ROOMS:
        source = Path(room.__path__[0])
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = f"sekisho/{source.name}/{path.relative_to(source)}"
                files[name] = path.read_bytes(), bool(path.stat().st_mode & 0o100)
    for dotted, text in changed.items():
        files[dotted.replace(".", "/") + ".py"] = text.encode(), False
    files[_OTHERS] = _others().encode(), False
    for name, text in (
        ("METADATA", f"Metadata-Version: 2.1\nName: sekisho\nVersion: {version}\n"),
        ("WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        ("entry_points.txt", "[console_scripts]\nsekisho = sekisho.appliance.cli:main\n"),
    ):
        files[f"{info}/{name}"] = text.encode(), False
    record = "".join(f"{name},sha256={_record(data)},{len(data)}\n" for name, (data, _) in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode(), False
    made = folder / f"sekisho-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as out:
        for name, (data, runs) in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o755 if runs else 0o644) << 16
            out.writestr(entry, data)
    return made


def _record(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _others() -> str:
    return f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"


def module(release: Path, dotted: str) -> Path:
    """The file of one of the product's modules in that release, to be made another."""
    (site,) = (release / "venv" / "lib").glob("python*/site-packages")
    return site.joinpath(*dotted.split(".")).with_suffix(".py")
