"""The peers and the oracle alone, without gemba: a check that can fail for the harness's own faults is worth little."""

import gzip
import json
import struct
import time
import urllib.request
from pathlib import Path

import paho.mqtt.client as mqtt
from asyncua import Client, ua
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from pymodbus.client import AsyncModbusTcpClient

import checks
import oracle
import otlp
from oracle import Reading
from peers import BROKER, Aoi, Broker, Collector, Oven, Plc, until

SECOND = 1_000_000_000
VECTORS = Path(__file__).parent.parent / "fixtures" / "vectors" / "oee.json"


async def run(arguments, report):
    for name, check in {
        "Modbus peer: registers, high word first; beside them an exception": modbus,
        "OPC UA peer: namespace, source time to 100 ns, statuses, nothing dropped": opcua,
        "MQTT peer: QoS 1, kept for a session that is away": broker,
        "collector: protobuf in, the same points out of the file": collector,
    }.items():
        with report.check(name):
            await check(arguments)
    for name, check in {
        "oracle: the published worked examples": published,
        "oracle: resets, unknown time, unattributed parts": rules,
        "oracle: the Berlin shifts, also when the clocks change": shifts,
        "times: RFC 3339 to the nanosecond and back": times,
        "checks: they do fail": negative,
    }.items():
        with report.check(name):
            check()


async def modbus(_arguments):
    plc = Plc()
    await plc.start()
    client = AsyncModbusTcpClient("127.0.0.1", port=5020)
    try:
        plc.set(state=3, total=0x12345678, reject=70_000, squeegee_pressure=48.7)
        assert await client.connect()
        held = (await client.read_holding_registers(0, count=6, device_id=1)).registers
        assert held == [3, 0, 0x1234, 0x5678, 1, 4464], held
        words = (await client.read_input_registers(10, count=2, device_id=1)).registers
        assert struct.unpack(">f", struct.pack(">2H", *words)) == struct.unpack(">f", struct.pack(">f", 48.7))
        for address, count in ((5, 2), (6, 1), (30, 2)):
            answer = await client.read_holding_registers(address, count=count, device_id=1)
            assert answer.isError() and answer.exception_code == 2, answer
        assert [value for _, value in plc.served["total"]] == [0x12345678], plc.served
    finally:
        client.close()
        await plc.stop()


class Heard:
    def __init__(self):
        self.values = []

    def datachange_notification(self, node, _value, data):
        held = data.monitored_item.Value
        self.values.append((node.nodeid.Identifier, held.StatusCode.value, held.Value.Value if held.Value else None))


async def opcua(_arguments):
    aoi = Aoi()
    await aoi.start(state="Idle", good=1, reject=0, score=0.5)
    ticks = []
    unpack = ua.win_epoch_to_datetime
    ua.win_epoch_to_datetime = lambda epoch: (ticks.append(epoch), unpack(epoch))[1]
    try:
        async with Client("opc.tcp://127.0.0.1:4840") as client:
            index = await client.get_namespace_index("urn:fab-2:aoi")
            heard = Heard()
            subscription = await client.create_subscription(100, heard)
            nodes = [client.get_node(ua.NodeId(name, index)) for name, _ in aoi.NODES.values()]
            await subscription.subscribe_data_change(nodes, queuesize=0)
            written = [await aoi.write(score=0.1 * step) for step in range(1, 6)]
            await aoi.write(status=ua.StatusCodes.BadSensorFailure, score=None)
            await until("all notifications", lambda: len(heard.values) >= 10)
            scores = [(code, value) for name, code, value in heard.values if name == "Score"]
            assert scores == [
                (0, 0.5),
                *((0, 0.1 * step) for step in range(1, 6)),
                (ua.StatusCodes.BadSensorFailure, None),
            ]
            full = {(tick - 116_444_736_000_000_000) * 100 for tick in ticks}
            assert set(written) <= full and all(ns % 1000 == 700 for ns in written), "100 ns are lost on the way"
    finally:
        ua.win_epoch_to_datetime = unpack
        await aoi.stop()


