"""The archive of a set: one form for one content, and nothing of any other form is ever written to a disk."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.appliance.core.errors import DeviceFault, RejectedInput
from sekisho.signatures import archive
from sekisho.signatures.published import ARCHIVE_CAP, FILES_CAP

FILES = {
    "rules/a.rules": b"alert ip any any -> any any (sid:1;)\n",
    "rules/empty.rules": b"",
    "yara/one.yar": b"rule one { condition: true }" * 40,
    "yara/known.sha256": b"0" * 64 + b"\n",
    "baseline.json": b'{"boxes":1}',
}
FORBIDDEN = (
    "/etc/passwd", "../x.rules", "rules/../x.rules", "rules/../../x.rules", "rules/.hidden.rules", "rules/a/b.rules",
    "rules/a\0b.rules", "rules/a.rules\n", "rules/", "rules/.rules", "rules/a.yar", "yara/a.rules", "x", "", "yara/a ",
    "rules/ä.rules", "rules/-o.rules", "rules/" + "n" * 90 + ".rules", "BASELINE.json", "a.rules/", "./baseline.json",
)  # fmt: skip


def tar(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as written:
        for info, data in members:
            info.size = len(data)
            written.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, **facts: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode = 0o644
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def refused(data: bytes, where: Path) -> None:
    with pytest.raises(RejectedInput):
        archive.read(data)
    with pytest.raises(RejectedInput):
        archive.unpack(data, where / "set")
    assert list(where.iterdir()) == []


def test_what_was_packed_is_unpacked_whole(tmp_path: Path) -> None:
    archive.unpack(archive.pack(FILES), tmp_path / "set")
    found = {str(path.relative_to(tmp_path / "set")): path for path in (tmp_path / "set").rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == FILES


def test_an_archive_in_a_file_is_unpacked_alike(tmp_path: Path) -> None:
    (tmp_path / "1.tar").write_bytes(archive.pack(FILES))
    archive.unpack(tmp_path / "1.tar", tmp_path / "set")
    assert (tmp_path / "set/baseline.json").read_bytes() == FILES["baseline.json"]


def test_the_same_content_makes_the_same_bytes_in_any_order_and_at_any_time() -> None:
    assert archive.pack(FILES) == archive.pack(dict(reversed(FILES.items())))


def test_any_tar_program_can_read_it() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive.pack(FILES))) as found:
        assert found.getnames() == sorted(FILES)
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode, m.type) for m in found} == {
            (0, 0, 0, "", 0o644, tarfile.REGTYPE)
        }


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_name_that_is_not_of_the_form_is_neither_packed_nor_unpacked(name: str, tmp_path: Path) -> None:
    with pytest.raises(RejectedInput):
        archive.pack({name: b"x"})
    refused(tar((member(name), b"x")), tmp_path)
    refused(tar((member(name), b"x"), form=tarfile.PAX_FORMAT), tmp_path)


@pytest.mark.parametrize(
    "facts",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "rules/b.rules"},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.DIRTYPE},
        {"type": tarfile.GNUTYPE_SPARSE},
        {"type": tarfile.CONTTYPE},
        {"mode": 0o4755},
        {"mtime": 1},
        {"uid": 1000},
        {"uname": "root"},
    ],
)
def test_a_member_that_is_more_than_a_plain_file_is_refused(facts: dict[str, object], tmp_path: Path) -> None:
    refused(tar((member("rules/a.rules", **facts), b"")), tmp_path)


def test_names_repeated_or_out_of_order_are_refused(tmp_path: Path) -> None:
    refused(tar((member("rules/a.rules"), b"1"), (member("rules/a.rules"), b"2")), tmp_path)
    refused(tar((member("rules/b.rules"), b"1"), (member("rules/a.rules"), b"2")), tmp_path)


def test_a_long_name_extension_and_a_global_header_are_refused(tmp_path: Path) -> None:
    refused(tar((member("rules/" + "n" * 300 + ".rules"), b"x"), form=tarfile.GNU_FORMAT), tmp_path)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "/etc/passwd"}) as written:
        written.addfile(member("rules/a.rules"), io.BytesIO())
    refused(out.getvalue(), tmp_path)


def test_an_archive_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = archive.pack(FILES)
    for length in {*range(0, len(whole), 256), len(whole) - 1}:
        refused(whole[:length], tmp_path)


def test_anything_behind_the_end_is_refused(tmp_path: Path) -> None:
    refused(archive.pack(FILES) + b"\0", tmp_path)
    refused(archive.pack(FILES) + archive.pack(FILES), tmp_path)
    refused(archive.pack(FILES) + bytes(tarfile.RECORDSIZE), tmp_path)


def test_an_empty_set_is_neither_packed_nor_unpacked(tmp_path: Path) -> None:
    with pytest.raises(RejectedInput):
        archive.pack({})
    refused(bytes(tarfile.RECORDSIZE), tmp_path)


def test_a_header_that_claims_more_than_there_is_makes_no_file(tmp_path: Path) -> None:
    info = member("rules/a.rules")
    info.size = 8 << 30
    refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096), tmp_path)
    info.size = (8 << 30) - 1
    refused(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096), tmp_path)


def test_too_many_files_or_bytes_are_neither_packed_nor_unpacked(tmp_path: Path) -> None:
    many = {f"yara/n{number:05}.yar": b"" for number in range(FILES_CAP + 1)}
    with pytest.raises(RejectedInput, match=str(FILES_CAP)):
        archive.pack(many)
    refused(tar(*((member(name), b"") for name in many)), tmp_path)
    with pytest.raises(RejectedInput, match="128 MB"):
        archive.pack({"rules/a.rules": bytes(ARCHIVE_CAP)})
    refused(tar((member("rules/a.rules"), bytes(ARCHIVE_CAP))), tmp_path)


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DeviceFault):
        archive.unpack(archive.pack(FILES), tmp_path / "set")
    assert list((tmp_path / "set").iterdir()) == []


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set").symlink_to("elsewhere")
    with pytest.raises(DeviceFault):
        archive.unpack(archive.pack(FILES), tmp_path / "set")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_every_file_and_directory_is_on_the_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[str] = set()
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    archive.unpack(archive.pack(FILES), tmp_path / "set")
    assert synced == {str(path) for path in (tmp_path, tmp_path / "set", *(tmp_path / "set").rglob("*"))}


def test_a_disk_that_fails_half_way_is_a_device_fault_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DeviceFault, match="Free space"):
        archive.unpack(archive.pack(FILES), tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=4096))
def test_any_bytes_are_an_archive_or_refused(data: bytes) -> None:
    with pytest.raises(RejectedInput):
        archive.read(data)


@given(st.data())
def test_a_changed_byte_is_refused_or_changes_only_content(data: st.DataObject) -> None:
    whole = bytearray(archive.pack(FILES))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        files = archive.read(bytes(whole))
    except RejectedInput:
        return
    assert archive.pack(files) == bytes(whole)
    assert {name: len(content) for name, content in files.items()} == {name: len(c) for name, c in FILES.items()}
