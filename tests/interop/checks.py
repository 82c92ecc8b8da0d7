"""What must be in the collector's files after the script: every value, time, unit, validity and figure."""

import json
import struct
from itertools import groupby

from asyncua.ua import StatusCodes

import oracle
import otlp
from oracle import RATIOS, Reading, close

SECOND = 1_000_000_000
TEXT_STATE = {"aoi-1", "oven-1"}

LINKS = ("tcp://127.0.0.1:5020", "opc.tcp://127.0.0.1:4840", "mqtt://127.0.0.1:1883")

# DESIGN.md section 3: kind, unit, attributes beside the station
GAUGE, SUM = "gauge", "sum cumulative monotonic"
CONTRACT = {
    "factory.oee": (GAUGE, "1", {"factory.shift"}),
    "factory.availability": (GAUGE, "1", {"factory.shift"}),
    "factory.performance": (GAUGE, "1", {"factory.shift"}),
    "factory.quality": (GAUGE, "1", {"factory.shift"}),
    "factory.coverage": (GAUGE, "1", {"factory.shift"}),
    "factory.yield.first_pass": (GAUGE, "1", {"factory.shift"}),
    "factory.defect.rate": (GAUGE, "1", {"factory.shift"}),
    "factory.teep": (GAUGE, "1", {"factory.shift"}),
    "factory.production.target": (GAUGE, "{part}", {"factory.shift"}),
    "factory.production.actual": (GAUGE, "{part}", {"factory.shift"}),
    "factory.maintenance.failures": (GAUGE, "{failure}", {"factory.shift"}),
    "factory.maintenance.mtbf": (GAUGE, "s", {"factory.shift"}),
    "factory.maintenance.mttr": (GAUGE, "s", {"factory.shift"}),
    "factory.maintenance.corrective": (GAUGE, "1", {"factory.shift"}),
    "factory.parts": (SUM, "{part}", {"factory.part.disposition"}),
    "factory.state.time": (SUM, "s", {"factory.state"}),
    "factory.downtime": (SUM, "s", {"factory.reason", "factory.planned"}),
    "factory.cycle.duration": ("exponentialHistogram cumulative", "s", set()),
    "factory.tag.state": (GAUGE, "", set()),
    "factory.tag.total": (GAUGE, "{part}", set()),
    "factory.tag.good": (GAUGE, "{part}", set()),
    "factory.tag.reject": (GAUGE, "{part}", set()),
    "factory.tag.squeegee_pressure": (GAUGE, "N", set()),
    "factory.tag.score": (GAUGE, "1", set()),
    "factory.tag.zone1": (GAUGE, "Cel", set()),
    "gemba.losses": (SUM, "{reading}", {"gemba.loss.source", "gemba.loss.reason"}),
}


def run(scenario, received, report):
    """Every check, in the order of the data's way."""
    for name, check in {
        "resource: who says so": resource,
        "metrics: kind, unit and attributes of the contract": contract,
        "Modbus: every read is a reading, with its time and to the digit, none twice": modbus,
        "OPC UA: every value written, at its source time to 100 ns, and nothing else": opcua,
        "OPC UA: a bad status is a point without a value, and a log with code and name": bad_status,
        "MQTT: every acknowledged message, in order, with its time": mqtt,
        "MQTT: text for a counter is a bad reading, a path that is missing changes nothing": odd_payloads,
        "text tags are logs of each change, and no metric": text_tags,
        "states: every change, with the times of the source": state_changes,
        "losses: two bad payloads and two strange states, counted once each, before and after the kill": losses,
        "sums: never fall, one start time for each, across the kill": sums,
        "parts: the counters' own differences, nothing missing, nothing twice": parts,
        "time in each state, to the digit": state_time,
        "figures: the last ones, to the digit": last_figures,
        "figures: those on the way, to the digit": all_figures,
        "traces: each link's connects are spans of the agent's, over either protocol": traces,
        "/health: the last figures": health,
        "replay of everything received gives the figures that were sent": replay,
    }.items():
        with report.check(name):
            check(scenario, received)


# ----------------------------------------------------------------------------------------- the way there


