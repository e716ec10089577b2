"""Small samples every YARA set is tried on before it may guard anyone: what it must find, and what it must leave alone.

The EICAR test string is put together at run time, so that this file is not itself taken for it.
"""

from __future__ import annotations

from typing import Final

EICAR: Final = b"X5O!P%@AP[4\\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-" + b"ANTIVIRUS-TEST-FILE!" + b"$H+H*"

MALICIOUS: Final = {
    "EICAR": EICAR,
    "EICAR at the end of a larger file": b"\x00sekisho" * 4096 + EICAR,
}

CLEAN: Final = {
    "empty file": b"",
    "zeros": bytes(65536),
    "every byte": bytes(range(256)) * 256,
    "plain text": b"The quick brown fox jumps over the lazy dog.\n" * 200,
    "Japanese text": "いつもお世話になっております。請求書を添付いたします。\n".encode() * 100,
    "web page": b"<!DOCTYPE html><html><head><title>Menu</title><script>document.title='Menu';</script></head>"
    b"<body><a href='/'>home</a></body></html>",
    "PDF head": b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\ntrailer << /Root 1 0 R >>\n%%EOF\n",
    "program head": b"MZ" + bytes(58) + b"\x80\0\0\0" + bytes(64) + b"PE\0\0L\1" + bytes(512),
    "ELF head": b"\x7fELF\x02\x01\x01" + bytes(505),
    "ZIP head": b"PK\x03\x04\x14\0\0\0\0\0" + bytes(16) + b"\x0a\0\0\0report.txt",
    "JPEG head": b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01" + bytes(500),
}
