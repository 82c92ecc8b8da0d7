"""gemba's drivers against devices in other people's code, over wires that are cut, garbled and slow.

    devices.py --gemba BINARY --collector BINARY --modules NODE_MODULES --folder WORK

An OPC UA server with history and security (node-opcua), a Sparkplug edge node (Tahu) behind Mosquitto with TLS and
client certificates, and Modbus RTU units (pymodbus) on a serial line. Each keeps its own account; in the end what the
collector got is compared with these. Waits are for conditions, with deadlines. One line a check.
"""

import argparse
import asyncio
import json
import logging
import os
import re
import signal
import sys
from itertools import groupby
from pathlib import Path

import otlp
from machines import Cell, Press, SerialLine, Slaves, SlowCable, TlsBroker
from peers import Collector, Gemba, port_is_taken, until
from scenario import Report, say

PORTS = {4841: "node-opcua", 4842: "the wire to it", 8884: "Mosquitto with TLS", 8886: "the wire to it", 1885: "Mosquitto", 4318: "OTLP", 8082: "gemba's page"}
GOOD, BAD = "good", "bad"


class Devices:
    def __init__(self, arguments, report):
        self.arguments, self.report = arguments, report
        self.folder = Path(arguments.folder)
        os.environ["PRESS_PASSWORD"] = "secret"
        self.press = Press(self.folder, arguments.modules)
        self.cable = SlowCable(4842, 4841)
        self.cell_cable = SlowCable(8886, TlsBroker.TLS)
        self.line = SerialLine()
        self.slaves = Slaves(self.line.device)
        self.broker = self.cell = self.collector = self.gemba = None
        self.count = 100
        self.due = []  # what press-2 said while gemba was there to hear it: (ns, metric, value)

    async def run(self):
        await self.press.start()
        await self.cable.start()
        self.broker = TlsBroker(self.folder)
        await self.broker.start()
        await self.cell_cable.start()
        self.cell = Cell(self.folder, self.arguments.modules, f"mqtt://127.0.0.1:{TlsBroker.PLAIN}")
        await self.cell.start()
        self.line.start()
        await self.slaves.start()
        self.collector = Collector(self.arguments.collector, self.folder, "devices")
        await self.collector.start()
        text = Path(__file__).with_name("devices.yaml").read_text().replace("@PORT@", self.line.gateway)
        self.config = self.folder / "devices.yaml"
        self.config.write_text(text)

        await self.trust()
        await self.look_around()
        await self.start_gemba()
        await self.steady()
        await self.spoilt_line()
        await self.cable_out()
        await self.killed()
        await self.server_killed()
        await self.cell_line()
        await self.deaths()
        await self.finish()

    # ------------------------------------------------------------------------------------- the steps

    async def command(self, *words):
        """Runs gemba with `words`; its exit code and what it printed."""
        running = await asyncio.create_subprocess_exec(
            self.arguments.gemba, *[str(word) for word in words], cwd=self.folder, stdin=-3, stdout=-1, stderr=-2
        )
        told, _ = await asyncio.wait_for(running.communicate(), 90)
        return running.returncode, told.decode()

    async def while_born(self, *words):
        """The same, while the edge node is born again and again: a probe never asks it to."""
        running = asyncio.create_task(self.command(*words))
        while not running.done():
            await self.cell.tell(birth=True)
            await asyncio.wait([running], timeout=0.5)
        return running.result()

    async def trust(self):
        say("a server that nobody has accepted yet")
        code, told = await self.command("check", "--config", self.config, "--probe")
        with self.report.check("an untrusted server is refused, and the message names the way to accept it"):
            assert code == 1, (code, told)
            self.accept = re.search(r"gemba trust accept ([0-9a-f]{8,})", told)
            assert self.accept, told
            assert "secret" not in told, told
        code, told = await self.command("trust", "list", "--config", self.config)
        with self.report.check("gemba trust list shows it among the rejected"):
            assert code == 0 and self.accept.group(1).lower()[:8] in told.lower().replace(" ", ""), (code, told)
        code, told = await self.command("trust", "accept", "--config", self.config, self.accept.group(1))
        with self.report.check("gemba trust accept takes the thumbprint of the message"):
            assert code == 0, (code, told)

    async def look_around(self):
        say("gemba check --probe and gemba browse")
        code, told = await self.while_born("check", "--config", self.config, "--probe")
        rows = {tuple(line.split()[:2]): line for line in told.splitlines() if len(line.split()) > 3}
        with self.report.check("check --probe reads every tag of every device, and only unit 9 fails"):
            assert code == 1, (code, told)
            for station, tag, value in (
                ("press-1", "state", "Idle"),
                ("press-1", "total", "100 {part}"),
                ("press-1", "pressure", "1.5 bar"),
                ("press-2", "total", "10 {part}"),
                ("press-2", "offset", "-5"),
                ("press-2", "drift", "-70000"),
                ("oven-1", "value", "100"),
                ("oven-2", "value", "200"),
            ):
                row = rows.get((station, tag), "")
                assert value in row and "good" in row and " ms" in row, (station, tag, row, told)
            assert "bad" in rows[("oven-9", "value")], told
        code, told = await self.command("browse", "--config", self.config, "press-1", "--filter", "*Press*")
        with self.report.check("browse lists the server's variables as tags, by namespace URI"):
            assert code == 0, (code, told)
            for name in ("State", "Total", "Pressure", "Live"):
                assert f'"nsu=urn:fab-2:press;s={name}"' in told, told
        code, told = await self.while_born("browse", "--config", self.config, "press-2", "--listen", "3s")
        with self.report.check("browse lists the metrics of a Sparkplug device"):
            assert code == 0 and all(name in told for name in ("State", "Total", "Pressure", "Running")), (code, told)
        code, told = await self.command("browse", "--config", self.config, "oven-1")
        with self.report.check("browse finds the registers that a Modbus unit answers for"):
            assert code == 0 and "holding:0" in told and "holding:3" in told and "holding:4" not in told, (code, told)

    async def start_gemba(self, name="gemba-devices"):
        self.gemba = Gemba(self.arguments.gemba, self.config, self.folder, name=name, port=8082)

        def up():
            self.gemba.must_run()
            return self.gemba.get("/health/live")[0] == 200

        await until("gemba's page", up)

    async def tag(self, station, name):
        return next(tag for tag in (await self.gemba.station(station))["tags"] if tag["name"] == name)

    async def shows(self, station, name, value=None, validity=GOOD):
        async def seen():
            tag = await self.tag(station, name)
            return tag["validity"] == validity and (value is None or tag["value"] == value)

        await until(f"{station} {name} = {value}, {validity}", seen, deadline=60)

    async def make(self, parts, **values):
        for _ in range(parts):
            self.count += 1
            await self.press.set(Total=self.count, **values)

    async def make_seen(self, parts, **values):
        """The same at a pace that a server which samples can follow."""
        for _ in range(parts):
            await self.make(1, **values)
            await self.shows("press-1", "total", self.count)

    async def cell_tells(self, **values):
        """Data of press-2, which gemba hears and shows."""
        before = len(self.cell.account)
        await self.cell.tell(data=values)
        self.due += self.cell.account[before:]
        for name, value in values.items():
            await self.shows("press-2", name.lower(), value)

    async def steady(self):
        say("all devices at work")
        await self.press.set(State="Execute")
        await self.make_seen(5, Pressure=2.5)
        await self.press.set(Live=0.75)
        await self.shows("press-1", "pascal", 250_000.0)
        await self.cell_tells(Total=11, Pressure=3.5, State="running", Offset=-6, Drift=-70_001)
        for oven in ("oven-1", "oven-2"):
            await self.shows(oven, "value")
        await self.shows("oven-9", "value", None, BAD)
        with self.report.check("the dead unit's tag is bad and says that nobody answers; its neighbours are good"):
            assert "NoAnswer" in json.dumps(await self.tag("oven-9", "value")), await self.tag("oven-9", "value")
        for pressure in (850.0, 2.0):  # an alarm, and its end
            await self.press.set(Pressure=pressure)
            await self.shows("press-1", "pressure", pressure)

    async def spoilt_line(self):
        say("the serial line: garbled, late and swallowed answers")
        asked = {"frames": 0}

        def spoil(frame):
            asked["frames"] += 1
            turn = asked["frames"] % 12
            if turn == 3:
                return 0, frame[:-1] + bytes([frame[-1] ^ 0x55])  # a wrong CRC
            if turn == 6:
                return 0, frame[:-3]  # too short
            if turn == 9:
                return 0.45, frame  # after the timeout: it looks like the answer to the next question
            return 0, frame

        before = {unit: len(values) for unit, values in self.slaves.served.items()}
        self.line.spoil = spoil
        await until(
            "many polls over the spoilt line",
            lambda: all(len(values) > before[unit] + 60 for unit, values in self.slaves.served.items()),
            deadline=90,
        )
        self.line.spoil = None
        self.metrics = await asyncio.to_thread(self.gemba.get, "/metrics")
        for oven in ("oven-1", "oven-2"):
            await self.shows(oven, "value")

    async def cable_out(self):
        say("the cable to the OPC UA server is out, and it goes on")
        self.cable.pull()
        await self.shows("press-1", "total", None, BAD)
        await self.press.set(State="Held")
        await self.make(20)
        await self.press.set(status="BadSensorFailure", Reject=0)
        await self.press.set(Reject=3)
        await self.press.set(State="Execute", Live=0.5)
        await self.make(10, Pressure=2.25)
        self.cable.put_back()
        await self.shows("press-1", "total", self.count)
        await self.make_seen(3)

    async def killed(self):
        say("kill -9 while the devices go on")
        await self.gemba.stop(signal.SIGKILL)
        await self.make(15)
        await self.start_gemba("gemba-devices-2")
        await self.shows("press-1", "total", self.count)
        await self.make_seen(2)

    async def server_killed(self):
        say("the wire to the OPC UA server is slow, then the server is killed, and has forgotten everything")
        self.cable.delay = 0.2
        await self.make_seen(3)
        self.cable.delay = 0.0
        await self.press.kill()
        await self.shows("press-1", "total", None, BAD)
        await self.press.start()
        await self.shows("press-1", "total", 100)
        await self.make_seen(3)

    async def births(self):
        """How often the edge node was asked for a birth."""
        await self.cell.tell()
        return self.cell.asked()

    async def asked_since(self, before):
        async def more():
            return await self.births() > before

        await until("the edge node to be asked for a birth", more, deadline=60)

    async def cell_line(self):
        say("the wire to the Sparkplug node's broker is slow, then out; messages are missing, the broker is gone")
        await self.shows("press-2", "total", 11)
        self.cell_cable.delay = 0.3
        for total in range(12, 17):
            await self.cell_tells(Total=total, Offset=-total)
        self.cell_cable.delay = 0.0

        before = await self.births()
        self.cell_cable.pull()
        await self.shows("press-2", "total", None, BAD)
        await self.cell.tell(data={"Total": 20})
        self.cell_cable.put_back()
        await self.shows("press-2", "total", 20)
        with self.report.check("after a cut the edge node was asked for a birth, which brought its values back"):
            assert await self.births() > before

        before = await self.births()
        await self.cell.tell(skip=200)
        await self.cell.tell(data={"Total": 21})
        await self.asked_since(before)
        await self.shows("press-2", "total", 21)
        await self.cell_tells(Total=22, Drift=-1)

        await self.cell.tell(death=True)
        await self.shows("press-2", "total", None, BAD)
        with self.report.check("a device's death makes its tags bad, and says so"):
            assert "Dead" in json.dumps(await self.tag("press-2", "total")), await self.tag("press-2", "total")
        await self.cell.tell(birth=True)
        await self.shows("press-2", "total", 22)

        await self.broker.stop()
        await self.shows("press-2", "total", None, BAD)
        self.broker = TlsBroker(self.folder)
        await self.broker.start()
        await self.shows("press-2", "total", 22)
        await self.cell_tells(Total=23, Pressure=4.5, Offset=32_000)

    async def deaths(self):
        say("a Sparkplug node dies, and is born again")
        await self.shows("press-2", "total", 23)
        with self.report.check("after the kill the edge node was asked for a birth, and gave one"):
            assert any("rebirth" in said for said in self.cell.heard), self.cell.heard
        await self.cell.tell(drop=True)
        await self.shows("press-2", "total", None, BAD)
        with self.report.check("a node's death makes its tags bad, and says so"):
            assert "Dead" in json.dumps(await self.tag("press-2", "total")), await self.tag("press-2", "total")
        await self.cell.stop()
        account = self.cell.account
        self.cell = Cell(self.folder, self.arguments.modules, f"mqtt://127.0.0.1:{TlsBroker.PLAIN}")
        self.cell.account = account
        await self.cell.start()
        await self.cell_tells(Total=24, Drift=70_000)

    async def finish(self):
        self.health = await self.gemba.health()
        await self.cell.tell()  # what it said meanwhile is in its account
        code = await self.gemba.stop()
        with self.report.check("SIGTERM ends with 0"):
            assert code == 0, f"{code}\n{self.gemba.tail()}"
        code = await self.collector.stop()
        assert code == 0, f"the collector ended with {code}:\n{self.collector.tail()}"

    async def teardown(self):
        for program in (self.gemba, self.collector, self.broker):
            if program is not None and program.running():
                await program.stop()
        for told in (self.press, self.cell):
            if told is not None and told.process is not None and told.process.returncode is None:
                await told.stop()
        if self.slaves.server is not None:
            await self.slaves.stop()
        self.line.stop()
        for cable in (self.cable, self.cell_cable):
            if cable.server is not None:
                cable.stop()

    # ------------------------------------------------------------------------------------ the account

    def check(self, received):
        with self.report.check("every value that the OPC UA server had came upstream once, in order: over the cut and both kills"):
            for name in ("Total", "Reject", "Pressure"):
                # The same again is no change, which is what was subscribed to.
                given = [next(same) for _, same in groupby(self.press.of(name), lambda each: each[1:])]
                points = received.of(f"factory.tag.{name.lower()}", "press-1")
                told = [(point.time, point.value) for point in points if not point.bad]
                missing = [each[:2] for each in given if each[2] == "Good" and each[:2] not in told]
                assert not missing, f"{name}: {len(missing)} of {len(given)} never came: {missing[:3]}"
                assert len(told) == len({at for at, _ in told}), f"{name}: an instant came twice"
                assert told == sorted(told, key=lambda each: each[0]), f"{name}: out of order"
        with self.report.check("every value that the Sparkplug node told gemba came upstream once, at its own time, and no other"):
            for name in ("Total", "Pressure", "Offset", "Drift"):
                points = received.of(f"factory.tag.{name.lower()}", "press-2")
                told = [(point.time, point.value) for point in points if not point.bad]
                account = {(at, value) for at, metric, value in self.cell.account if metric == name}
                missing = [each[::2] for each in self.due if each[1] == name and each[::2] not in told]
                assert not missing, f"{name}: never came: {missing[:3]}"
                strange = [each for each in told if each not in account]
                assert not strange, f"{name}: the node never said {strange[:3]}"
                assert len(told) == len(set(told)), f"{name}: something came twice"
        with self.report.check("the messages that were left out are in the ledger"):
            gaps = [log for log in received.events("gemba.loss") if "sequence numbers" in str(log.attribute("gemba.loss.reason"))]
            assert any(log.attribute("gemba.loss.count") == 200 for log in gaps), gaps
        with self.report.check("a bad status in the middle of the gap came as a bad reading"):
            at = next(at for at, tag, _, status in self.press.account if tag == "Reject" and status != "Good")
            assert any(point.bad and point.time == at for point in received.of("factory.tag.reject", "press-1")), at
        with self.report.check("the gaps are told: backfilled from history, and in the ledger where there was none"):
            filled = received.events("gemba.backfill", "press-1")
            assert len(filled) >= 2, filled
            assert sum(log.attribute("gemba.backfill.count") for log in filled) >= 45, filled
            losses = [log for log in received.events("gemba.loss") if "history" in str(log.attribute("gemba.loss.reason"))]
            assert losses and all(log.attribute("gemba.loss.source") == "press-1" for log in losses), losses
        with self.report.check("the alarm is a log with the server's severity"):
            alarms = received.events("factory.event", "press-1")
            assert any("high" in str(log.body).lower() or log.says("High") for log in alarms), alarms
        with self.report.check("no reading over the spoilt line is wrong: each unit's values are its own, and were served"):
            for unit, oven in ((1, "oven-1"), (2, "oven-2")):
                told = [point.value for point in received.of("factory.tag.value", oven) if not point.bad]
                served = set(self.slaves.served[unit])
                assert len(told) > 60, (oven, len(told))
                strange = [value for value in told if value not in served]
                assert not strange, (oven, strange[:5])
                assert told == sorted(told) and len(told) == len(set(told)), f"{oven}: an old answer was taken for a new one"
        with self.report.check("gemba counted what was wrong with the frames"):
            status, metrics = self.metrics
            assert status == 200 and re.search(r"^gemba_device_discarded_total\{.*crc.*\} [1-9]", metrics, re.M | re.I), metrics[-2000:]


