"""Status lines, header lines and line ends as no grammar has them, and answers that arrive in odd pieces."""

from __future__ import annotations

import gzip

from tricks import CLOSE, OK, SAVE, TYPE, Cases, body, chunks, head, length

from sekisho.lab.evader import plain


def status_lines() -> Cases:
    """RFC 9112 4, and what stands in its place or before it."""
    data = body("status")
    sized, chunked = length(data), b"Transfer-Encoding: chunked"
    lines = {
        "no-reason": b"HTTP/1.1 200", "space": b"HTTP/1.1 200 ", "lower": b"http/1.1 200 ok",
        "mixed": b"hTTp/1.1 200 OK", "1.010": b"HTTP/1.010 200 OK", "1.01": b"HTTP/1.01 200 OK",
        "01.1": b"HTTP/01.1 200 OK",
        "1": b"HTTP/1 200 OK", "2": b"HTTP/2 200", "2.0": b"HTTP/2.0 200 OK", "3": b"HTTP/3 200",
        "0.9": b"HTTP/0.9 200 OK", "1.0": b"HTTP/1.0 200 OK", "1.2": b"HTTP/1.2 200 OK", "9.9": b"HTTP/9.9 200 OK",
        "1.": b"HTTP/1. 200 OK",
        "1.1.1": b"HTTP/1.1.1 200 OK", "space-slash": b"HTTP /1.1 200 OK", "spaces": b"HTTP/1.1    200 OK",
        "tab": b"HTTP/1.1\t200\tOK", "vt": b"HTTP/1.1\x0b200\x0bOK", "nul": b"HTTP/1.1\0 200 OK",
        "cr": b"HTTP/1.1 200 \rOK",
        "cr-field": b"HTTP/1.1 200 OK\rTransfer-Encoding: chunked", "0200": b"HTTP/1.1 0200 OK",
        "2000": b"HTTP/1.1 2000 OK", "20": b"HTTP/1.1 20 OK", "20x": b"HTTP/1.1 20x OK", "hex": b"HTTP/1.1 0xc8 OK",
        "plus": b"HTTP/1.1 +200 OK",
        "minus": b"HTTP/1.1 -200 OK", "no-code": b"HTTP/1.1", "no-code-ok": b"HTTP/1.1 OK",
        "code-glued": b"HTTP/1.1200 OK", "icy": b"ICY 200 OK", "icy-lower": b"icy 200 ok", "sip": b"SIP/2.0 200 OK",
        "rtsp": b"RTSP/1.0 200 OK",
        "https": b"HTTPS/1.1 200 OK", "htttp": b"HTTTP/1.1 200 OK", "xhttp": b"XHTTP/1.1 200 OK",
        "space-http": b" HTTP/1.1 200 OK", "tab-http": b"\tHTTP/1.1 200 OK",
        "long-reason": b"HTTP/1.1 200 " + b"x" * 5000, "nul-reason": b"HTTP/1.1 200 O\0K",
        "fold": b"HTTP/1.1 200\r\n OK", "bom": b"\xef\xbb\xbfHTTP/1.1 200 OK", "minus-version": b"HTTP/-1.1 200 OK",
        "plus-version": b"HTTP/+1.1 200 OK", "comma": b"HTTP/1,1 200 OK", "reason-number": b"HTTP/1.1 200 204",
        "utf8": "HTTP/1.1 ２００ OK".encode(),
        "two": b"HTTP/1.1 204 No\r\nHTTP/1.1 200 OK", "two-close": b"HTTP/1.1 200 OK\r\nHTTP/1.1 204 No",
    }  # fmt: skip
    made: dict[str, bytes] = {}
    for name, line in lines.items():
        made[f"status-{name}"] = head(sized, status=line) + data
        made[f"status-{name}-chunked"] = head(chunked, status=line) + chunks(data)
        made[f"status-{name}-by-close"] = head(status=line) + data
    before = {
        "crlf": b"\r\n", "crlfs": b"\r\n" * 3, "lf": b"\n", "lfs": b"\n" * 40, "cr": b"\r", "space": b" ",
        "tab-cr-crlf": b" \t\r\r\n", "junk-line": b"junk\r\n", "sip-line": b" SIP/2.0 200 ok\r\n", "nul": b"\0",
        "nuls": b"\0" * 8, "letter": b"x", "http": b"HTTP",
        "junk-1k": b"j" * 1000 + b"\r\n", "junk-20k": b"j" * 20000 + b"\r\n", "field-first": b"X: y\r\n",
        "blank-and-field": b"\r\nX: y\r\n", "telnet": b"\xff\xfb\x01", "ssh": b"SSH-2.0-x\r\n",
        "smtp": b"220 x ESMTP\r\n", "ftp": b"220 x FTP\r\n",
        "100": b"HTTP/1.1 100 Continue\r\n\r\n", "100-many": b"HTTP/1.1 100 Continue\r\n\r\n" * 30,
        "102": b"HTTP/1.1 102 Processing\r\n\r\n", "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n",
        "199": b"HTTP/1.1 199 X\r\n\r\n",
        "100-length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "100-chunked": b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        "100-lf": b"HTTP/1.1 100 Continue\n\n", "204": b"HTTP/1.1 204 No\r\n\r\n",
        "304": b"HTTP/1.1 304 No\r\n\r\n",
        "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        "200-empty": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    }  # fmt: skip
    made |= {f"before-{name}": junk + head(sized) + data for name, junk in before.items()}
    made |= {f"before-{name}-chunked": junk + head(chunked) + chunks(data) for name, junk in before.items()}
    made |= {f"before-{name}-nothing": junk + data for name, junk in before.items()}
    codes = (
        "100 101 102 103 199 201 202 203 204 205 206 207 208 226 299 300 301 302 303 304 305 306 307 308 399 400 "
        "401 403 404 405 407 408 410 416 418 426 429 451 499 500 502 503 511 599 600 700 999 000 099"
    )
    for code in codes.split():
        line = b"HTTP/1.1 " + code.encode() + b" OK"
        made[f"code-{code}"] = head(sized, status=line) + data
        made[f"code-{code}-chunked"] = head(chunked, status=line) + chunks(data)
        made[f"code-{code}-by-close"] = head(status=line) + data
        packed = gzip.compress(data)
        made[f"code-{code}-gzip"] = head(b"Content-Encoding: gzip", length(packed), status=line) + packed
    made["no-head"] = data
    made["no-head-lf"] = b"\n" + data
    made["no-head-html"] = b"<html>" + data
    for name, fields in {
        "websocket": (b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x"),
        "h2c": (b"Upgrade: h2c", b"Connection: Upgrade"),
    }.items():
        made[f"upgrade-{name}-101"] = (
            b"\r\n".join((b"HTTP/1.1 101 Switching Protocols", *fields)) + b"\r\n\r\n" + head(sized) + data
        )
        made[f"upgrade-{name}-200"] = head(*fields, sized) + data
    return {name: plain(sent) for name, sent in made.items()}


def header_lines() -> Cases:
    """RFC 9112 2.2 and 5: line ends, the end of the head, and lines that are no fields."""
    data = body("lines")
    made: dict[str, bytes] = {}
    ways = {
        "sized": ((length(data),), data),
        "chunked": ((b"Transfer-Encoding: chunked",), chunks(data)),
        "gzip": ((b"Content-Encoding: gzip", length(gzip.compress(data, mtime=0))), gzip.compress(data, mtime=0)),
        "closed": ((), data),
    }
    eols = {
        "lf": b"\n",
        "cr": b"\r",
        "crcrlf": b"\r\r\n",
        "lfcr": b"\n\r",
        "nul-lf": b"\0\n",
        "space-lf": b" \n",
        "ff": b"\x0c\r\n",
        "vt": b"\x0b\r\n",
    }
    ends = {
        "lf": b"\n", "lf-lf": b"\n\n", "crcrlf": b"\r\r\n", "lfcrcrlf": b"\n\r\r\n", "space-crlf": b" \r\n\r\n",
        "space-lf": b" \n", "lf-space-lf": b"\n \n", "space-lf-lf": b" \n\n", "tab-lf": b"\t\n",
        "tab-lf-lf": b"\t\n\n", "vt-lf-lf": b"\x0b\n\n",
        "nul": b"\0\r\n\r\n", "cr": b"\r", "space-cr": b" \r\n", "colon": b":\r\n\r\n", "dot": b".\r\n\r\n",
        "lfcr": b"\n\r", "crlf-space-crlf": b"\r\n \r\n", "none": b"\x01",
    }  # fmt: skip
    junk = {
        "nul-field": b"\0X: y", "nul-name": b"X\0: y", "nul-value": b"X: \0y", "space-name": b"Foo Bar: y",
        "no-colon": b"junk", "empty-name": b": y", "colon": b":", "colons": b":::", "fold-first": b" folded",
        "tab-fold": b"X: y\r\n\tz", "cr-inside": b"X: y\rZ: z",
        "lf-inside": b"X: y\nZ: z", "crcr-inside": b"X: y\r\r\nZ: z", "del": b"\x7fX: y", "high": b"\xff\xfe: y",
        "long": b"X: " + b"y" * 9000, "very-long": b"X: " + b"y" * 70000, "too-long": b"X: " + b"y" * 95000,
        "many": b"\r\n".join([b"X: y"] * 90),
        "very-many": b"\r\n".join([b"X: y"] * 3000), "folds": b"X: y" + b"\r\n z" * 300, "status": b"HTTP/1.1 204 No",
        "quote": b'X: "', "comment": b"X: (", "utf7": b"X: +AA0ACg-", "only-cr": b"\r", "bell": b"\x07",
        "brackets": b"{X}: y", "html": b"<html>",
    }  # fmt: skip
    for way, (fields, sent) in ways.items():
        made |= {f"eol-{name}-{way}": head(*fields, eol=eol) + sent for name, eol in eols.items()}
        made |= {f"head-end-{name}-{way}": head(*fields, end=end) + sent for name, end in ends.items()}
        made |= {f"line-{name}-{way}": head(line, *fields) + sent for name, line in junk.items()}
        made |= {
            f"line-{name}-first-{way}": b"\r\n".join((OK, line, TYPE, SAVE, CLOSE, *fields)) + b"\r\n\r\n" + sent
            for name, line in junk.items()
        }
    return {name: plain(sent) for name, sent in made.items()}


def pieces() -> Cases:
    """The same plain answer in other packets, with pauses, and ended in other ways."""
    data = body("pieces")
    packed = gzip.compress(data)
    made: Cases = {}
    ways = {
        "sized": head(length(data)) + data,
        "chunked": head(b"Transfer-Encoding: chunked") + chunks(data, 9),
        "gzip": head(b"Content-Encoding: gzip", length(packed)) + packed,
        "closed": head() + data,
    }
    for way, sent in ways.items():
        for end in ("close", "client", "reset"):
            made[f"pieces-whole-{way}-{end}"] = plain(sent, end=end)
            made[f"pieces-1-{way}-{end}"] = plain(*(bytes([byte]) for byte in sent), end=end)
            made[f"pieces-last-{way}-{end}"] = plain(sent[:-1], sent[-1:], end=end, pause_s=0.3)
        for pause in (0.008, 0.015, 0.1):
            cuts = [sent[:20], sent[20:90], sent[90:-160], sent[-160:-120], sent[-120:-60], sent[-60:-1], sent[-1:]]
            made[f"pieces-pause-{pause * 1000:g}ms-{way}"] = plain(*cuts, pause_s=pause)
        made[f"pieces-two-answers-{way}"] = plain(
            head(b"Content-Length: 0").replace(CLOSE, b"Connection: keep-alive") + sent
        )
        made[f"pieces-padded-{way}"] = plain(
            sent.replace(b"\r\nContent-Disp", b"\r\nX-Pad: " + b"p" * 1400 + b"\r\nContent-Disp")
        )
    return made