def resource(scenario, received):
    assert received.resources, "nothing was received"
    for held in received.resources:
        assert held.get("service.name") == "gemba", held
        assert (held.get("factory.site"), held.get("factory.line")) == ("fab-2", "smt-1"), held
        assert held.get("service.version") and held.get("host.name"), held
    instances = {held.get("service.instance.id") for held in received.resources}
    assert len(instances) == 1 and instances.pop(), f"service.instance.id must be one, across restarts: {instances}"


def contract(scenario, received):
    seen = set()
    for point in received.points:
        if point.metric not in CONTRACT:
            assert not point.metric.startswith("factory."), f"{point.metric} is not in the contract"
            continue
        seen.add(point.metric)
        kind, unit, keys = CONTRACT[point.metric]
        assert (point.kind, point.unit) == (kind, unit), f"{point.metric}: {point.kind} in {point.unit!r}"
        assert {key for key, _ in point.attributes} == keys, f"{point.metric}: {point.attributes}"
        if point.metric != "gemba.losses":
            assert point.station in oracle.SPECS, f"{point.metric}: factory.station is {point.station}"
        assert point.time > 0, f"{point.metric} has a point without time"
        assert not point.bad or point.value is None, f"{point.metric}: no recorded value, and one: {point.value}"
    optional = {"factory.downtime", "factory.cycle.duration", "factory.yield.first_pass", "factory.defect.rate"}
    optional |= {f"factory.maintenance.{figure}" for figure in ("mtbf", "mttr", "corrective")}  # of failures, if there were any
    assert not (missing := set(CONTRACT) - optional - seen), f"never came: {missing}"


def modbus(scenario, received):
    """Each good point is one read that the server answered, and each answer is a point, but for the last before a cut."""
    cuts = [gone for gone, _ in scenario.kills] + [scenario.stopping]
    for tag, served in scenario.plc.served.items():
        points = [point for point in received.of(f"factory.tag.{tag}", "printer-1") if not point.bad]
        assert points, f"no {tag}"
        ahead = 0
        for point in points:
            while ahead + 1 < len(served) and served[ahead + 1][0] <= point.time:
                skip_unless_cut(served[ahead], tag, cuts)
                ahead += 1
            assert ahead < len(served) and served[ahead][0] <= point.time, f"{tag} at {point.time} was never served"
            value = served[ahead][1]
            assert exactly(tag, point.value, value), f"{tag}: {point.value} at {point.time}, the register held {value}"
            ahead += 1
        for left in served[ahead:]:
            skip_unless_cut(left, tag, cuts)


def skip_unless_cut(read, tag, cuts):
    """A read without a point is right only where gemba was cut off before it was committed (`sync` and one poll)."""
    at, value = read
    assert any(cut - SECOND <= at <= cut + SECOND for cut in cuts), f"{tag} = {value}, served at {at}, never came"


def exactly(tag, got, held):
    if tag == "squeegee_pressure":  # the register holds 32 bits
        return struct.pack(">f", got) == struct.pack(">f", held)
    return got == held


def opcua(scenario, received):
    written = scenario.aoi.written
    for tag in ("good", "reject", "score"):
        points = {}
        for point in received.of(f"factory.tag.{tag}", "aoi-1"):
            points.setdefault(point.time, []).append(point)
        mine = [entry for entry in written if entry.tag == tag]
        for before, entry, after in zip([None, *mine], mine, [*mine[1:], None]):
            if may_be_missing(scenario, entry, after) or repeats(scenario, before, entry):
                continue
            assert entry.ns in points, f"{tag} = {entry.value} of {entry.ns} never came"
            point = points[entry.ns][0]
            if entry.status & 0x80000000:
                assert point.bad and point.value is None, f"{tag} of {entry.ns} is bad, and came as {point.value}"
            else:
                assert not point.bad and point.value == entry.value, f"{tag}: {point.value} for {entry.value}"
        times = {entry.ns for entry in mine}
        invented = [point for group in points.values() for point in group if point.time not in times and not point.bad]
        assert not invented, f"{tag}: nobody wrote {invented[:3]}"


def may_be_missing(scenario, entry, after):
    """Written before gemba came, between the last certain commit and the kill, or while it was dead: only the newest of its tag counts."""
    if after is None:
        return False
    if after.ns < scenario.began:
        return True
    return any(scenario.safe <= entry.ns <= back and after.ns <= back for _, back in scenario.kills)


