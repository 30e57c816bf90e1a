"""Placing the turns of sessions: the exact plan against all plans there are, rules, figures, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from benchmarks.models.truth import played
from joulelab.analysis.dataset import read_dataset
from joulelab.analysis.modelling.models import fit
from joulelab.analysis.placement.exact import with_copies
from joulelab.analysis.placement.mapper import Mapper
from joulelab.analysis.placement.online import RULES, Expected, RuleName, Switching, all_foreseen, online
from joulelab.analysis.placement.plans import exact, fixed, outcome
from joulelab.analysis.placement.study import PLAN, study
from joulelab.analysis.placement.tables import RE_PREFILL, TRANSFER, Setting, Table, View, tables
from joulelab.analysis.placement.turns import Turn, histories, read_sessions
from joulelab.analysis.space.costs import device_costs
from joulelab.analysis.space.link import Link, parse_link
from joulelab.calibration.integrals import Floats
from joulelab.cli import main
from joulelab.errors import DataInvalid, UserError
from joulelab.simulation.profiles import PROFILES
from joulelab.simulation.timing import expected_seconds
from tests.synthetic import synthetic


@dataclass(frozen=True)
class Straight:
    """A device whose costs are straight lines: seconds a request, a prefilled token, a decode pass and a token that it
    moves; watts.
    """

    device: str
    start: float
    token: float
    each: float
    watts: float = 10.0
    idle_w: float | None = 2.0
    kv_bytes_per_token: float | None = 1000.0
    own: float = 0.0

    def seconds(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return np.asarray(self.start + self.token * np.asarray(prompt) + self.each * (np.asarray(output) - 1.0))

    def joules(self, history: ArrayLike, prompt: ArrayLike, output: ArrayLike) -> Floats:
        return self.watts * self.seconds(history, prompt, output)

    def moving_seconds(self, tokens: ArrayLike) -> Floats:
        return self.own * np.asarray(tokens)

    def moving_joules(self, tokens: ArrayLike) -> Floats:
        return self.watts * self.moving_seconds(tokens)


READER = Straight("reader", 0.1, 0.001, 0.1, watts=30.0)
"""Prefills fast, decodes slowly."""
WRITER = Straight("writer", 0.1, 0.01, 0.01)
TURNS = [Turn(100, 10), Turn(20, 40), Turn(50, 5)]
SESSIONS = {"a": TURNS, "b": [Turn(400, 3), Turn(10, 60)], "c": [Turn(5, 5)], "d": [Turn(30, 90), Turn(900, 2)]}
SHORT = {"a": [Turn(200, 1), Turn(16, 20)], "b": [Turn(16, 64), Turn(64, 16), Turn(16, 16)], "c": [Turn(128, 32)]}
LINK = Link(1e6, 0.05, 1e-6)
IDLE: tuple[Literal["sleep"], Literal["awake"]] = ("sleep", "awake")

lengths = st.integers(1, 300)
some_turns = st.lists(st.builds(Turn, lengths, lengths), min_size=1, max_size=5)
rates = st.floats(1e-4, 1e-1)
some_device = st.builds(Straight, st.just("any"), rates, rates, rates, rates, own=st.just(0.0) | rates)
some_devices = st.lists(some_device, min_size=1, max_size=3)
objectives = st.sampled_from(["latency", "energy", "edp", "energy-capped"])
some_settings = st.builds(
    Setting,
    objectives,
    st.floats(0.1, 10),
    st.sampled_from([None, LINK]),
    st.booleans(),
    st.sampled_from(IDLE),
)


def cheapest(table: Table, setting: Setting) -> float:
    """The least cost of all sequences of devices."""
    value = table.value(setting)
    turns, devices = len(value), value.shape[2]
    plans = (fixed(value, setting.copies, each) for each in product(range(devices), repeat=turns))
    return min(float(value[plan.cells].sum()) for plan in plans)


@given(some_devices, some_turns, some_settings)
@settings(deadline=None, max_examples=60)
def test_the_exact_plan_is_the_cheapest_of_all(devices: list[Straight], turns: list[Turn], setting: Setting) -> None:
    [table] = tables(devices, [View(turns)], setting)
    plan = exact(table, setting)
    assert table.value(setting)[plan.cells].sum() == pytest.approx(cheapest(table, setting))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_the_exact_plan_needs_no_order_among_costs(seed: int, turns: int, devices: int) -> None:
    """Not even that a longer prefix costs less, and devices may be unable to run a turn."""
    rng = np.random.default_rng(seed)
    seconds = rng.exponential(size=(turns, turns, devices, 2))
    seconds[rng.random(seconds.shape) < 0.1] = np.inf
    seconds[:, :, 0, 0] = 5.0
    table = Table(View([Turn(1, 1)] * turns), seconds, None, np.ones(devices))
    for copies in (True, False):
        setting = Setting("latency", copies=copies)
        assert seconds[exact(table, setting).cells].sum() == pytest.approx(cheapest(table, setting))


def test_history_grows_by_what_stays_in_the_cache() -> None:
    assert histories(TURNS) == [0, 109, 168, 222]


def test_a_turn_runs_where_it_is_cheap_once_the_cache_is_caught_up() -> None:
    [table] = tables([READER, WRITER], [View([Turn(5, 300), Turn(2000, 2)])], Setting("latency"))
    plan = exact(table, Setting("latency"))
    assert plan.device.tolist() == [1, 0]
    missing = 5 + 300 - 1
    assert outcome(table, plan).seconds[1] == pytest.approx(READER.seconds(0, missing + 2000, 2))


def test_dropped_copies_have_to_be_made_anew() -> None:
    setting = Setting("latency", copies=False)
    [table] = tables([READER, WRITER], [View(TURNS)], setting)
    plan = fixed(table.value(setting), False, [0, 1, 0])
    assert plan.held.tolist() == [0, 0, 0]
    assert fixed(table.value(setting), True, [0, 1, 0]).held.tolist() == [0, 0, 1]


def test_a_transfer_moves_what_is_missing() -> None:
    setting = Setting("energy", link=LINK)
    [table] = tables([READER, WRITER], [View(TURNS)], setting)
    plan = fixed(table.value(setting), True, [0, 1, 1])
    assert plan.way.tolist() == [RE_PREFILL, TRANSFER, RE_PREFILL]
    found = outcome(table, plan)
    assert found.moved.tolist() == [0.0, 109e3, 0.0]
    wait = LINK.rtt_s + 109e3 / LINK.bandwidth
    assert found.seconds[1] == pytest.approx(WRITER.seconds(109, 20, 40) + wait)
    assert found.joules is not None
    assert found.joules[1] == pytest.approx(WRITER.joules(109, 20, 40) + 2.0 * wait + 109e3 * 1e-6)


@pytest.mark.parametrize(("idle", "others_w"), [("sleep", 0.0), ("awake", 2.0)])
def test_what_a_device_itself_takes_to_move_a_cache_comes_on_top(
    idle: Literal["sleep", "awake"], others_w: float
) -> None:
    setting = Setting("energy", link=LINK, idle=idle)
    slow = replace(WRITER, own=0.003)
    plain, own = (tables([READER, each], [View(TURNS)], setting)[0] for each in (WRITER, slow))
    cell = (1, 0, 1, TRANSFER)
    took = 0.003 * 109
    assert own.seconds[cell] == pytest.approx(plain.seconds[cell] + took)
    assert own.joules is not None
    assert plain.joules is not None
    assert own.joules[cell] == pytest.approx(plain.joules[cell] + (slow.watts + others_w) * took)
    assert np.array_equal(own.seconds[..., RE_PREFILL], plain.seconds[..., RE_PREFILL])


def test_devices_that_stay_awake_draw_their_idle_power() -> None:
    asleep, awake = (tables([READER, WRITER], [View(TURNS)], Setting("energy", idle=idle))[0] for idle in IDLE)
    assert asleep.joules is not None
    assert awake.joules is not None
    known = np.isfinite(asleep.joules)
    assert awake.joules[known] == pytest.approx(asleep.joules[known] + 2.0 * asleep.seconds[known])


def test_as_few_turns_as_possible_break_the_cap() -> None:
    """The reader would draw less for the last turn, but takes longer than the cap."""
    hasty = Straight("hasty", 0.01, 0.0001, 0.001, watts=1000.0)
    setting = Setting("energy-capped", cap_s=0.5)
    [table] = tables([READER, hasty], [View(TURNS)], setting)
    plan = exact(table, setting)
    assert outcome(table, plan).seconds.max() <= 0.5


def test_what_the_policies_cost_is_never_less_than_the_plan() -> None:
    found = study([READER, WRITER], SESSIONS, Setting("energy"))
    assert all(costs.total >= found.costs[PLAN].total * (1 - 1e-12) for costs in found.costs.values())
    assert found.regret(PLAN) == (0, 0, 0, 0)
    assert found.static == "writer"


def test_the_largest_gain_says_where_it_stands() -> None:
    found = study([READER, WRITER], SESSIONS, Setting("latency"))
    gains = found.gains()
    assert gains
    assert gains.total.low is not None
    assert gains.total.low <= gains.total.value
    most = gains.largest
    turn = SESSIONS[most.session][most.turn - 1]
    assert (most.prompt, most.output) == turn
    assert 0 < most.share < 1
    assert most.gain.value >= gains.total.value


def test_plans_are_judged_by_the_truth() -> None:
    """Whoever takes the reader for the better writer pays for it."""
    mistaken = [replace(WRITER, device="reader"), replace(READER, device="writer")]
    found = study(mistaken, SESSIONS, Setting("latency"), truth=[READER, WRITER])
    assert found.regret(PLAN).total > 0.5
    assert found.costs[PLAN].total > found.least.total


def test_the_switching_rule_moves_once_regret_exceeds_the_move() -> None:
    """Each turn on the device it starts on is dearer by 1, and a move costs 2.5 more: it stays for two turns."""
    value = np.full((6, 6, 2, 1), np.inf)
    for k in range(6):
        value[k, : k + 1, 0] = 1.0 if k == 0 else 2.0
        value[k, : k + 1, 1] = 3.5
        value[k, k, 1] = 1.5 if k == 0 else 1.0
    rule = Switching()
    held = np.zeros(2, np.int64)
    chosen = []
    for k in range(6):
        chosen.append(rule.choose(value[k : k + 1, : k + 1], held.tolist(), copies=True))
        held[chosen[-1]] = k + 1
    assert chosen == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("rule", ["horizon", "switching"])
def test_a_rule_costs_what_its_session_of_one_device_costs(rule: RuleName) -> None:
    setting = Setting("latency")
    [ahead] = all_foreseen([READER], [TURNS], setting, [Expected.of([TURNS])])
    assert online(ahead, setting, RULES[rule]()).device.tolist() == [0, 0, 0]


def test_what_is_expected_is_the_mean_of_past_sessions() -> None:
    assert Expected.of([[Turn(10, 4), Turn(20, 6)], [Turn(30, 8)]]) == (Turn(20, 6), 0)
    assert Expected.of([TURNS]).more == 1


def test_a_link_is_written_with_units() -> None:
    assert parse_link("200 Mbit/s 5 ms 0.5 uJ/byte") == Link(25e6, 0.005, 0.5e-6)
    assert parse_link("1 GB/s 1ms").joules_per_byte is None


@pytest.mark.parametrize("text", ["5 ms", "200 Mbit/s", "fast", "0 MB/s 5 ms", "10 MB 5 ms"])
def test_a_link_without_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_link(text)


@pytest.mark.parametrize(
    ("devices", "setting", "reason"),
    [
        ([READER], Setting("energy", link=Link(1e6, 0.0, None)), "what the link draws is unknown"),
        ([replace(READER, kv_bytes_per_token=None)], Setting("latency", link=LINK), "how large the KV cache"),
        ([replace(READER, idle_w=None)], Setting("energy", idle="awake"), "idle power of reader"),
        ([READER], Setting("energy-capped", cap_s=0.1), "no device keeps the cap of 0.1 s"),
    ],
)
def test_what_cannot_be_counted_is_refused(devices: list[Straight], setting: Setting, reason: str) -> None:
    with pytest.raises(DataInvalid, match=reason):
        study(devices, SESSIONS, setting)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("session,prompt\na,1\n", "no column 'output'"),
        ("session,prompt,output\na,1,0\n", "line 2: prompt and output"),
        ("session,prompt,output\na,1\n", "line 2: prompt and output"),
        ("session,prompt,output\n", "has no turns"),
    ],
)
def test_a_bad_sessions_file_says_why(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "sessions.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=reason):
        read_sessions(path)


def test_too_many_plans_that_are_about_as_good_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("joulelab.analysis.placement.exact.MOST_LABELS", 1)
    cost = np.random.default_rng(0).exponential(size=(8, 8, 4))
    with pytest.raises(DataInvalid, match="--copies drop"):
        with_copies(cost, np.zeros(4, np.int64))


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets of a device and of one that prefills ten times as slowly and decodes twice as fast; sessions."""
    folder = tmp_path_factory.mktemp("bench")
    measured(folder / "reader", "reader", {"prefill": 1.0, "decode": 1.0})
    measured(folder / "writer", "writer", {"prefill": 10.0, "decode": 0.5})
    rows = (f"{name},{turn.prompt},{turn.output}" for name, turns in SHORT.items() for turn in turns)
    (folder / "sessions.csv").write_text("\n".join(["session,prompt,output", *rows]))
    (folder / "one.csv").write_text("session,prompt,output\na,200,1\na,16,20\n")
    (folder / "far.csv").write_text("session,prompt,output\na,200,1\na,4000,20\n")
    return folder


