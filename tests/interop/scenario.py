"""A scripted line against the reference configuration: three stations on three protocols, an outage, a kill.

    scenario.py --gemba BINARY --collector BINARY --config config/line.yaml --folder WORK
    scenario.py --peers ...        only tries the peers against each other's libraries, without gemba

gemba sends over HTTP until it is killed, and over gRPC after that: the backlog of the outage, which HTTP's account
begins, goes up over the other protocol, and the whole has to come out equal.

The steps run first and write down what every peer said; the checks then read the collector's files.
Waits are for conditions, with deadlines. One line a check; exit code 1 if any failed.
"""

import argparse
import asyncio
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from asyncua import ua

import checks
import otlp
import selfcheck
from peers import Aoi, Broker, Cable, Collector, Gemba, Oven, Plc, port_is_taken, until

PORTS = {
    5020: "Modbus",
    4840: "OPC UA",
    1883: "MQTT",
    1884: "Mosquitto",
    4318: "OTLP over HTTP",
    4317: "OTLP over gRPC",
    5021: "the second Modbus",
    8080: "gemba's page",
    8081: "gemba's second page",
}
STATIONS = ("printer-1", "aoi-1", "oven-1")
TRACED = {"\nstations:\n": "\ntraces: { sample: 100% }\nstations:\n"}  # else a share, which may be none


class Report:
    """Counts the checks and says how each went."""

    def __init__(self):
        self.passed, self.failed = 0, 0

    @contextmanager
    def check(self, name):
        try:
            yield
        except Exception as error:  # a check that breaks is a check that failed
            self.failed += 1
            print(f"FAIL  {name}\n      {type(error).__name__}: {error}".rstrip(), flush=True)
        else:
            self.passed += 1
            print(f"ok    {name}", flush=True)

    def skip(self, name, why):
        print(f"skip  {name}: {why}", flush=True)


def say(text):
    print(f"--    {text}", flush=True)