def repeats(scenario, before, entry):
    """A server tells of changes: the same value and status again is none, but for who connects anew."""
    anew = any(gone <= entry.ns <= back for gone, back in scenario.kills)
    return before is not None and not anew and (before.value, before.status) == (entry.value, entry.status)


def bad_status(scenario, received):
    logs = [log for log in received.events("factory.validity.changed", "aoi-1")]
    for tag, ns, code, name, word in (
        ("score", scenario.sensor_failed, StatusCodes.BadSensorFailure, "BadSensorFailure", "bad"),
        (
            "score",
            scenario.sensor_doubtful,
            StatusCodes.UncertainLastUsableValue,
            "UncertainLastUsableValue",
            "uncertain",
        ),
        ("score", scenario.sensor_good, None, None, "good"),
        ("state", scenario.state_lost, StatusCodes.BadOutOfService, "BadOutOfService", "bad"),
        ("state", scenario.state_back, None, None, "good"),
    ):
        found = [log for log in logs if log.time == ns and log.attribute("factory.tag") == tag]
        assert len(found) == 1, f"{tag} became {word} at {ns}: {len(found)} logs"
        assert found[0].attribute("factory.validity") == word, found[0]
        if code is not None:
            assert found[0].says(name) and found[0].says(code), f"{name} {code:#x} is not in {found[0]}"


def mqtt(scenario, received):
    sent = [message for message in scenario.oven.published if isinstance(message.payload, dict)]
    for tag, path in (("total", lambda payload: payload.get("count")), ("zone1", temperature)):
        points = [point for point in received.of(f"factory.tag.{tag}", "oven-1") if not point.bad]
        wanted = [
            (message, path(message.payload)) for message in sent if isinstance(path(message.payload), int | float)
        ]
        ahead = 0
        for message, value in wanted:
            while ahead < len(points) and points[ahead].value != value:
                repeat = any(
                    points[ahead].value == path(other.payload) for other in sent if other.after < message.before
                )
                assert repeat and near_kill(scenario, points[ahead].time), (
                    f"{tag}: {points[ahead].value} came before {value}"
                )
                ahead += 1
            assert ahead < len(points), f"{tag} = {value}, acknowledged at {message.after}, never came"
            assert points[ahead].time >= message.before, f"{tag} = {value} was received before it was sent"
            ahead += 1
        over = [point for point in points[ahead:] if not near_kill(scenario, point.time)]
        assert not over, f"{tag}: {over[:3]} came once too often"
    distinct = {message.payload["count"] for message in sent if isinstance(message.payload.get("count"), int)}
    assert len(distinct) > 250, "the script sends several hundred messages"


def temperature(payload):
    return payload["zones"][0]["temp"] if "zones" in payload else None


def near_kill(scenario, at):
    """A message that was committed and not yet acknowledged at the kill comes again after it."""
    return any(gone <= at <= back + 10 * SECOND for gone, back in scenario.kills)


def odd_payloads(scenario, received):
    bad = [point for point in received.of("factory.tag.total", "oven-1") if point.bad and point.time < scenario.dark]
    assert len(bad) == 1 and bad[0].value is None, f"one bad total, not {bad}"
    logs = [log for log in received.events("factory.validity.changed", "oven-1") if log.time == bad[0].time]
    assert any(log.attribute("factory.tag") == "total" and log.says("WrongType") for log in logs), logs
    in_between = [
        point for point in received.of("factory.tag.zone1", "oven-1") if scenario.partial <= point.time < bad[0].time
    ]
    assert not in_between, f"a payload without zones made {in_between}"


def text_tags(scenario, received):
    for station in TEXT_STATE:
        assert not received.of("factory.tag.state", station), f"{station} state is text, and came as a metric"
    mine = [entry for entry in scenario.aoi.written if entry.tag == "state" and not entry.status & 0x80000000]
    expected, last = [], None
    for entry, after in zip(mine, [*mine[1:], None]):
        if may_be_missing(scenario, entry, after):
            continue
        if entry.value != last:
            expected.append((entry.ns, entry.value))
        last = entry.value
    got, last = [], None
    for log in received.events("factory.tag.changed", "aoi-1"):
        word = log.attribute("factory.tag.value")
        if word != last:
            got.append((log.time, word))
        last = word
    assert got == expected, f"aoi-1 state: {got} for {expected}"
    words = [word for word, _ in groupby(state_of(message) for message in scenario.oven.published if state_of(message))]
    got = [log.attribute("factory.tag.value") for log in received.events("factory.tag.changed", "oven-1")]
    assert [word for word, _ in groupby(got)] == words, f"oven-1 state: {got} for {words}"


