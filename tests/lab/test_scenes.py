"""Every scene of the demo comes out as promised, and the demo's own judgement can fail."""

from __future__ import annotations

import datetime as dt
import signal

import pytest

from sekisho.lab import demo, scenes
from sekisho.lab.lab import Lab
from sekisho.lab.layout import CLIENT_MAC, SERVER4

pytestmark = pytest.mark.lab

SCENES = scenes.all_scenes()


@pytest.mark.parametrize("scene", SCENES, ids=[scene.title.split("  ")[-1] for scene in SCENES])
def test_scene_comes_out_as_promised(whole: Lab, scene: scenes.Scene) -> None:
    began = dt.datetime.now(dt.UTC)
    got = scene.act(whole)
    assert got.ok, got.text
    stored = whole.wait_event(
        lambda event: dt.datetime.fromisoformat(event.at) >= began and scene.event(event), timeout_s=10
    )
    assert stored.event.flow.mac == CLIENT_MAC  # type: ignore[union-attr]  # every scene's event has a flow
    assert getattr(stored.event, "stars", 0) == _stars(scene)


def _stars(scene: scenes.Scene) -> int:
    """A call to C2 and a mail that infects others mean that the device is infected, though both were stopped."""
    if "C2" in scene.title or "infected mail" in scene.title:
        return 3
    return 2 if _is_infected(scene) else 0


def _is_infected(scene: scenes.Scene) -> bool:
    return "EICAR" in scene.title or "infected" in scene.title


def test_without_the_product_no_malicious_scene_is_taken_for_a_success(bare: Lab) -> None:
    promised = [scene for scene in SCENES if _is_infected(scene)]
    assert len(promised) == 5
    assert [scene.title for scene in promised if scene.act(bare).ok] == []


def test_nothing_is_missing_at_the_centre(whole: Lab) -> None:
    def gapless() -> bool:
        sequences = sorted(row.seq for row in whole.events())
        return sequences == list(range(1, len(sequences) + 1))

    whole.wait(gapless, "a number is missing at the centre, or there twice")


@pytest.mark.parametrize("name", ["telemetry", "inspect", "appliance", "center", "mosquitto", "suricata"])
def test_after_a_killed_process_the_next_malicious_file_is_still_stopped(whole: Lab, name: str) -> None:
    pid = whole.kill(name)
    whole.wait(lambda: whole.pid(name) not in (0, pid), f"{name} is not back", 15)
    whole.wait_ready(30)
    whole.wait(whole.inspecting, "the box does not inspect", 15)
    got = scenes.infected(whole, SERVER4)
    assert got.ok, "\n".join((got.text, whole.log_tail("appliance"), whole.log_tail("inspect")))


def test_the_demo_ends_well_only_when_every_row_came_out_as_promised(
    bare: Lab, whole: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert demo.run(whole.lay.name, once=True) == 0
        assert f"{len(SCENES)} / {len(SCENES)}" in capsys.readouterr().out
        monkeypatch.setattr(demo, "EVENT_WITHIN_S", 0)
        assert demo.run(bare.lay.name, once=True) == 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert whole.is_up() and bare.is_up(), "a lab the demo found stays"