class Scenario:
    """The line, what happened to it, and when."""

    def __init__(self, arguments, report):
        self.arguments, self.report = arguments, report
        self.folder = Path(arguments.folder)
        self.plc, self.aoi, self.oven, self.cable = Plc(), Aoi(), Oven(), Cable()
        self.broker = self.collector = self.gemba = None
        self.files = []
        self.count = 500  # the oven's counter
        self.kills = []  # spans in which gemba was not up, as (from, to)
        self.truth = {}

    # ------------------------------------------------------------------------------------- the steps

    async def run(self):
        """All steps in order. What cannot go on raises."""
        self.plc.set(state=4, total=19_000, reject=400, squeegee_pressure=48.7)
        await self.plc.start()
        await self.aoi.start(state="Idle", good=1_000, reject=10, score=0.5)
        self.broker = Broker(self.folder)
        await self.broker.start()
        await self.cable.start()
        await self.oven.start()
        await self.start_collector("before")
        self.began = time.time_ns()
        await self.start_gemba(self.changed("http", TRACED))
        await self.steady()
        await self.local_page()
        await self.wrong_tags()
        await self.quiet()
        await self.outage()
        await self.finish()

    async def start_collector(self, run):
        self.collector = Collector(self.arguments.collector, self.folder, run)
        self.files.append(self.collector.file)
        await self.collector.start()

    async def start_gemba(self, config):
        heard = self.broker.subscriptions("gemba-smt-1")
        self.gemba = Gemba(self.arguments.gemba, config, self.folder)

        def up():
            self.gemba.must_run()
            return self.gemba.get("/health/live")[0] == 200

        await until("gemba's page", up)

        async def linked():
            links = {station["name"]: station["link"] for station in (await self.gemba.health())["stations"]}
            return set(links) == set(STATIONS) and set(links.values()) == {"connected"}

        await until("all three links", linked)
        # A session that the broker still has needs no new subscription.
        if not heard:
            await until("the subscription", lambda: self.broker.subscriptions("gemba-smt-1") > heard)

    async def oven_says(self, state="running", made=1):
        self.count += made
        zones = [{"temp": 240 + self.count / 1024}]  # no two alike, so that each point has one message
        await self.oven.send({"state": state, "count": self.count, "zones": zones})

    async def steady(self):
        say("the line runs: states, counts, a reset, bad values, bad payloads")
        await self.plc.until_read(2)
        total, reject = 19_000, 400
        script = [1, 1, 2, 1, 3, 1, 9, 1, 5, 1]  # 9 is a state that the map lacks
        words = [
            "Execute",
            "Execute",
            "Held",
            "Execute",
            "Suspended",
            "Execute",
            "Idle",
            "Execute",
            "Unheard",
            "Execute",
        ]
        for step, (state, word) in enumerate(zip(script, words)):
            total, reject = total + 3 + step, reject + step % 2
            self.plc.set(state=state, total=total, reject=reject, squeegee_pressure=48.7 + step / 3)
            await self.aoi.write(state=word)
            for burst in range(3):  # more than one value in a publishing interval: none may be dropped
                await self.aoi.write(score=0.9 + step / 100 + burst / 1000)
            await self.aoi.write(good=1_001 + 2 * step, reject=10 + step // 3)
            await self.oven_says("stopped" if step == 4 else "running", made=1 + step)
            await self.plc.until_read()

        self.plc.set(total=3, reject=1)  # the PLC was switched off and on: what it counts since is new
        await self.plc.until_read()
        self.plc.set(total=17, reject=2)
        await self.plc.until_read()

        self.sensor_failed = await self.aoi.write(status=ua.StatusCodes.BadSensorFailure, score=None)
        self.sensor_doubtful = await self.aoi.write(status=ua.StatusCodes.UncertainLastUsableValue, score=0.25)
        self.sensor_good = await self.aoi.write(score=0.875)
        self.state_lost = await self.aoi.write(status=ua.StatusCodes.BadOutOfService, state=None)
        await self.plc.until_read()
        await self.aoi.write(good=1_040)  # moved while the state was unknown: counted, and unattributed
        self.state_back = await self.aoi.write(state="Execute")
        await self.aoi.write(good=1_041)
        await self.gemba.shows("aoi-1", state="Execute", good=1_041, score=0.875)

        await self.oven.send(b"\x00not JSON{")
        await self.oven.send({"nothing": "that a tag names"})
        self.partial = time.time_ns()
        await self.oven.send({"count": self.count + 5})  # devices send what changed: the other tags stay
        self.count += 5
        await self.oven.send({"count": "many", "zones": [{"temp": 200.5}]})  # text is no counter: a bad reading
        await self.gemba.shows("oven-1", total=None, zone1=200.5)
        await self.oven_says(made=2)
        await self.oven_says(made=1)
        await self.gemba.shows("oven-1", state="running", total=self.count)
        await self.gemba.shows("printer-1", state=1, total=17, reject=2)

    async def local_page(self):
        say("what the local page says")
        health = await self.gemba.health()
        with self.report.check("/health: who, what and how, every tag listed"):
            assert (health["site"], health["line"]) == ("fab-2", "smt-1"), health
            assert health["version"] and health["uptime_s"] > 0
            listed = {station["name"]: [tag["name"] for tag in station["tags"]] for station in health["stations"]}
            assert listed == {
                "printer-1": ["state", "total", "reject", "squeegee_pressure"],
                "aoi-1": ["state", "good", "reject", "score"],
                "oven-1": ["state", "total", "zone1"],
            }, listed
            for station in health["stations"]:
                for tag in station["tags"]:
                    assert tag["validity"] == "good" and tag["value"] is not None, (station["name"], tag)
                    assert tag["source_time"] and tag["age_ms"] >= 0, (station["name"], tag)
            units = {tag["name"]: tag["unit"] for station in health["stations"] for tag in station["tags"]}
            assert units["zone1"] == "Cel" and units["squeegee_pressure"] == "N" and units["total"] == "{part}", units
        with self.report.check("/health: states in words, counts of the shift, healthy with 200"):
            assert [station["state"] for station in health["stations"]] == ["producing"] * 3, health["stations"]
            status, _ = await asyncio.to_thread(self.gemba.get, "/health")
            assert status == 200 and health["status"] == "healthy", (status, health["status"], health.get("reasons"))
        with self.report.check("/health: bad payloads are in the loss ledger, each once"):
            found = [loss for loss in health["losses"] if loss["source"] == "oven-1"]
            assert sum(loss["count"] for loss in found) == 2, health["losses"]
            assert all(loss["reason"] and loss["from"] and loss["to"] for loss in found), found
        with self.report.check("/health: an HTML page for a browser"):
            status, page = await asyncio.to_thread(self.gemba.get, "/health", "text/html")
            assert status == 200 and "<html" in page.lower(), (status, page[:80])
            assert all(station in page for station in STATIONS), page[:400]
        with self.report.check("/health/live and /health/ready answer 200"):
            for path in ("/health/live", "/health/ready"):
                status, body = await asyncio.to_thread(self.gemba.get, path)
                assert status == 200, (path, status, body)
        status, metrics = await asyncio.to_thread(self.gemba.get, "/metrics")
        with self.report.check("/metrics: names and labels of the contract"):
            assert status == 200, status
            for wanted in (
                r'^factory_tag_value\{factory_station="printer-1",factory_tag="total",unit="\{part\}"\} 17(\.0)?$',
                r'^factory_oee_ratio\{.*factory_station="aoi-1"',
                r'^factory_parts_total\{.*factory_part_disposition="reject"',
                r'^gemba_losses_total\{.*gemba_loss_source="oven-1"',
            ):
                assert re.search(wanted, metrics, re.MULTILINE), f"{wanted} is missing"
        if promtool := shutil.which("promtool"):
            with self.report.check("/metrics: promtool finds nothing"):
                told = subprocess.run([promtool, "check", "metrics"], input=metrics, capture_output=True, text=True)
                assert told.returncode == 0 and not (told.stdout + told.stderr).strip(), told.stdout + told.stderr
        else:
            self.report.skip("/metrics: promtool finds nothing", "promtool (Debian package prometheus) is not here")

    async def wrong_tags(self):
        """A second gemba beside the first: one wrong node and one wrong register among good ones."""
        say("a second gemba with a node and a register that do not exist")
        config = self.changed(
            "wrong",
            {
                "s=Score": "s=Missing",
                "input:10": "input:30",
                "127.0.0.1:5020": "127.0.0.1:5021",
                "127.0.0.1:8080": "127.0.0.1:8081",
                "./data/spool": "./data/spool-wrong",
                "gemba-smt-1": "gemba-smt-1-wrong",
                "line: smt-1": "line: smt-1-wrong",
            },
        )
        plc = Plc(5021)  # its own, so that what the first one served stays the first gemba's account
        plc.set(state=1, total=7, reject=1)
        await plc.start()
        wrong = Gemba(self.arguments.gemba, config, self.folder, name="gemba-wrong", port=8081)
        try:

            async def settled():
                stations = {station["name"]: station for station in (await wrong.health())["stations"]}
                tags = [tag for name in ("printer-1", "aoi-1") for tag in stations[name]["tags"]]
                heard = all(tag["source_time"] and "NoData" not in json.dumps(tag) for tag in tags)
                return heard and stations

            stations = await until("the second gemba to have read everything", settled)
            for station, tag, reason in (
                ("aoi-1", "score", "BadNodeIdUnknown"),
                ("printer-1", "squeegee_pressure", "IllegalDataAddress"),
            ):
                with self.report.check(f"a tag that does not exist: only {station} {tag} is bad, and says {reason}"):
                    tags = {entry["name"]: entry for entry in stations[station]["tags"]}
                    assert tags[tag]["validity"] == "bad" and tags[tag]["value"] is None, tags[tag]
                    assert reason in json.dumps(tags[tag]), tags[tag]
                    others = {name: entry["validity"] for name, entry in tags.items() if name != tag}
                    assert set(others.values()) == {"good"}, others
                    assert stations[station]["link"] == "connected", stations[station]
                    assert stations[station]["status"] == "degraded", stations[station]
            with self.report.check("a tag that does not exist: the line is degraded, with 200"):
                status, body = await asyncio.to_thread(wrong.get, "/health")
                assert status == 200 and json.loads(body)["status"] == "degraded", (status, body[:200])
        finally:
            code = await wrong.stop()
            await plc.stop()
            with self.report.check("a tag that does not exist: SIGTERM still ends with 0"):
                assert code == 0, f"{code}\n{wrong.tail()}"

    def changed(self, name, changes):
        """The reference configuration, but for these words."""
        text = Path(self.arguments.config).read_text()
        for old, new in changes.items():
            assert text.count(old) == 1, f"{old} stands {text.count(old)} times in the configuration"
            text = text.replace(old, new)
        config = self.folder / f"{name}.yaml"
        config.write_text(text)
        return config

    async def produce(self, messages, every=10):
        """The line goes on: MQTT messages, and now and then the other two stations."""
        for message in range(messages):
            await self.oven_says()
            if message % every == 0:
                self.plc.set(total=self.plc.value("total") + 2, reject=self.plc.value("reject") + message % 3 // 2)
                self.good += 1
                await self.aoi.write(good=self.good, score=0.5 + message / 1000)

    async def quiet(self):
        """Two KPI points (one every 10 s) while nothing changes, so that they can be compared to the digit."""
        say("a quiet line, for two KPI points")

        async def long_enough():
            return (await self.gemba.health())["uptime_s"] > 25

        await until("25 s of uptime", long_enough, every=0.5)

    async def outage(self):
        say("the collector goes away; the line goes on")
        self.good = 1_041
        await self.collector.stop()
        self.dark = time.time_ns()

        async def noticed():
            health = await self.gemba.health()
            return health["upstream"]["status"] != "connected" and health["spool"]["records"] > 0 and health

        await self.produce(20)
        health = await until("gemba to notice that upstream is gone", noticed)
        with self.report.check("outage: degraded with 200, and the spool fills"):
            status, _ = await asyncio.to_thread(self.gemba.get, "/health")
            assert status == 200 and health["status"] == "degraded", (status, health["status"])
            assert health["spool"]["readings"] > 0 and health["spool"]["oldest"], health["spool"]
        await self.produce(100)
        self.cable.deaf = True  # gemba's acknowledgements get lost: the broker will send these again after the kill
        self.unheard = time.time_ns()
        await self.produce(15)
        await self.gemba.shows("aoi-1", good=self.good)
        await self.gemba.shows("oven-1", total=self.count)
        self.safe = time.time_ns()
        await self.plc.until_read(6)  # more than a second: what was seen before is committed (`sync: 250ms`)

        say("kill -9 in mid-stream")
        sent = len(self.oven.published)
        stream = asyncio.create_task(self.produce(60))
        await until("some of it", lambda: len(self.oven.published) > sent + 20, every=0.005)
        gone = time.time_ns()
        await self.gemba.stop(signal.SIGKILL)
        await stream
        self.cable.deaf = False
        await self.produce(40)
        await self.aoi.write(state="Held")
        self.restated = await self.aoi.write(state="Execute", good=self.good + 4, reject=14, score=0.125)
        self.good += 4
        self.plc.set(state=1, total=self.plc.value("total") + 50)
        await self.what_the_disk_holds()

        over_grpc = TRACED | {"127.0.0.1:4318": "127.0.0.1:4317", "protocol: http": "protocol: grpc"}
        await self.start_gemba(self.changed("grpc", over_grpc))
        self.kills.append((gone, time.time_ns()))
        await self.gemba.shows("oven-1", total=self.count)
        say("gemba is back, upstream is not")
        await self.produce(80)
        await self.gemba.shows("oven-1", total=self.count)

        await self.start_collector("after")
        say("the collector is back, and hears gRPC")
        back = time.time_ns()

        async def drained():
            health = await self.gemba.health()
            oldest = health["spool"]["oldest"]
            return health["upstream"]["status"] == "connected" and (
                health["spool"]["records"] == 0 or oldest is not None and otlp.nanoseconds(oldest) > back
            )

        await until("the backlog to drain", drained, deadline=90)  # a pause may be 30 s
        await self.produce(20)

    async def what_the_disk_holds(self):
        """While gemba is dead: what its spool holds can be read, and replayed to the figures that it gives."""
        spool = self.folder / "data" / "spool"
        with self.report.check("spool status and export, after a kill"):
            status = self.command("spool", "status", "--path", spool)
            assert status.returncode == 0, status.stderr
            export = self.command("spool", "export", "--path", spool)
            assert export.returncode == 0, export.stderr
            readings = [json.loads(line) for line in export.stdout.splitlines()]
            exported = {(line["station"], line["tag"], line["value"]) for line in readings}
            for message in self.oven.published:
                if self.dark < message.before and message.after < self.safe:
                    wanted = ("oven-1", "total", message.payload["count"])
                    assert wanted in exported, f"{wanted} was acknowledged and is not in the spool"
        with self.report.check("replay of the spool's export gives the figures that its readings give"):
            file = self.folder / "export.jsonl"
            file.write_text(export.stdout)
            until_ns = max(otlp.nanoseconds(line["source_time"]) for line in readings) + 1_000_000_000
            told = self.replay(file, until_ns)
            histories = {name: checks.from_export(readings, name) for name in STATIONS}
            checks.replay_agrees(told, histories, until_ns)

    def replay(self, file, until_ns):
        told = self.command(
            "replay", "--config", self.arguments.config, file, "--format", "json", "--until", otlp.rfc3339(until_ns)
        )
        assert told.returncode == 0, told.stderr
        return json.loads(told.stdout)

    def command(self, *words):
        return subprocess.run(
            [str(self.arguments.gemba), *map(str, words)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    async def finish(self):
        say("the last word: quiet, stop, read the files")
        self.plc.set(state=1)
        await self.aoi.write(state="Execute", reject=15)
        await self.plc.until_read(2)
        last = {
            "printer-1": {"total": self.plc.value("total"), "reject": self.plc.value("reject")},
            "aoi-1": {"good": self.good, "reject": 15},
            "oven-1": {"total": self.count},
        }
        for station, values in last.items():
            await self.gemba.shows(station, **values)
        self.health = await self.gemba.health()
        self.stopping = time.time_ns()
        code = await self.gemba.stop()
        with self.report.check("SIGTERM drains and ends with 0"):
            assert code == 0, f"{code}\n{self.gemba.tail()}"
        code = await self.collector.stop()
        assert code == 0, f"the collector ended with {code}:\n{self.collector.tail()}"

    async def teardown(self):
        for stop in (self.gemba, self.collector, self.broker):
            if stop is not None and stop.running():
                await stop.stop()
        if self.broker is not None:
            self.oven.stop()
        if self.cable.server is not None:
            self.cable.stop()
        for server in (self.plc, self.aoi):
            if server.server is not None:
                await server.stop()


async def main(arguments):
    logging.getLogger("asyncua").setLevel(logging.ERROR)  # it warns of what the script wants: no security
    report = Report()
    taken = {port: what for port, what in PORTS.items() if port_is_taken(port)}
    if taken:
        print(f"FAIL  these ports must be free, and something else has them: {taken}\n0 passed, 1 failed")
        return 1
    if arguments.peers:
        await selfcheck.run(arguments, report)
    else:
        scenario = Scenario(arguments, report)
        with report.check("the script ran to its end"):
            try:
                await scenario.run()
            finally:
                await scenario.teardown()
        if hasattr(scenario, "health"):
            with report.check("both protocols carried their part"):
                for file in scenario.files:
                    held = otlp.read(file, line="smt-1")
                    assert held.points and held.logs and held.spans, file
            received = otlp.read(*scenario.files, line="smt-1")
            say(f"{len(received.points)} points, {len(received.logs)} logs, {len(received.spans)} spans, {received.repeated} came more than once")
            checks.run(scenario, received, report)
    if report.failed:
        say(f"what every program said, and what the collector got, lies in {arguments.folder}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gemba", type=Path, help="the binary")
    parser.add_argument("--collector", type=Path, required=True, help="the OpenTelemetry Collector's binary")
    parser.add_argument("--config", type=Path, required=True, help="the reference configuration")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for everything written")
    parser.add_argument("--peers", action="store_true", help="only try the peers, without gemba")
    given = parser.parse_args()
    for name in ("gemba", "collector", "config", "folder"):
        if getattr(given, name):
            setattr(given, name, getattr(given, name).resolve())
    if not given.peers and given.gemba is None:
        parser.error("--gemba is needed, unless only the --peers are tried")
    sys.exit(asyncio.run(main(given)))
