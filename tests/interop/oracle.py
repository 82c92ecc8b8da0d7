"""What the figures must be: DESIGN.md section 4 written down a second time, from readings alone.

Deliberately simple and slow: every figure is worked out from the whole history. It shares nothing with
gemba but the rules. Covers what the reference configuration uses.
"""

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

BERLIN = ZoneInfo("Europe/Berlin")
SHIFTS = [  # config/line.yaml: name, start, end, breaks
    ("early", time(6), time(14), [(time(10), time(10, 30))]),
    ("late", time(14), time(22), []),
    ("night", time(22), time(6), []),
]
RUN = {"producing", "slow"}
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Reading:
    """`value` is None when bad."""

    tag: str
    time: int
    value: object


@dataclass(frozen=True)
class Spec:
    """What config/line.yaml says of a station."""

    ideal_ns: int
    states: dict
    total: bool = False
    good: bool = False
    reject: bool = False

    @property
    def counters(self):
        return [name for name in ("total", "good", "reject") if getattr(self, name)]


SPECS = {
    "printer-1": Spec(
        1_200_000_000,
        {1: "producing", 2: "starved", 3: "blocked", 4: "setup", 5: "down"},
        total=True,
        reject=True,
    ),
    "aoi-1": Spec(
        1_000_000_000,
        {"Execute": "producing", "Held": "down", "Suspended": "starved", "Idle": "idle"},
        good=True,
        reject=True,
    ),
    "oven-1": Spec(1_000_000_000, {"running": "producing", "stopped": "down"}, total=True),
}


@dataclass
class Figures:
    """None is "cannot be known"."""

    since: int = 0
    shift: str = ""
    oee: float | None = None
    availability: float | None = None
    performance: float | None = None
    quality: float | None = None
    coverage: float | None = None
    total: int = 0
    good: int = 0
    reject: int = 0
    unattributed: int = 0
    planned: int = 0  # nanoseconds, known ones
    run: int = 0
    unknown: int = 0
    states: dict = field(default_factory=dict)  # nanoseconds, planned or not


RATIOS = ("oee", "availability", "performance", "quality", "coverage")


def shift_at(ns):
    """Name, start, end and breaks (in nanoseconds) of the shift that runs at an instant."""
    today = datetime.fromtimestamp(ns / 1e9, BERLIN).date()
    for day in (today - timedelta(days=1), today):
        for name, start, end, breaks in SHIFTS:
            last = day + timedelta(days=1) if end <= start else day
            begin, finish = instant(day, start), instant(last, end)
            if begin <= ns < finish:
                return name, begin, finish, [(instant(day, a), instant(day, b)) for a, b in breaks]
    raise AssertionError("the shifts of config/line.yaml leave no gap")


def instant(day, at):
    return int(datetime.combine(day, at, BERLIN).timestamp()) * 1_000_000_000


def overlap(spans, begin, end):
    return sum(max(0, min(b, end) - max(a, begin)) for a, b in spans)


def minus(begin, end, holes):
    """[begin, end) without the holes, which are sorted and apart."""
    left = []
    for a, b in holes:
        if begin < a < end:
            left.append((begin, a))
        begin = max(begin, min(b, end)) if a < end else begin
    return left + ([(begin, end)] if begin < end else [])


def intervals(spec, readings, until):
    """The state over time: (from, to, state), without gaps from the first reading on."""
    now, since, found = UNKNOWN, readings[0].time, []
    for reading in readings:
        if reading.tag != "state" or reading.time > until:
            continue
        word = spec.states.get(reading.value, UNKNOWN) if reading.value is not None else UNKNOWN
        if reading.time > since:
            found.append((since, reading.time, now))
            since = reading.time
        now = word
    if until > since:
        found.append((since, until, now))
    return found


@dataclass(frozen=True)
class Made:
    """Parts shown by one reading of one counter."""

    time: int
    counter: str
    count: int
    attributed: bool


def made(spec, readings, states, until):
    """Every counter's differences."""
    unknown = [(a, b) for a, b, state in states if state == UNKNOWN]
    found = []
    for counter in spec.counters:
        value = at = bad_since = None
        blind = 0
        for reading in readings:
            if reading.tag != counter or reading.time > until:
                continue
            if reading.value is None:
                bad_since = reading.time if bad_since is None else bad_since
                continue
            if bad_since is not None:
                blind, bad_since = reading.time - bad_since, None
            if value is not None:
                count = reading.value - value if reading.value >= value else reading.value
                seen = blind <= 0 and overlap(unknown, at, reading.time) == 0
                if count:
                    found.append(Made(reading.time, counter, count, seen))
            value, at, blind = reading.value, reading.time, 0
    return found


def parts(spec, rows):
    """Total, good and reject of some differences: any two give the third, a lone total is all good."""
    sums = {name: sum(row.count for row in rows if row.counter == name) for name in ("total", "good", "reject")}
    if spec.total and spec.reject:
        sums["good"] = sums["total"] - sums["reject"]
    elif spec.good and spec.reject:
        sums["total"] = sums["good"] + sums["reject"]
    else:
        sums["good"] = sums["total"]
    return sums


def figures(station, readings, at, min_coverage=0.5):
    """The station's figures at an instant, for the shift that runs then. `readings` are in order of application."""
    spec = SPECS[station]
    name, begin, _, breaks = shift_at(at)
    first = min(reading.time for reading in readings)
    out = Figures(since=max(begin, first), shift=name)
    states = intervals(spec, readings, at)
    planned = minus(out.since, at, breaks)
    for a, b, state in states:
        span = overlap(planned, a, b)
        if state == UNKNOWN:
            out.unknown += span
        else:
            out.planned += span
            out.run += span if state in RUN else 0
        inside = max(0, min(b, at) - max(a, out.since))
        if inside:
            out.states[state] = out.states.get(state, 0) + inside
    rows = [row for row in made(spec, readings, states, at) if row.time >= out.since]
    sums = parts(spec, rows)
    out.total, out.good, out.reject = sums["total"], sums["good"], sums["reject"]
    out.unattributed = parts(spec, [row for row in rows if not row.attributed])["total"]
    in_time = [row for row in rows if row.attributed and not any(a <= row.time < b for a, b in breaks)]
    if out.total:
        out.quality = out.good / out.total
    if out.planned + out.unknown:
        out.coverage = out.planned / (out.planned + out.unknown)
    if out.planned and out.coverage >= min_coverage:
        out.availability = out.run / out.planned
        if out.run:
            out.performance = spec.ideal_ns * parts(spec, in_time)["total"] / out.run
        if not out.run or not out.performance:
            out.oee = 0.0
        elif out.quality is not None:
            out.oee = out.availability * out.performance * out.quality
    return out


def life(station, readings, at):
    """Good and rejected parts since the first reading ever, and nanoseconds in each state."""
    spec = SPECS[station]
    states = intervals(spec, readings, at)
    times = {}
    for a, b, state in states:
        times[state] = times.get(state, 0) + b - a
    sums = parts(spec, made(spec, readings, states, at))
    return sums["good"], sums["reject"], times


def transitions(station, readings):
    """(when, from, to) of each change of state."""
    spec, now, found = SPECS[station], UNKNOWN, []
    for reading in readings:
        if reading.tag != "state":
            continue
        word = spec.states.get(reading.value, UNKNOWN) if reading.value is not None else UNKNOWN
        if word != now:
            found.append((reading.time, now, word))
            now = word
    return found


def close(one, other, tolerance=1e-9):
    """Equal to the digit; None equals only None."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= tolerance * max(1.0, abs(one), abs(other))
