"""A view as an Internet message (RFC 5322): plain text and HTML side by side, in Japanese or English.

The same mail row gives the same message, to the Message-ID and the Date, however often it is sent: a mail that arrives
twice after a crash can be known for one. No header can hold a line break: the policy refuses them, and the two that
are encoded here are one line of encoded words.
"""

from __future__ import annotations

import datetime as dt
import email.policy
from email.header import Header
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from typing import Final

import jinja2

from sekisho.center.notify.view import Block, Row, View

POLICY: Final = email.policy.SMTP.clone(max_line_length=76, cte_type="7bit")


@cache
def _html() -> jinja2.Template:
    loader = jinja2.PackageLoader("sekisho.center.notify", "templates")
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).get_template("mail.html")


def render_html(view: View) -> str:
    return _html().render(view=view)


def render_text(view: View) -> str:
    """The view as plain text; the order is that of the HTML."""
    parts = [f"{view.stars} {view.badge}".strip(), view.title]
    parts += [view.greeting, view.intro] if view.greeting or view.intro else []
    parts = [part for part in parts if part]
    if view.rows:
        parts.append(_rows(view.rows))
    if view.todo:
        parts.append(f"■ {view.todo_label}\n{view.todo}")
    parts += [_block(view, block, alone=len(view.blocks) == 1) for block in view.blocks]
    parts += [view.more] if view.more else []
    parts += [f"▶ {button.text}\n{button.url}" for button in view.buttons]
    return "\n\n".join([*parts, "--\n" + "\n".join(view.foot)]) + "\n"


def _block(view: View, block: Block, *, alone: bool) -> str:
    head = [] if alone else [f"{block.stars} {block.title}".strip()]
    parts = ["\n".join([*head, _rows(block.rows)])]
    if block.todo:
        parts.append(f"■ {view.todo_label}\n{block.todo}")
    if block.details:
        parts.append((f"■ {view.detail_label}\n" if alone else "") + _rows(block.details))
    return ("\n\n" if alone else "\n").join(parts)


def _rows(rows: list[Row]) -> str:
    return "\n".join(f"{row.label}: {row.value}" for row in rows)


def build(
    view: View, *, id_: str, thread: str, sender: str, sender_name: str, recipient: str, at: dt.datetime
) -> bytes:
    """The message as it goes over the wire, 7-bit, lines ended by CRLF. `id_` and `thread` name it and its first."""
    domain = sender.rpartition("@")[2]
    message = EmailMessage(policy=POLICY)
    message["To"] = Address("", *recipient.rsplit("@", 1))
    message["Date"] = format_datetime(at)
    message["Message-ID"] = f"<{id_}@{domain}>"
    if thread and thread != id_:
        message["In-Reply-To"] = message["References"] = f"<{thread}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 5: nothing answers it by itself
    message["X-Auto-Response-Suppress"] = "All"
    if view.important:
        message["Importance"] = "high"
    message.set_content(render_text(view), cte="base64")
    message.add_alternative(render_html(view), subtype="html", cte="base64")
    message["Content-Language"] = view.locale
    boundary = f"=_{id_}"
    message.set_boundary(boundary)
    # The policy loses spaces between encoded words (RFC 2047 6.2); the older encoder does not.
    head = f"From: {_words(sender_name)} <{sender}>\r\nSubject: {_words(view.subject)}\r\n"
    return head.encode("ascii") + message.as_bytes()


def _words(text: str) -> str:
    """Encoded words of at most 75 characters, folded."""
    return Header(text, "utf-8", maxlinelen=75, header_name="Subject").encode(linesep="\r\n")
