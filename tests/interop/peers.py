"""The foreign peers: what gemba talks to, each a program or library that knows nothing of gemba.

Every peer writes down what it really said and when, so that the checks compare gemba with the peers'
own account and never with itself.
"""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import paho.mqtt.client as mqtt
from asyncua import Server, ua
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def until(what, condition, deadline=30.0, every=0.05):
    """Waits until `condition()` (plain or async) is truthy and returns it; says `what` never came."""
    end = time.monotonic() + deadline
    last = None
    while time.monotonic() < end:
        try:
            last = condition()
            if asyncio.iscoroutine(last):
                last = await last
            if last:
                return last
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            last = error
        await asyncio.sleep(every)
    raise TimeoutError(f"waited {deadline:.0f} s for: {what} (last seen: {last!r})")


def port_is_taken(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def answers(port):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


# ---------------------------------------------------------------------------------------------- Modbus

HOLDING, INPUT = 3, 4  # function codes of the two tables
FIELDS = {  # config/line.yaml, printer-1: table, first register, layout (high word first)
    "state": (HOLDING, 0, ">H"),
    "total": (HOLDING, 2, ">I"),
    "reject": (HOLDING, 4, ">I"),
    "squeegee_pressure": (INPUT, 10, ">f"),
}


class Plc:
    """printer-1: a Modbus TCP server (pymodbus) with six holding and twelve input registers, and nothing beside them."""

    def __init__(self, port=5020):
        self.port = port
        self.tables = {HOLDING: [0] * 6, INPUT: [0] * 12}
        self.served = {name: [] for name in FIELDS}  # each read: (when, value)
        self.shown = []  # (total, reject) after each change
        self.server = None

    async def start(self):
        def block(size):
            return [SimData(0, count=size, values=0, datatype=DataType.REGISTERS)]

        spare = [SimData(0, count=16, values=False, datatype=DataType.BITS)]
        device = SimDevice(1, simdata=(spare, list(spare), block(6), block(12)), action=self._read)
        self.server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        await self.server.serve_forever(background=True)

    async def _read(self, function, _start, address, count, registers, written):
        assert written is None, f"gemba wrote to a device: function {function}, address {address}"
        registers[:] = self.tables[function]
        now = time.time_ns()
        for name, (table, first, layout) in FIELDS.items():
            last = first + struct.calcsize(layout) // 2
            if table == function and address <= first and last <= address + count:
                self.served[name].append((now, self.value(name)))

    def value(self, name):
        table, first, layout = FIELDS[name]
        words = self.tables[table][first : first + struct.calcsize(layout) // 2]
        return struct.unpack(layout, b"".join(word.to_bytes(2, "big") for word in words))[0]

    def set(self, **values):
        """Changes registers, all at once as a master sees it."""
        for name, value in values.items():
            table, first, layout = FIELDS[name]
            raw = struct.pack(layout, value)
            self.tables[table][first : first + len(raw) // 2] = [
                int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)
            ]
        self.shown.append((self.value("total"), self.value("reject")))

    async def until_read(self, times=1):
        """Every tag has been read `times` more: what is set now was seen."""
        before = {name: len(reads) for name, reads in self.served.items()}
        await until(
            "the master to poll",
            lambda: all(len(reads) >= before[name] + times for name, reads in self.served.items()),
            every=0.01,
        )

    async def stop(self):
        await self.server.shutdown()


# ---------------------------------------------------------------------------------------------- OPC UA

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
WINDOWS_TO_UNIX = 116_444_736_000_000_000  # ticks of 100 ns between 1601 and 1970


class Instant(datetime):
    """A datetime that carries OPC UA's full 100 ns."""

    ns = 0

    @classmethod
    def of(cls, ns):
        plain = EPOCH + timedelta(microseconds=ns // 1000)
        instant = cls(*plain.timetuple()[:6], plain.microsecond, tzinfo=timezone.utc)
        instant.ns = ns
        return instant

    def __deepcopy__(self, _memo):
        return self


_to_ticks = ua.datetime_to_win_epoch
ua.datetime_to_win_epoch = lambda at: WINDOWS_TO_UNIX + at.ns // 100 if isinstance(at, Instant) else _to_ticks(at)


@dataclass
class Written:
    """One write: what a subscriber must hear."""

    tag: str
    ns: int
    value: object
    status: int


class Aoi:
    """aoi-1: an OPC UA server (asyncua)."""

    NODES = {  # tag: node, type
        "state": ("State", ua.VariantType.String),
        "good": ("Good", ua.VariantType.UInt32),
        "reject": ("Reject", ua.VariantType.UInt32),
        "score": ("Score", ua.VariantType.Double),
    }

    def __init__(self, port=4840):
        self.port = port
        self.written = []
        self.nodes = {}
        self.server = None

    async def start(self, **first):
        self.server = Server()
        await self.server.init()
        self.server.set_endpoint(f"opc.tcp://127.0.0.1:{self.port}")
        self.server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await self.server.register_namespace("urn:fab-2:padding")  # so that ours is not at the index one would guess
        index = await self.server.register_namespace("urn:fab-2:aoi")
        station = await self.server.nodes.objects.add_object(index, "AOI")
        for tag, (name, kind) in self.NODES.items():
            self.nodes[tag] = await station.add_variable(ua.NodeId(name, index), name, first[tag], kind)
        await self.write(**first)
        await self.server.start()

    async def write(self, status=ua.StatusCodes.Good, at=None, **values):
        """Writes each tag with one source time, to 100 ns."""
        ns = at or time.time_ns() // 1000 * 1000 + 700
        for tag, value in values.items():
            kind = self.NODES[tag][1]
            variant = ua.Variant(None) if ua.StatusCode(status).is_bad() else ua.Variant(value, kind)
            data = ua.DataValue(variant, ua.StatusCode(status), SourceTimestamp=Instant.of(ns))
            self.written.append(Written(tag, ns, value, status))
            await self.server.write_attribute_value(self.nodes[tag].nodeid, data)
        return ns

    async def stop(self):
        await self.server.stop()


# ------------------------------------------------------------------------------------------- programs


class Program:
    """A child process with its own log. Stopped by its own process id."""

    def __init__(self, name, command, folder, env=None, cwd=None):
        self.name = name
        self.log = Path(folder) / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env={**os.environ, **(env or {})},
            )

    def running(self):
        return self.process.poll() is None

    def tail(self, lines=15):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def stop(self, how=signal.SIGTERM, deadline=30.0):
        """Signals it and returns its exit code."""
        if self.running():
            self.process.send_signal(how)
        try:
            return await asyncio.to_thread(self.process.wait, deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            raise TimeoutError(f"{self.name} did not stop within {deadline:.0f} s:\n{self.tail()}") from None


BROKER = 1884  # Mosquitto itself; what the configuration names, 1883, is the cable to it


class Broker(Program):
    """Mosquitto, with a queue that no outage of ours fills."""

    def __init__(self, folder):
        data = Path(folder) / "mosquitto"
        data.mkdir(exist_ok=True)
        config = Path(folder) / "mosquitto.conf"
        config.write_text(
            f"listener {BROKER} 127.0.0.1\nallow_anonymous true\nlog_dest stderr\nlog_type all\n"
            "persistence true\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
            f"persistence_location {data}/\n"
            + (f"user {os.environ.get('USER') or 'root'}\n" if os.geteuid() == 0 else "")
        )
        super().__init__("mosquitto", ["mosquitto", "-c", config], folder)

    async def start(self):
        await until("Mosquitto to listen", lambda: answers(BROKER) or not self.running())
        assert self.running(), f"Mosquitto did not start:\n{self.tail()}"

    def subscriptions(self, client):
        """How often `client` has subscribed, by the broker's own log."""
        return self.log.read_text(errors="replace").count(f"{client} 1 fab-2/oven-1/telemetry")


class Cable:
    """The wire between gemba and a peer, so that acknowledgements can get lost on it before a kill, and so that it can
    be pulled."""

    def __init__(self, port=1883, broker=BROKER):
        self.port, self.broker = port, broker
        self.deaf = False  # the peer hears nothing any more; what it says still arrives
        self.out = False  # nobody gets through
        self.ends = set()
        self.server = None

    async def start(self):
        self.server = await asyncio.start_server(self._plug, "127.0.0.1", self.port)

    def pull(self):
        """Breaks every connection, and lets none come about until it is put back."""
        self.out = True
        for end in self.ends:
            end.transport.abort()

    def put_back(self):
        self.out = False

    async def _plug(self, reader, writer):
        if self.out:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.broker)
        except OSError:
            writer.close()
            return
        ends = {writer, up_writer}
        self.ends |= ends
        await asyncio.gather(self._pump(reader, up_writer, up=True), self._pump(up_reader, writer, up=False))
        self.ends -= ends

    async def _pump(self, reader, writer, up):
        try:
            while data := await reader.read(65_536):
                if not (up and self.deaf):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        writer.close()

    def stop(self):
        self.server.close()


@dataclass
class Published:
    """One message, as the broker took it."""

    before: int
    after: int
    payload: object


class Oven:
    """oven-1: a publisher (paho), QoS 1. A message counts as sent when the broker has acknowledged it."""

    TOPIC = "fab-2/oven-1/telemetry"

    def __init__(self):
        self.published = []
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="oven-1")

    async def start(self):
        self.client.connect("127.0.0.1", BROKER)
        self.client.loop_start()
        await until("the publisher to connect", self.client.is_connected)

    async def send(self, payload):
        """Publishes JSON (or, given bytes, those) and waits for the broker's acknowledgement."""
        before = time.time_ns()
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        info = self.client.publish(self.TOPIC, raw, qos=1)
        await asyncio.to_thread(info.wait_for_publish, 10)
        assert info.is_published(), "the broker did not acknowledge"
        self.published.append(Published(before, time.time_ns(), payload))

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


