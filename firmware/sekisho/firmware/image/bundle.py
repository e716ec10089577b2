"""What RAUC installs: both halves of a slot in one signed bundle, and the keys of an image made for trying.

A key made here is for trying only: it lies in the build directory, never in the tree. Releases are signed where the
product's keys are, with the same `rauc bundle`.
"""

from __future__ import annotations

import datetime
import shutil
import subprocess
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sekisho.appliance.core.errors import DeviceFault
from sekisho.firmware.image import texts
from sekisho.firmware.image.boards import Board
from sekisho.firmware.image.slot import Images


class Signer(msgspec.Struct, frozen=True):
    """Certificate (its own authority) and key, PEM files."""

    cert: Path
    key: Path


def signer(folder: Path, name: str = "sekisho trial images") -> Signer:
    """The trial key of this build directory, made once; 0600."""
    made = Signer(folder / "cert.pem", folder / "key.pem")
    if made.cert.exists():
        return made
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=365 * 40))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    made.key.touch(0o600)
    made.key.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    made.cert.write_bytes(cert.public_bytes(pem))
    return made


def make(board: Board, images: Images, counter: int, version: str, sign: Signer, bundle: Path) -> None:
    """Put both images into `bundle` (*.raucb), anew.

    Raises:
        DeviceFault: RAUC refused.

    """
    content = bundle.with_suffix(".content")
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    for name, image in (("boot.img", images.boot), ("rootfs.img", images.rootfs)):
        (content / name).hardlink_to(image)
    (content / "manifest.raucm").write_text(texts.manifest(board, counter, version))
    (content / "image.json").write_text(texts.identity(board, counter, version))
    bundle.unlink(missing_ok=True)
    command = ["rauc", f"--cert={sign.cert}", f"--key={sign.key}", "bundle"]
    command += ["--mksquashfs-args=-comp zstd -Xcompression-level 1 -quiet", str(content), str(bundle)]
    ended = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(content)
    if ended.returncode:
        raise DeviceFault(f"rauc bundle: {ended.stderr[-500:]}")
