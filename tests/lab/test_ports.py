"""A client's own port number is nobody's business: it must not decide whether a file is looked at."""

from __future__ import annotations

import pytest

from sekisho.lab import layout
from sekisho.lab.lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]

MAIL = """
import smtplib, sys
from email.message import EmailMessage
mail = EmailMessage(); mail["From"] = "a@lan.test"; mail["To"] = "b@wan.test"; mail["Subject"] = "port"
mail.set_content("hello")
mail.add_attachment(open(sys.argv[2], "rb").read(), maintype="application", subtype="octet-stream", filename="x.bin")
client = smtplib.SMTP(sys.argv[1], 25, source_address=("0.0.0.0", int(sys.argv[3])), timeout=20)
try:
    client.send_message(mail)
    print(250)
except smtplib.SMTPDataError as refused:
    print(refused.smtp_code)
"""

# 502 Modbus, 20000 DNP3, 44818 EtherNet/IP: an engine that asks the port first takes the connection for one of these.
PORTS = [502, 20000, 44818]


@pytest.mark.parametrize("port", PORTS)
def test_an_infected_mail_from_an_industrial_port_is_refused(whole: Lab, port: int) -> None:
    bad = str(whole.lay.www / "bad" / "1k.bin")
    said = whole.run("lan", ["python3", "-c", MAIL, layout.SERVER4, bad, str(port)]).stdout
    assert said.split() == [b"554"]


@pytest.mark.parametrize("port", PORTS)
def test_an_infected_download_to_an_industrial_port_is_cut(whole: Lab, port: int) -> None:
    argv = ["curl", "-s", "-f", "-m", "20", "--local-port", str(port), "-o", "/dev/null", "-w", "%{exitcode}"]
    said = whole.run("lan", [*argv, f"http://{layout.SERVER4}/bad/1k.bin"]).stdout
    assert said in (b"22", b"56"), "the page of a refused file, or a reset"