async def main(arguments):
    logging.getLogger("pymodbus_internal").setLevel(logging.CRITICAL)  # it tells every frame after the first odd one
    report = Report()
    taken = {port: what for port, what in PORTS.items() if port_is_taken(port)}
    if taken:
        print(f"FAIL  these ports must be free, and something else has them: {taken}\n0 passed, 1 failed")
        return 1
    devices = Devices(arguments, report)
    with report.check("the devices' script ran to its end"):
        try:
            await devices.run()
        finally:
            await devices.teardown()
    if hasattr(devices, "health"):
        received = otlp.read(devices.collector.file, line="devices")
        say(f"{len(received.points)} points, {len(received.logs)} logs, {received.repeated} came more than once")
        devices.check(received)
    if report.failed:
        say(f"what every program said, and what the collector got, lies in {arguments.folder}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemba", type=Path, required=True, help="the binary")
    parser.add_argument("--collector", type=Path, required=True, help="the OpenTelemetry Collector's binary")
    parser.add_argument("--modules", type=Path, required=True, help="node_modules with what node/package.json names")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for everything written")
    given = parser.parse_args()
    for name in ("gemba", "collector", "modules", "folder"):
        setattr(given, name, getattr(given, name).resolve())
    sys.exit(asyncio.run(main(given)))
