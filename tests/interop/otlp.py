"""Reads what the collector wrote: OTLP as JSON lines."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone

NO_RECORDED_VALUE = 1


@dataclass(frozen=True)
class Point:
    """One data point of any metric but a histogram, whose `value` is its whole JSON."""

    metric: str
    unit: str
    kind: str  # gauge, or sum with what it is: `sum cumulative monotonic`
    station: str
    attributes: tuple  # beside the station, sorted
    time: int
    start: int
    value: object
    flags: int

    def attribute(self, key):
        return dict(self.attributes).get(key)

    @property
    def bad(self):
        return bool(self.flags & NO_RECORDED_VALUE)


@dataclass(frozen=True)
class Log:
    """One log record with an event name."""

    event: str
    station: str
    attributes: tuple
    time: int
    body: object

    def attribute(self, *keys):
        """The first of `keys` that is there."""
        held = dict(self.attributes)
        for key in keys:
            if key in held:
                return held[key]
        raise AssertionError(f"{self.event} has none of {keys}, but {sorted(held)}")

    def says(self, *values):
        """Whether each value stands in it somewhere, as it is or as text (also in hexadecimal)."""
        words = set()
        for value in [*dict(self.attributes).values(), self.body]:
            words.add(str(value))
            if isinstance(value, int):
                words.update({hex(value), f"0x{value:08X}"})
        return all(any(str(value) in word for word in words) for value in values)


@dataclass(frozen=True)
class Span:
    """One span, with the `service.name` that it came under."""

    name: str
    kind: int  # 2: server, 3: client
    service: str
    attributes: tuple
    trace: str
    span: str
    start: int
    end: int

    def attribute(self, key):
        return dict(self.attributes).get(key)


@dataclass
class Received:
    """Everything the collector got, in its order, each thing once (upstream is *at least once*)."""

    points: list = field(default_factory=list)
    logs: list = field(default_factory=list)
    spans: list = field(default_factory=list)
    resources: list = field(default_factory=list)
    repeated: int = 0

    def of(self, metric, station=None, **attributes):
        """Points of a metric, by time."""
        wanted = {(key.replace("__", "."), value) for key, value in attributes.items()}
        found = [
            point
            for point in self.points
            if point.metric == metric and station in (None, point.station) and wanted <= set(point.attributes)
        ]
        return sorted(found, key=lambda point: point.time)

    def events(self, event, station=None):
        """Logs of an event, by time."""
        found = [log for log in self.logs if log.event == event and station in (None, log.station)]
        return sorted(found, key=lambda log: log.time)


def read(*files, line=None):
    """Reads the files in order; with `line`, only what comes from that `factory.line`."""
    received = Received()
    seen = set()

    def take(into, item):
        if item in seen:
            received.repeated += 1
        else:
            seen.add(item)
            into.append(item)

    for file in files:
        for text in open(file, encoding="utf-8"):
            request = json.loads(text)
            for group in request.get("resourceMetrics", []):
                resource = attributes(group["resource"])
                if line not in (None, resource.get("factory.line")):
                    continue
                received.resources.append(resource)
                for scope in group["scopeMetrics"]:
                    for metric in scope["metrics"]:
                        for point in points(metric):
                            take(received.points, point)
            for group in request.get("resourceLogs", []):
                resource = attributes(group["resource"])
                if line not in (None, resource.get("factory.line")):
                    continue
                received.resources.append(resource)
                for scope in group["scopeLogs"]:
                    for record in scope["logRecords"]:
                        take(received.logs, log(record))
            for group in request.get("resourceSpans", []):
                resource = attributes(group["resource"])
                if line not in (None, resource.get("factory.line")):
                    continue
                received.resources.append(resource)
                for scope in group["scopeSpans"]:
                    for held in scope["spans"]:
                        take(received.spans, span(held, resource.get("service.name")))
    return received


def points(metric):
    name, unit = metric["name"], metric.get("unit", "")
    for kind in ("gauge", "sum", "exponentialHistogram", "histogram"):
        if kind not in metric:
            continue
        data = metric[kind]
        words = [kind]
        if "aggregationTemporality" in data:
            words.append({1: "delta", 2: "cumulative"}.get(data["aggregationTemporality"], "unspecified"))
        if data.get("isMonotonic"):
            words.append("monotonic")
        for point in data["dataPoints"]:
            labels = attributes(point)
            station = labels.pop("factory.station", None)
            yield Point(
                metric=name,
                unit=unit,
                kind=" ".join(words),
                station=station,
                attributes=tuple(sorted(labels.items())),
                time=int(point.get("timeUnixNano", 0)),
                start=int(point.get("startTimeUnixNano", 0)),
                value=number(point) if kind in ("gauge", "sum") else json.dumps(point, sort_keys=True),
                flags=point.get("flags", 0),
            )


def log(record):
    labels = attributes(record)
    station = labels.pop("factory.station", None)
    return Log(
        event=record.get("eventName", ""),
        station=station,
        attributes=tuple(sorted(labels.items())),
        time=int(record.get("timeUnixNano", 0)),
        body=plain(record.get("body", {})),
    )


def span(held, service):
    return Span(
        name=held["name"],
        kind=held.get("kind", 0),
        service=service,
        attributes=tuple(sorted(attributes(held).items())),
        trace=held.get("traceId", ""),
        span=held.get("spanId", ""),
        start=int(held.get("startTimeUnixNano", 0)),
        end=int(held.get("endTimeUnixNano", 0)),
    )


def number(point):
    if "asInt" in point:
        return int(point["asInt"])
    return point.get("asDouble")


def attributes(holder):
    return {item["key"]: plain(item["value"]) for item in holder.get("attributes", [])}


def plain(value):
    """An AnyValue as Python has it."""
    if "intValue" in value:
        return int(value["intValue"])
    for key in ("stringValue", "doubleValue", "boolValue"):
        if key in value:
            return value[key]
    if "arrayValue" in value:
        return tuple(plain(item) for item in value["arrayValue"].get("values", []))
    if "kvlistValue" in value:
        return tuple((item["key"], plain(item["value"])) for item in value["kvlistValue"].get("values", []))
    return None


def rfc3339(ns):
    """With all nine digits: Python's own writes six."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def nanoseconds(text):
    """The reverse, for any number of digits and `Z` or an offset."""
    date, _, rest = text.partition(".")
    if not rest:
        return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * 1_000_000_000
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :].replace("Z", "+00:00")
    return int(datetime.fromisoformat(date + zone).timestamp()) * 1_000_000_000 + int(digits.ljust(9, "0"))