async def broker(arguments):
    held = Broker(arguments.folder)
    await held.start()
    oven, got = Oven(), []
    session = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="probe", clean_session=False)
    session.on_message = lambda _client, _data, message: got.append(json.loads(message.payload)["count"])
    session.on_connect = lambda client, *_: client.subscribe(Oven.TOPIC, qos=1)
    try:
        session.connect("127.0.0.1", BROKER)
        session.loop_start()
        await until("the subscription", lambda: held.subscriptions("probe") == 1)
        session.disconnect()
        session.loop_stop()
        await oven.start()
        for count in range(200):
            await oven.send({"count": count})
        session.connect("127.0.0.1", BROKER)
        session.loop_start()
        await until("all that came meanwhile", lambda: len(got) >= 200)
        assert got == list(range(200)), got
    finally:
        session.disconnect()
        session.loop_stop()
        oven.stop()
        assert await held.stop() == 0


async def collector(arguments):
    held = Collector(arguments.collector, arguments.folder, "peers")
    try:
        await held.start()
        at = time.time_ns()
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.add(key="factory.line").value.string_value = "smt-1"
        metrics = group.scope_metrics.add().metrics
        tag = metrics.add(name="factory.tag.total", unit="{part}")
        for value, flags in ((19_271, 0), (None, otlp.NO_RECORDED_VALUE)):
            point = tag.gauge.data_points.add(time_unix_nano=at + flags, flags=flags)
            point.attributes.add(key="factory.station").value.string_value = "printer-1"
            if value is not None:
                point.as_int = value
        parts = metrics.add(name="factory.parts", unit="{part}")
        parts.sum.aggregation_temporality, parts.sum.is_monotonic = 2, True
        parts.sum.data_points.add(time_unix_nano=at, start_time_unix_nano=at - SECOND, as_double=0.1 + 0.2)
        for _ in range(2):  # at least once: what comes twice counts once
            post("metrics", request.SerializeToString())
        logs = {"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": [{
            "timeUnixNano": str(at), "eventName": "factory.state.changed",
            "attributes": [{"key": "factory.station", "value": {"stringValue": "aoi-1"}}, {"key": "code", "value": {"intValue": "2156658688"}}],
        }]}]}]}  # fmt: skip
        post("logs", json.dumps(logs).encode(), "application/json")
    finally:
        assert await held.stop() == 0, held.tail()
    received = otlp.read(held.file)
    assert received.repeated == 3, received.repeated
    good, bad = received.of("factory.tag.total", "printer-1")
    assert (good.value, good.bad, good.time, good.unit) == (19_271, False, at, "{part}"), good
    assert (bad.value, bad.bad) == (None, True), bad
    (total,) = received.of("factory.parts")
    assert (total.kind, total.value, total.start) == (checks.SUM, 0.1 + 0.2, at - SECOND), total
    (event,) = received.events("factory.state.changed", "aoi-1")
    assert event.says("0x808C0000") and not event.says("0x808D0000"), event


