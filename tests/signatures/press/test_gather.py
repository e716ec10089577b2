"""Where rules come from: near and far, whole or refused; and a recipe that says nothing by mistake."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import lzma
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sekisho.appliance.core.errors import DeviceFault, PeerError, RejectedInput
from sekisho.signatures.press import engines, gather, local, recipe
from sekisho.signatures.press.recipe import FileSource, RuleSource


class Vendor:
    """A web server with files that a test may change."""

    def __init__(self, url: str) -> None:
        self.url, self.files, self.asked = url, dict[str, bytes](), list[str]()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            body = found.files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_args: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        found = Vendor(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]  # a mode by name
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_rules_from_afar_come_through_suricata_update_with_none_of_this_machines_filters(
    vendor: Vendor, centre: Any, tmp_path: Path
) -> None:
    helper = 'alert tcp any any -> any any (msg:"sets"; flowbits:set,a; content:"a"; sid:8; rev:1;)\n'
    needs = 'alert tcp any any -> any any (msg:"needs"; flowbits:isset,a; content:"b"; sid:9; rev:1;)\n'
    rules = centre.rule(1) + "# " + centre.rule(2) + "#" + helper + needs
    vendor.files["/rules.tar.gz"] = tar({"rules/emerging.rules": rules.encode()})
    source = RuleSource(name="far", url=f"{vendor.url}/rules.tar.gz")
    found = gather.rules(source, tmp_path / "work")
    text = b"".join(file.data for file in found).decode()
    enabled = {line for line in text.splitlines() if line and not line.startswith("#")}
    assert centre.rule(1).strip() in enabled
    assert not any("sid:2;" in line for line in enabled)
    (marking,) = (line for line in enabled if "sid:8;" in line)
    assert "noalert;" in marking
    assert not any("event" in line for line in enabled), "the engine's own event rules were mixed in"


@pytest.mark.parametrize("answer", [None, b"<html>sorry</html>", b"", tar({"a.rules": b"# nothing\n"})])
def test_rules_from_afar_that_do_not_come_refuse_the_build(vendor: Vendor, centre: Any, answer: bytes | None) -> None:
    if answer is not None:
        vendor.files["/rules.tar.gz"] = answer
    centre.recipe(f'[[rules]]\nname = "far"\nurl = "{vendor.url}/rules.tar.gz"\n')
    with pytest.raises((PeerError, RejectedInput)):
        engines.gathered_rules(recipe.load(centre.root / "sets.toml"), centre.root)
    assert "/rules.tar.gz" in vendor.asked


@pytest.mark.parametrize("text", ["", "# all off\n", "<html>sorry</html>", "alert tcp any any -> any any (msg:"])
def test_a_local_source_without_a_rule_refuses_the_build(centre: Any, text: str) -> None:
    centre.rules(text)
    with pytest.raises(RejectedInput):
        engines.gathered_rules(recipe.load(centre.root / "sets.toml"), centre.root)


PACKINGS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "rules.tar": lambda files: tar(files, "w"),
    "rules.tar.gz": tar,
    "rules.tgz": tar,
    "rules.tar.xz": lambda files: tar(files, "w:xz"),
    "rules.tar.bz2": lambda files: tar(files, "w:bz2"),
    "rules.zip": zipped,
    "a.rules.gz": lambda files: gzip.compress(files["top/a.rules"]),
    "a.rules.xz": lambda files: lzma.compress(files["top/a.rules"]),
    "a.rules": lambda files: files["top/a.rules"],
}


@pytest.mark.parametrize("name", PACKINGS)
def test_local_rules_need_no_network_however_they_are_packed(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACKINGS[name]({"top/README": b"hello", "top/a.rules": b"one"}))
    assert [(file.name, file.data) for file in local.files(tmp_path / name, (".rules",))] == [("a.rules", b"one")]


def test_a_directory_is_read_to_its_depth_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "repo/deep").mkdir(parents=True)
    (tmp_path / "secret.yar").write_text("outside")
    (tmp_path / "repo/deep/a.yar").write_text("one")
    (tmp_path / "repo/a.yar").write_text("two")
    (tmp_path / "repo/b.yar").symlink_to(tmp_path / "secret.yar")
    (tmp_path / "repo/left.yar").write_text("three")
    found = local.files(tmp_path / "repo", (".yar",), ["left*"])
    assert sorted(file.data for file in found) == [b"one", b"two"]
    assert len({file.name for file in found}) == 2


@pytest.mark.parametrize("name", ["x.tar.gz", "x.zip", "x.rules.gz", "x.rules.xz"])
def test_a_damaged_archive_is_refused_in_words(name: str, tmp_path: Path) -> None:
    whole = PACKINGS[{"x.zip": "rules.zip", "x.tar.gz": "rules.tar.gz"}.get(name, "a" + name[1:])](
        {"top/a.rules": b"one" * 1000}
    )
    for data in (b"nothing", whole[: len(whole) // 2], b"\0" + whole[1:]):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(RejectedInput):
            local.files(tmp_path / name, (".rules",))


def test_an_archive_that_unpacks_to_more_than_a_box_takes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar({"a.rules": bytes(40 << 20)}))
    (tmp_path / "x.zip").write_bytes(zipped({f"{n}.rules": bytes(30 << 20) for n in range(3)}))
    (tmp_path / "x.rules.gz").write_bytes(gzip.compress(bytes(40 << 20)))
    for name in ("x.tar.gz", "x.zip", "x.rules.gz"):
        with pytest.raises(RejectedInput, match="too large"):
            local.files(tmp_path / name, (".rules",))


def test_links_and_devices_in_an_archive_are_not_looked_at(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind in (("a.yar", tarfile.SYMTYPE), ("b.yar", tarfile.LNKTYPE), ("c.yar", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("../../d.yar")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"d"))
    (tmp_path / "x.tar").write_bytes(out.getvalue())
    assert [file.name for file in local.files(tmp_path / "x.tar", (".yar",))] == ["d.yar"]


def test_yara_files_from_afar_are_known_by_their_hash(vendor: Vendor, tmp_path: Path) -> None:
    vendor.files["/repo.tar.gz"] = whole = tar({"repo-1/yara/a b.yar": b"rule a { condition: false }"})
    right = FileSource(name="repo", url=f"{vendor.url}/repo.tar.gz", sha256=hashlib.sha256(whole).hexdigest())
    (found,) = gather.yara(right, tmp_path / "1")
    assert found.name.startswith("repo--a_b-")
    with pytest.raises(RejectedInput, match="sha256 is"):
        gather.yara(FileSource(name="repo", url=right.url, sha256="0" * 64), tmp_path / "2")
    with pytest.raises(PeerError):
        gather.yara(FileSource(name="repo", url=f"{vendor.url}/gone.zip", sha256="0" * 64), tmp_path / "3")


def test_hash_lists_are_one_sorted_list(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    one, two = "aB" * 32, "00" * 32
    (tmp_path / "lists/a.sha256").write_text(f"# comment\n{one}  evil.exe\n\n{two}\n")
    (tmp_path / "lists/b.sha256").write_text(f"{one.lower()}\n")
    found = gather.hashes(FileSource(name="known", path=str(tmp_path / "lists")), tmp_path / "work")
    assert (found.name, found.data.decode()) == ("known.sha256", f"{two}\n{one.lower()}\n")
    (tmp_path / "lists/c.sha256").write_text("<html>")
    with pytest.raises(RejectedInput, match="not a SHA-256"):
        gather.hashes(FileSource(name="known", path=str(tmp_path / "lists")), tmp_path / "again")


def test_nobody_takes_the_number_of_one_of_our_rules(centre: Any) -> None:
    ours = next(item for item in engines.gathered_rules(recipe.Recipe(), centre.root)[0])
    stolen = f'alert ip any any -> any any (msg:"x"; sid:{ours.rule.sid}; rev:999;)\n'
    centre.rules(stolen, centre.rule(1), centre.rule(1).replace("rev:1", "rev:2"))
    found, _ = engines.gathered_rules(recipe.load(centre.root / "sets.toml"), centre.root)
    assert {item.rule.sid: item.rule for item in found}[ours.rule.sid] == ours.rule
    assert {item.rule.sid: item.rule.rev for item in found}[1] == 2


def test_a_local_source_that_is_not_there_is_named(centre: Any) -> None:
    (centre.root / "first.rules").unlink()
    assert "first.rules" in centre.refused()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("nonsense = 1", "nonsense"),
        ("[[rules]]\nname = 'a'", "needs one of"),
        ("[[rules]]\nname = 'a'\npath = 'x'\nurl = 'http://x'", "needs one of"),
        ("[[rules]]\nname = 'sekisho'\npath = 'x'", "our own"),
        ("[[rules]]\nname = 'a'\npath = 'x'\n[[yara]]\nname = 'a'\npath = 'y'", "Two sources"),
        ("[[rules]]\nname = '../a'\npath = 'x'", "name"),
        ("[[rules]]\nname = 'a'\nurl = 'file:///etc/passwd'", "url"),
        ("[[yara]]\nname = 'a'\nurl = 'http://x/y'", "sha256"),
        ("[[policy]]\naction = 'reject'", "action"),
        ("[[policy]]\naction = 'alert'\nurgent = true", "urgent"),
        ("[[policy]]\naction = 'drop'\nsources = ['nobody']", "nobody"),
        ("[[policy]]\naction = 'drop'\nclasstype = ['x']", "classtype"),
        ("[[budget.leave_out]]", "every rule"),
        ("[budget]\nleave_out_yara = ['nobody']", "nobody"),
        ("[budget]\nmemory_mb = 0", "memory_mb"),
        ("deltas = 33", "deltas"),
        ("a = [" * 5000, "cannot be understood"),
        ("\x00", "cannot be understood"),
        ("x = '" + "y" * (1 << 20) + "'", "larger"),
    ],
)
def test_a_recipe_with_a_mistake_is_refused_and_the_mistake_is_named(centre: Any, text: str, word: str) -> None:
    centre.recipe(text)
    with pytest.raises(RejectedInput, match=word):
        recipe.load(centre.root / "sets.toml")


def test_a_recipe_that_is_not_there_is_a_fault_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(DeviceFault):
        recipe.load(tmp_path / "none.toml")


def test_paths_are_below_the_recipe(centre: Any) -> None:
    assert recipe.load(centre.root / "sets.toml").rules[0].path == str(centre.root / "first.rules")