class Collector(Program):
    """The OpenTelemetry Collector. Its file is whole only after `stop`."""

    def __init__(self, binary, folder, run):
        self.file = Path(folder) / f"otlp-{run}.jsonl"
        config = Path(__file__).with_name("collector.yaml")
        super().__init__(f"collector-{run}", [binary, "--config", config], folder, env={"OTLP_FILE": str(self.file)})

    async def start(self):
        await until("the collector to listen", lambda: answers(4318) and answers(4317) or not self.running())
        assert self.running(), f"the collector did not start:\n{self.tail()}"


class Gemba(Program):
    """`gemba run`, in a working folder of its own."""

    def __init__(self, binary, config, folder, name="gemba", port=8080):
        self.url = f"http://127.0.0.1:{port}"
        super().__init__(name, [binary, "run", "--config", config], folder, cwd=folder)

    def get(self, path, accept="application/json"):
        """Status and body; a status that is an error is an answer too."""
        request = urllib.request.Request(self.url + path, headers={"accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def must_run(self):
        if not self.running():
            raise RuntimeError(f"gemba ended with {self.process.returncode}:\n{self.tail()}")

    async def health(self):
        self.must_run()
        _, body = await asyncio.to_thread(self.get, "/health")
        return json.loads(body)

    async def station(self, name):
        return next(station for station in (await self.health())["stations"] if station["name"] == name)

    async def shows(self, station, **values):
        """Waits until /health shows these values of the station's tags."""

        async def seen():
            tags = {tag["name"]: tag["value"] for tag in (await self.station(station))["tags"]}
            return all(tags[name] == value for name, value in values.items())

        await until(f"/health to show {station} {values}", seen)