def post(signal, body, kind="application/x-protobuf"):
    request = urllib.request.Request(
        f"http://127.0.0.1:4318/v1/{signal}",
        data=gzip.compress(body),
        headers={"content-type": kind, "content-encoding": "gzip"},
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.status == 200, answer.status


def published():
    """The examples that a single station's shift can show, acted out on the oven: one counter, one clock."""
    tried = 0
    for vector in json.loads(VECTORS.read_text()):
        if "reject" not in vector or "ict_min" in vector:
            continue
        minute = 60 * SECOND
        planned = vector.get("planned_min") or vector["shift_min"] - vector["breaks_min"]
        start = oracle.instant(oracle.datetime(2026, 11, 18).date(), oracle.time(22))  # no breaks, and 480 minutes
        run = planned - vector["down_min"]
        readings = [
            Reading("state", start, 1), Reading("total", start, 0), Reading("reject", start, 0),
            Reading("total", start + run * minute, vector["total"]), Reading("reject", start + run * minute, vector["reject"]),
            Reading("state", start + run * minute, 5),
        ]  # fmt: skip
        end = start + planned * minute
        if oracle.shift_at(start)[2] < end:
            continue
        ideal = round(minute / vector["ideal_rate_per_min"])
        spec = oracle.Spec(ideal, oracle.SPECS["printer-1"].states, total=True, reject=True)
        oracle.SPECS["example"] = spec
        try:
            got = oracle.figures("example", readings, end)
        finally:
            del oracle.SPECS["example"]
        for name in ("availability", "performance", "quality", "oee"):
            if name in vector:
                assert abs(getattr(got, name) - vector[name]) <= vector["tol"], (vector["id"], name, got)
        tried += 1
    assert tried >= 2, tried


def rules():
    start = oracle.instant(oracle.datetime(2026, 11, 18).date(), oracle.time(15))
    readings = [
        Reading("state", start, 1), Reading("total", start, 100), Reading("reject", start, 5),
        Reading("total", start + 10 * SECOND, 108), Reading("total", start + 20 * SECOND, 3),  # a reset: 3 more
        Reading("state", start + 30 * SECOND, None), Reading("total", start + 35 * SECOND, 7),  # seen by nobody
        Reading("state", start + 40 * SECOND, 1), Reading("total", start + 50 * SECOND, 8),
    ]  # fmt: skip
    got = oracle.figures("printer-1", readings, start + 60 * SECOND)
    assert (got.total, got.good, got.reject, got.unattributed) == (16, 16, 0, 5), got
    assert (got.run, got.planned, got.unknown) == (50 * SECOND, 50 * SECOND, 10 * SECOND), got
    assert got.availability == 1.0 and oracle.close(got.performance, 1.2 * 11 / 50), got
    assert oracle.close(got.coverage, 50 / 60), got
    down = oracle.figures("printer-1", [Reading("state", start, 5)], start + SECOND)
    assert (down.availability, down.performance, down.oee, down.quality) == (0.0, None, 0.0, None), down
    changes = [(before, after) for _, before, after in oracle.transitions("printer-1", readings)]
    assert changes == [("unknown", "producing"), ("producing", "unknown"), ("unknown", "producing")], changes


def shifts():
    def hours(year, month, day, hour):
        name, begin, end, breaks = oracle.shift_at(
            oracle.instant(oracle.datetime(year, month, day).date(), oracle.time(hour))
        )
        return name, (end - begin) / SECOND / 3600, len(breaks)

    assert hours(2026, 11, 18, 7) == ("early", 8.0, 1)
    assert hours(2026, 11, 18, 21) == ("late", 8.0, 0)
    assert hours(2026, 3, 29, 5) == ("night", 7.0, 0), hours(2026, 3, 29, 5)
    assert hours(2026, 10, 25, 5) == ("night", 9.0, 0), hours(2026, 10, 25, 5)
    assert oracle.minus(0, 10, [(2, 4), (9, 20)]) == [(0, 2), (4, 9)]
    assert oracle.minus(3, 10, [(2, 4)]) == [(4, 10)] and oracle.minus(5, 10, [(2, 4)]) == [(5, 10)]


def times():
    for ns in (0, 1, 1_795_262_400_123_456_700, 1_795_262_400_000_000_000):
        assert otlp.nanoseconds(otlp.rfc3339(ns)) == ns, otlp.rfc3339(ns)
    assert otlp.nanoseconds("2026-11-21T13:00:00.5+01:00") == otlp.nanoseconds("2026-11-21T12:00:00.500000000Z")


def negative():
    """A figure off by one part in a million, and a sum that falls, are noticed."""
    assert oracle.close(0.75, 0.75 + 1e-12) and not oracle.close(0.75, 0.75 + 1e-6)
    assert not oracle.close(None, 0.0) and not oracle.close(0.0, None) and oracle.close(None, None)
    word = "factory.part.disposition"
    received = otlp.Received()
    for at, value in ((1, 5), (2, 4)):
        received.points.append(
            otlp.Point("factory.parts", "{part}", checks.SUM, "oven-1", ((word, "good"),), at, 1, value, 0)
        )
    try:
        checks.sums(None, received)
    except AssertionError as error:
        assert "falls" in str(error), error
    else:
        raise AssertionError("a sum that falls went unnoticed")
