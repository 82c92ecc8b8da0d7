"""Foreign devices: what gemba's drivers meet. Each is somebody else's code and keeps its own account of what it said.

The wires between are the tests' own, so that frames can be cut, garbled and delayed on them.
"""

import asyncio
import ipaddress
import json
import os
import time
import tty
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pymodbus import FramerType
from pymodbus.server import ModbusSerialServer
from pymodbus.simulator import DataType, SimData, SimDevice

from peers import Cable, Program, answers, until

NODE = Path(__file__).with_name("node")


class Told:
    """A program that is told by lines of JSON what to do, and answers each with one."""

    def __init__(self, name, script, arguments, folder, modules):
        self.name, self.command = name, ["node", NODE / script, *arguments]
        self.log = Path(folder) / f"{name}.log"
        self.env = {**os.environ, "NODE_PATH": str(modules)}
        self.process = None
        self.heard = []  # what it said without being asked

    async def start(self, first):
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *[str(part) for part in self.command], stdin=-1, stdout=-1, stderr=log, env=self.env
            )
        return await self._hear(first)

    async def _hear(self, key):
        """The next thing it says that has `key`."""
        while True:
            line = await asyncio.wait_for(self.process.stdout.readline(), 60)
            if not line:
                raise RuntimeError(f"{self.name} ended: {self.log.read_text(errors='replace')[-2000:]}")
            if line.startswith(b"{"):  # libraries talk too
                said = json.loads(line)
                self.note(said)
                if key in said:
                    return said
                self.heard.append(said)

    def note(self, said):
        """Something it said, asked or not."""

    async def tell(self, **order):
        """Does what `order` says; when, in nanoseconds by its own clock."""
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        return (await self._hear("at"))["at"] * 1_000_000

    async def stop(self):
        self.process.stdin.close()
        try:
            await asyncio.wait_for(self.process.wait(), 10)
        except asyncio.TimeoutError:
            await self.kill()

    async def kill(self):
        self.process.kill()
        await self.process.wait()