def state_of(message):
    return message.payload.get("state") if isinstance(message.payload, dict) else None


# ------------------------------------------------------------------------------------------- the figures


def history(received, station):
    """The station's readings as the collector got them, in order of time."""
    tags = {"printer-1": ("state", "total", "reject"), "aoi-1": ("good", "reject"), "oven-1": ("total",)}[station]
    beside = {"printer-1": "squeegee_pressure", "aoi-1": "score", "oven-1": "zone1"}[station]
    found = [
        Reading(tag, point.time, None if point.bad else point.value)
        for tag in (*tags, beside)
        for point in received.of(f"factory.tag.{tag}", station)
    ]
    if station in TEXT_STATE:
        found += text_state(received, station)
    return sorted(found, key=lambda reading: reading.time)


def text_state(received, station):
    """A text tag's readings, from the logs of its changes: what does not change says nothing new."""
    events = [
        (log.time, 1, log.attribute("factory.tag.value")) for log in received.events("factory.tag.changed", station)
    ]
    for log in received.events("factory.validity.changed", station):
        if log.attribute("factory.tag") == "state":
            bad = log.attribute("factory.validity") == "bad"
            events.append((log.time, 0 if bad else 2, None))
    found, text = [], None
    for at, kind, word in sorted(events, key=lambda event: event[:2]):
        text = word if kind == 1 else text
        found.append(Reading("state", at, None if kind == 0 else text))
    return found


def from_export(lines, station):
    """The same from the lines of `gemba spool export`."""
    mine = [line for line in lines if line["station"] == station]
    found = [
        Reading(
            line["tag"], otlp.nanoseconds(line["source_time"]), None if line.get("validity") == "bad" else line["value"]
        )
        for line in mine
    ]
    return sorted(found, key=lambda reading: reading.time)


def state_changes(scenario, received):
    for station in oracle.SPECS:
        wanted = oracle.transitions(station, history(received, station))
        got = [
            (log.time, log.attribute("factory.state.previous"), log.attribute("factory.state"))
            for log in received.events("factory.state.changed", station)
        ]
        assert got == wanted, f"{station}: {first_difference(got, wanted)}"
    seen = [log.attribute("factory.state") for log in received.events("factory.state.changed", "printer-1")]
    script = [
        "setup",
        "producing",
        "starved",
        "producing",
        "blocked",
        "producing",
        "unknown",
        "producing",
        "down",
        "producing",
    ]
    assert seen[: len(script)] == script, f"printer-1 went {seen}"


def first_difference(got, wanted):
    for at, pair in enumerate(zip(got, wanted)):
        if pair[0] != pair[1]:
            return f"number {at} is {pair[0]} for {pair[1]}"
    return f"{len(got)} for {len(wanted)}: {(got + wanted)[min(len(got), len(wanted)) :][:2]}"


def losses(scenario, received):
    last = {}
    for point in received.of("gemba.losses"):
        last[point.attribute("gemba.loss.source"), point.attribute("gemba.loss.reason")] = point
    counts = {}
    for (source, reason), point in last.items():
        counts.setdefault(source, []).append((reason, point.value))
    # the script's bad payloads, and its state values that no map holds: they are unknown, and counted
    counts = {source: sorted(told, key=lambda reason: reason[1]) for source, told in counts.items()}
    assert sum(value for _, value in counts.pop("oven-1")) == 2, last
    assert counts == {
        "printer-1": [("state value `9` is not in oee.state.map", 1)],
        # What its four nodes said while gemba was killed: this server keeps no history.
        "aoi-1": [
            ("state value `Unheard` is not in oee.state.map", 1),
            ("OPC UA: a gap that history does not close: no history is kept", 4),
        ],
    }, counts
    logs = [log for log in received.events("gemba.loss") if log.attribute("gemba.loss.source") == "oven-1"]
    assert sum(log.attribute("gemba.loss.count") for log in logs) == 2, logs
    for source, reason in last:
        # what was lost before the kill is still known after it
        entry = [
            entry for entry in scenario.health["loss_totals"] if (entry["source"], entry["reason"]) == (source, reason)
        ]
        assert entry and entry[0]["count"] == last[source, reason].value, scenario.health["loss_totals"]


