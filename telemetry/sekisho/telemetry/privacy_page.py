"""docs/privacy.md: what leaves the box, for its owner and for whoever judges it. Made of the types, never by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sekisho.telemetry import fields
from sekisho.telemetry.fields import Field

_HEAD: Final = """\
# 装置から出るもの / What leaves the box

<!-- Made by `sekisho telemetry fields --markdown`; a test keeps it equal to the types. -->

**日本語。** 装置が見守りセンターへ送るのは、下の表にある項目だけです。表は装置のプログラムの型から作られ、
表にない項目は送信する仕組みそのものにありません。

- メールの本文、添付ファイルやファイルの中身、フォームに入力した内容、クッキー、パスワードは送りません。
- URL からは利用者名、パスワード、`#` より後を除き、`?` より後の値は `…` に置き換えます。
- メールの件名は、検知したメールのものだけを送ります。
- 通信は証明書で互いを確かめた TLS で暗号化します。
- 実際に送ったものは、装置の上でいつでも見られます: `sekisho telemetry sent --since 2h`
- `[telemetry] mask_internal = true` にすると、社内の端末の IP アドレス、MAC アドレス、端末名は仮名
  (`ip-…`、`mac-…`、`dev-…`)でだけ送ります。仮名は装置の中の鍵で作り、鍵は装置から出ません。
  同じ端末はいつも同じ仮名です。元の名前は装置の上でだけ分かります: `sekisho telemetry whois mac-…`

**English.** The fields below are all a box ever sends to the monitoring centre. The tables are made of the program's
own types; what is not in them has no way to leave.

- Never: a mail's body, an attachment's or file's content, what was typed into a form, cookies, passwords.
- URLs lose user, password and fragment; the values of a query become `…`.
- A mail's subject leaves only where the mail was detected.
- All of it goes over TLS with certificates on both sides.
- What was really sent can be seen on the box at any time: `sekisho telemetry sent --since 2h`
- With `[telemetry] mask_internal = true` devices' IP addresses, hardware addresses and names leave as pseudonyms only
  (`ip-…`, `mac-…`, `dev-…`), made with a key that never leaves the box. One device always has the same pseudonym;
  only the box can say whose it is: `sekisho telemetry whois mac-…`. A rule's own words (its name, its class) and
  public addresses and names are not masked.

列の意味: 上限 = 文字数、または件数 × 文字数。仮名 = `mask_internal` のとき、● 全体が仮名になる、○ 中に含まれる
社内のアドレスと端末名が仮名になる。
Columns: at most = characters, or entries × characters; masked = with `mask_internal`, ● all of it becomes a pseudonym,
○ addresses and device names inside it do.
"""
_MARK: Final = {"all": "●", "inside": "○", "": ""}


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_tables()]).rstrip() + "\n"


def _tables() -> Iterator[str]:
    by_type: dict[str, list[Field]] = {}
    for field in fields.every():
        by_type.setdefault(field.type, []).append(field)
    for name, of_type in by_type.items():
        ja, en = fields.of_type(name)
        yield f"## {name}\n\n{ja} {en}\n"
        yield "| 項目 field | 意味 | meaning | 上限 at most | 仮名 masked |\n|---|---|---|---|---|"
        for field in of_type:
            yield f"| `{field.name}` | {field.ja} | {field.en} | {field.cap} | {_MARK[field.masked]} |"
        yield ""