def measured(path: Path, device: str, slower: dict[str, float]) -> None:
    """A dataset of the synthetic device whose phases take so many times as long, and as much energy."""
    phases = synthetic(noise=0.01, device=device, model="m", quant="q8")
    table = phases.table[phases.table["phase"] != "total"]
    table = table.assign(**{name: table[name] * table["phase"].map(slower) for name in ("duration_s", "energy_j")})
    totals = table.groupby("inference")[["duration_s", "energy_j"]].sum()
    whole = phases.table[phases.table["phase"] == "total"].set_index("inference", drop=False)
    whole = whole.assign(duration_s=totals["duration_s"], energy_j=totals["energy_j"])
    replace(phases, table=pd.concat([table, whole], ignore_index=True)).save(path)


@pytest.fixture
def call(bench: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`joulelab place` on both devices."""
    monkeypatch.chdir(bench)

    def called(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(["place", "reader", "writer", *arguments])
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return called


@pytest.mark.parametrize("objective", ["latency", "energy", "edp", "energy-capped"])
def test_place_prints_every_policy_and_the_gain(call: Call, objective: str) -> None:
    cap = ["--cap", "5s"] if objective == "energy-capped" else []
    code, out, err = call("--sessions", "sessions.csv", "--objective", objective, *cap)
    assert (code, err) == (0, "")
    for said in ("plan", "best static", "token threshold", "greedy", "random", "switching rule", "geometric mean"):
        assert said in out


def test_place_writes_the_plan_of_every_session_as_json(call: Call) -> None:
    found = json.loads(call("--sessions", "sessions.csv", "--json")[1])
    assert {name: len(steps) for name, steps in found["plan"].items()} == {n: len(t) for n, t in SHORT.items()}
    assert found["policies"][0] | {"policy": "plan", "regret_total": 0.0} == found["policies"][0]
    assert found["gains"]["total"]["value"] >= 1


def test_place_shows_a_single_session_turn_by_turn_and_draws_it(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("--sessions", "one.csv", "--copies", "drop", "--out", str(tmp_path / "plan.svg"))
    assert code == 0
    assert "history" in out
    assert "<svg" in (tmp_path / "plan.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        ([], 1, "--sessions names the turns"),
        (["--sessions", "one.csv", "--objective", "energy-capped"], 1, "--cap"),
        (["--sessions", "one.csv", "--objective", "energy-capped", "--cap", "1 ms"], 5, "no device keeps the cap"),
        (["--sessions", "one.csv", "--link", "5 ms"], 1, "lacks bandwidth"),
        (["--sessions", "one.csv", "--link", "1 MB/s 5 ms"], 5, "how large the KV cache of reader is"),
        (["--sessions", "far.csv"], 5, "turn 2 of session a lies outside every device's range"),
        (["--sessions", "one.csv", "--model", "other"], 5, "no device has a model of other"),
    ],
)
def test_place_says_in_one_line_what_it_cannot_do(call: Call, arguments: list[str], code: int, reason: str) -> None:
    found, out, err = call(*arguments)
    assert (found, out) == (code, "")
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("device", PROFILES)
def test_the_truth_of_a_simulated_device_is_the_mean_of_its_luck(device: str) -> None:
    seconds, joules = played(device, (300, 700, 30))
    profile = PROFILES[device]
    assert seconds == pytest.approx(sum(expected_seconds(profile, 300, 700, 30)), rel=1e-6)
    assert joules > profile.power.idle_w * seconds


def test_the_mapper_is_asked_turn_by_turn(bench: Path) -> None:
    costs = device_costs([each for name in ("reader", "writer") for each in fit(read_dataset(bench / name))])
    mapper = Mapper(costs, Setting("latency"), Expected(Turn(16, 16), 2))
    assert mapper.place(16, 64, later=[]) == "writer"
    mapper.ran(64)
    assert mapper.place(128, 1, later=[]) == "reader"
    mapper.ran(1, "writer")
    assert mapper.place(16, 20) == "writer"
    with pytest.raises(DataInvalid, match="outside every device's range"):
        mapper.place(5000)