class Press(Told):
    """press-1: an OPC UA server (node-opcua) with history, security and a user."""

    def __init__(self, folder, modules, port=4841):
        self.port = port
        super().__init__("press", "opcua.js", [port, Path(folder) / "press-pki"], folder, modules)
        self.account = []  # (ns, variable, value, status)

    async def start(self):
        return await super().start("ready")

    def of(self, name):
        """What it said of one variable: when, what, and with which status."""
        return [(at, value, status) for at, variable, value, status in self.account if variable == name]

    async def set(self, status="Good", **values):
        """Sets variables, with one source time of their own each call."""
        if self.account:
            last = self.account[-1][0] // 1_000_000
            await until("the millisecond to pass", lambda: time.time_ns() // 1_000_000 > last, every=0.001)
        at = await self.tell(set=values, status=status)
        self.account += [(at, name, value, status) for name, value in values.items()]
        return at


class Cell(Told):
    """cell-7 with its device press-2: a Sparkplug edge node (Eclipse Tahu)."""

    def __init__(self, folder, modules, broker):
        super().__init__("cell", "sparkplug.js", [broker], folder, modules)
        self.account = []  # (ns, metric, value)

    async def start(self):
        return await super().start("born")

    def note(self, said):
        self.account += [(at * 1_000_000, name, value) for name, value, at in said.get("told", ())]

    def asked(self):
        """How often it was asked for a birth, as far as it has said."""
        return sum("rebirth" in said for said in self.heard)


class SlowCable(Cable):
    """A cable that may hold back what goes over it, for so many seconds a piece."""

    delay = 0.0

    async def _pump(self, reader, writer, up):
        try:
            while data := await reader.read(65_536):
                await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


class SerialLine:
    """Two serial ports and the wire between them; what goes over it can be spoilt."""

    def __init__(self):
        self.masters, self.paths, self.slaves = [], [], []
        for _ in range(2):
            master, slave = os.openpty()
            tty.setraw(master)
            tty.setraw(slave)
            os.set_blocking(master, False)
            self.masters.append(master)
            self.slaves.append(slave)  # held open, so that a port that nobody uses stays
            self.paths.append(os.ttyname(slave))
        self.device, self.gateway = self.paths
        self.spoil = None  # what becomes of an answer: bytes to (delay in seconds, bytes) or None
        self.asked = []  # requests, as they went over the wire
        self.held = [b"", b""]  # what came of a frame that is not whole yet, from the device and from the gateway
        self.absent = {9}  # units that nobody has; a pymodbus server answers for all

    def start(self):
        loop = asyncio.get_running_loop()
        loop.add_reader(self.masters[0], self._pump, 0)
        loop.add_reader(self.masters[1], self._pump, 1)

    def _pump(self, side):
        try:
            self.held[side] += os.read(self.masters[side], 4096)
        except OSError:
            return
        while frame := self._frame(side):
            self._pass_on(side, frame)

    def _frame(self, side):
        """The next whole frame: what one read brings may be a part of one, or more than one."""
        held = self.held[side]
        if side == 1:
            length = 8  # every request for function 1 to 4
        elif len(held) < 3:
            return b""
        else:
            length = 5 if held[1] & 0x80 else 5 + held[2]
        if len(held) < length:
            return b""
        self.held[side] = held[length:]
        return held[:length]

    def _pass_on(self, side, frame):
        other = self.masters[1 - side]
        if side == 1:
            self.asked.append(frame)
            if frame[0] not in self.absent:
                os.write(other, frame)
            return
        delay, frame = self.spoil(frame) if self.spoil else (0, frame)
        if delay:
            asyncio.get_running_loop().call_later(delay, os.write, other, frame)
        else:
            os.write(other, frame)

    def stop(self):
        for master in self.masters:
            asyncio.get_running_loop().remove_reader(master)
        for end in self.masters + self.slaves:
            os.close(end)


class Slaves:
    """Modbus RTU devices on one bus (pymodbus): unit u says u*1000 + how often it was asked."""

    UNITS = (1, 2)

    def __init__(self, port):
        self.port = port
        self.served = {unit: [] for unit in self.UNITS}  # values, in order
        self.server = self.task = None

    def _device(self, unit):
        async def read(_function, _start, _address, _count, registers, written):
            assert written is None, f"gemba wrote to unit {unit}"
            value = unit * 1000 + len(self.served[unit])
            registers[0] = value
            self.served[unit].append(value)

        return SimDevice(unit, simdata=[SimData(0, count=4, values=0, datatype=DataType.REGISTERS)], action=read)

    async def start(self):
        devices = [self._device(unit) for unit in self.UNITS]
        self.server = ModbusSerialServer(devices, framer=FramerType.RTU, port=self.port, baudrate=19_200)
        self.task = asyncio.create_task(self.server.serve_forever())

    async def stop(self):
        await self.server.shutdown()
        self.task.cancel()


class Authority:
    """Certificates for a broker and its clients."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fab-2 authority")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self.certificate = self._build(self.name, self.key.public_key()).add_extension(basic, critical=True)
        self.certificate = self.certificate.sign(self.key, hashes.SHA256())
        self._write("ca.pem", self.certificate.public_bytes(serialization.Encoding.PEM))

    def _build(self, subject, public_key):
        now = datetime.now(timezone.utc)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public_key)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))

    def issue(self, name, usage):
        """Writes `name`.pem and `name`.key."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._build(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key.public_key())
        places = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(places), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        self._write(f"{name}.pem", certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        pkcs8 = serialization.PrivateFormat.PKCS8
        self._write(f"{name}.key", key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))

    def _write(self, name, data):
        (self.folder / name).write_bytes(data)


SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


class TlsBroker(Program):
    """Mosquitto: clients with a certificate of ours on one port, and anybody on another."""

    TLS, PLAIN = 8884, 1885

    def __init__(self, folder):
        folder = Path(folder)
        authority = Authority(folder)
        authority.issue("broker", SERVER)
        authority.issue("gateway", CLIENT)
        config = folder / "mosquitto-tls.conf"
        config.write_text(
            f"per_listener_settings false\nallow_anonymous true\nlog_dest stderr\nlog_type all\n"
            f"listener {self.PLAIN} 127.0.0.1\n"
            f"listener {self.TLS} 127.0.0.1\ncafile {folder}/ca.pem\ncertfile {folder}/broker.pem\n"
            f"keyfile {folder}/broker.key\nrequire_certificate true\n"
            + (f"user {os.environ.get('USER') or 'root'}\n" if os.geteuid() == 0 else "")
        )
        super().__init__("mosquitto-tls", ["mosquitto", "-c", config], folder)

    async def start(self):
        await until("Mosquitto with TLS to listen", lambda: answers(self.TLS) and answers(self.PLAIN) or not self.running())
        assert self.running(), f"Mosquitto did not start:\n{self.tail()}"