def sums(scenario, received):
    series = {}
    for point in received.points:
        if point.kind == SUM and point.metric in CONTRACT:
            series.setdefault((point.metric, point.station, point.attributes), []).append(point)
    for key, points in series.items():
        points.sort(key=lambda point: point.time)
        values = [point.value for point in points]
        assert values == sorted(values), f"{key} falls"
        assert len({point.start for point in points}) == 1 and points[0].start, f"{key} starts more than once"
        assert points[0].start <= points[0].time, f"{key} starts after its first point"
    for station in oracle.SPECS:
        starts = {point.start for point in received.of("factory.parts", station)}
        first = min(reading.time for reading in history(received, station))
        assert starts == {first}, f"{station} counts since {starts}, and was first observed at {first}"
        spans = {point.time for point in received.of("factory.parts", station)}
        assert min(spans) < scenario.dark and max(spans) >= scenario.stopping, f"{station}: no point before and after"


def parts(scenario, received):
    total = reject = 0
    shown = scenario.plc.shown
    for before, after in zip(shown, shown[1:]):
        total += after[0] - before[0] if after[0] >= before[0] else after[0]
        reject += after[1] - before[1] if after[1] >= before[1] else after[1]
    wrote = {tag: [entry.value for entry in scenario.aoi.written if entry.tag == tag] for tag in ("good", "reject")}
    payloads = [message.payload for message in scenario.oven.published if isinstance(message.payload, dict)]
    counts = [payload["count"] for payload in payloads if isinstance(payload.get("count"), int)]
    truth = {
        "printer-1": (total - reject, reject),
        "aoi-1": (wrote["good"][-1] - wrote["good"][0], wrote["reject"][-1] - wrote["reject"][0]),
        "oven-1": (counts[-1] - counts[0], 0),
    }
    for station, (good, rejected) in truth.items():
        for disposition, count in (("good", good), ("reject", rejected)):
            points = received.of("factory.parts", station, factory__part__disposition=disposition)
            assert points and points[-1].value == count, f"{station} {disposition}: {points[-1].value} for {count}"


def kpi_times(received, station):
    return sorted({point.time for point in received.of("factory.coverage", station)})


def sent_figures(received, station, at):
    """The figures of one KPI point; a flagged or absent one is None."""
    found = {}
    for name in RATIOS:
        points = [point for point in received.of(f"factory.{name}", station) if point.time == at]
        found[name] = points[0].value if points and not points[0].bad else None
        for point in points:
            shift = oracle.shift_at(at)[0]
            assert point.attribute("factory.shift") == shift, f"{station} {name}: {point.attributes}, it is {shift}"
    return found


def figures_agree(received, station, readings, at):
    wanted = oracle.figures(station, readings, at)
    got = sent_figures(received, station, at)
    for name in RATIOS:
        assert close(got[name], getattr(wanted, name)), (
            f"{station} {name} at {otlp.rfc3339(at)}: {got[name]!r} for {getattr(wanted, name)!r} ({wanted})"
        )
    good, reject, _ = oracle.life(station, readings, at)
    for disposition, count in (("good", good), ("reject", reject)):
        points = received.of("factory.parts", station, factory__part__disposition=disposition)
        value = next(point.value for point in points if point.time == at)
        assert value == count, f"{station} {disposition} at {otlp.rfc3339(at)}: {value} for {count}"


def last_figures(scenario, received):
    for station in oracle.SPECS:
        times = kpi_times(received, station)
        assert times and times[-1] >= scenario.stopping, f"{station}: no figures at the stop"
        figures_agree(received, station, history(received, station), times[-1])


def all_figures(scenario, received):
    """Also in mid-script, but where something changed in the second before, or gemba was cut off."""
    compared = 0
    for station in oracle.SPECS:
        readings = history(received, station)
        changes = changed_at(readings)
        for at in kpi_times(received, station):
            cut = any(scenario.safe <= at <= back + SECOND for _, back in scenario.kills)
            if cut or any(at - SECOND <= change <= at for change in changes):
                continue
            figures_agree(received, station, readings, at)
            compared += 1
    assert compared >= len(oracle.SPECS), "no quiet instant with figures"


