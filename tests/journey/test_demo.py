"""`make demo` opens on the portal: what it prints lets somebody in before the first attack, who then sees them all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from sekisho.lab.lab import Lab

LETS_IN = re.compile(r"the portal: +(https://\S+)/\n.*?login +(\S+)\n.*?password +(\S+)\n", re.DOTALL)


@pytest.mark.lab
@pytest.mark.timeout(180)
def test_the_demo_prints_where_to_look_and_who_looks_sees_its_attacks(tmp_path: Path) -> None:
    name, said = f"jd{os.getpid()}", tmp_path / "said"
    argv = [str(Path(sys.executable).with_name("sekisho")), "lab", "demo", "--name", name]
    with said.open("wb") as out:
        demo = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT)
    try:
        lab = Lab(name)
        while not (found := LETS_IN.search(said.read_text())):
            assert demo.poll() is None, said.read_text()
            time.sleep(0.05)
        url, login, password = found.groups()
        with requests.Session() as browser:
            browser.trust_env = False  # the lab's authority, whatever this machine trusts
            browser.verify = str(lab.lay.authority / "ca.crt")
            form = {"login": login, "password": password, "next": "/"}
            answer = browser.post(f"{url}/login", data=form, headers={"origin": url}, timeout=20)
            assert answer.url == f"{url}/", "signed in, at home"

            def shown() -> bool:
                page = browser.get(f"{url}/alerts", timeout=20).text
                return page.count("data-alert=") >= 7

            lab.wait(shown, "the attacks are not on the page", 60)
        assert "10 / 10" in said.read_text() or demo.poll() is None
    finally:
        demo.send_signal(signal.SIGINT)
        demo.wait(60)
    assert not lab.is_up(), "nothing stays"