def changed_at(readings):
    last, times = {}, []
    for reading in readings:
        if reading.tag not in last or last[reading.tag] != reading.value:
            times.append(reading.time)
        last[reading.tag] = reading.value
    return times


def state_time(scenario, received):
    for station in oracle.SPECS:
        at = kpi_times(received, station)[-1]
        _, _, wanted = oracle.life(station, history(received, station), at)
        got = {
            point.attribute("factory.state"): point.value
            for point in received.of("factory.state.time", station)
            if point.time == at
        }
        for state in set(wanted) | set(got):
            assert close(got.get(state, 0.0), wanted.get(state, 0) / SECOND), (
                f"{station} {state}: {got.get(state)} s for {wanted.get(state, 0) / SECOND}"
            )


def health(scenario, received):
    at = otlp.nanoseconds(scenario.health["time"])
    for station in scenario.health["stations"]:
        kpi, wanted = station["kpi"], oracle.figures(station["name"], history(received, station["name"]), at)
        kpi_agrees(kpi, wanted, station["name"])
        assert station["shift"] == wanted.shift, station


def kpi_agrees(kpi, wanted, station):
    for name in RATIOS:
        assert close(kpi[name], getattr(wanted, name)), f"{station} {name}: {kpi[name]!r} for {getattr(wanted, name)!r}"
    for name in ("total", "good", "reject"):
        assert kpi[name] == getattr(wanted, name), f"{station} {name}: {kpi[name]} for {getattr(wanted, name)}"
    assert otlp.nanoseconds(kpi["since"]) == wanted.since, f"{station}: since {kpi['since']}"


def replay(scenario, received):
    at = max(kpi_times(received, station)[-1] for station in oracle.SPECS)
    histories = {station: history(received, station) for station in oracle.SPECS}
    file = scenario.folder / "received.jsonl"
    file.write_text("".join(merged(histories)))
    replay_agrees(scenario.replay(file, at), histories, at)


def traces(scenario, received):
    """A connect of each link at each start; the second start's came over gRPC."""
    connects = [span for span in received.spans if span.name == "connect"]
    for span in connects:
        assert span.service == "gemba" and span.kind == 3, span
        assert len(span.trace) == 32 and len(span.span) == 16 and span.trace.strip("0"), span
        assert scenario.began <= span.start <= span.end <= scenario.stopping, span
    ((gone, _),) = scenario.kills
    for endpoint in LINKS:
        starts = [span.start for span in connects if span.attribute("gemba.link.endpoint") == endpoint]
        assert any(start < gone for start in starts), f"{endpoint}: {starts}, none before the kill"
        assert any(gone < start for start in starts), f"{endpoint}: {starts}, none after the kill"
    for name in ("poll", "message", "commit"):
        assert any(span.name == name for span in received.spans), f"no span {name}"


def merged(histories):
    """All stations' readings as `gemba replay` takes them, in order of time."""
    rows = [(reading, station) for station, readings in histories.items() for reading in readings]
    rows.sort(key=lambda row: row[0].time)
    return [line(station, reading) for reading, station in rows]


def line(station, reading):
    return (
        json.dumps(
            {
                "station": station,
                "tag": reading.tag,
                "value": reading.value,
                "validity": "bad" if reading.value is None else "good",
                "source_time": otlp.rfc3339(reading.time),
            }
        )
        + "\n"
    )


def replay_agrees(told, histories, at):
    """The periods that run at `at` say what the oracle says, for every station."""
    for station, readings in histories.items():
        if not readings:
            continue
        wanted = oracle.figures(station, readings, at)
        mine = [period for period in told["periods"] if period["station"] == station]
        assert mine, f"replay says nothing of {station}"
        period = mine[-1]
        assert (period["shift"], period["closed"], period["revision"]) == (wanted.shift, False, 0), period
        assert otlp.nanoseconds(period["from"]) == wanted.since, f"{station} from {period['from']}"
        assert otlp.nanoseconds(period["to"]) == at, f"{station} to {period['to']}, asked until {otlp.rfc3339(at)}"
        kpi_agrees(period["kpi"], wanted, f"replay of {station}")
        for state in set(wanted.states) | set(period["states"]):
            held = wanted.states.get(state, 0) / SECOND
            assert close(period["states"].get(state, 0.0), held), f"replay of {station}, {state}: {period['states']}"
