// A Sparkplug B edge node with one device (Eclipse Tahu's client), told by lines of JSON what to do.
//
//   node sparkplug.js BROKER-URL
//
// {"data": {"Total": 5}}     publishes DDATA of the device, by the aliases of its birth (Pressure has none, and goes by name)
// {"birth": true}            says NBIRTH and DBIRTH again; {"death": true} says DDEATH; {"drop": true} ends with an NDEATH
// {"skip": 5}                leaves out as many sequence numbers, as if these messages were lost on the way
// A rebirth that is asked for is obeyed, and answered with {"rebirth": true}.
// Each answer has what was said of the device's metrics: {"told": [[name, value, milliseconds]]}.

"use strict";
const readline = require("node:readline");
const sparkplug = require("sparkplug-client");

const DEVICE = "press-2";
const KINDS = { State: "String", Total: "UInt64", Pressure: "Double", Running: "Boolean", Offset: "Int16", Drift: "Int32" };
const ALIASES = { State: 11, Total: 12, Running: 13, Offset: 14, Drift: 15 };
const held = { State: "running", Total: 10, Pressure: 2.25, Running: true, Offset: -5, Drift: -70000 };

const client = sparkplug.newClient({
    serverUrl: process.argv[2], username: "", password: "", groupId: "fab-2", edgeNode: "cell-7",
    clientId: "cell-7", version: "spBv1.0", publishDeath: true,
});

// A birth has names and aliases, data has the alias alone where there is one.
function metrics(names, birth) {
    const timestamp = Date.now();
    const metric = (name) => {
        const alias = ALIASES[name];
        return { ...(birth || alias === undefined ? { name } : {}), alias, type: KINDS[name], value: held[name], timestamp };
    };
    return { timestamp, metrics: names.map(metric), told: names.map((name) => [name, held[name], timestamp]) };
}

function birth() {
    const { told, ...device } = metrics(Object.keys(KINDS), true);
    client.publishNodeBirth({ timestamp: Date.now(), metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }] });
    client.publishDeviceBirth(DEVICE, device);
    return told;
}

client.on("birth", () => say({ born: true, told: birth() }));
client.on("ncmd", (payload) => {
    if ((payload.metrics ?? []).some((asked) => asked.name === "Node Control/Rebirth" && asked.value)) {
        say({ rebirth: true, told: birth() });
    }
});
client.on("error", (error) => console.error(error));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    let told = [];
    for (let left = order.skip ?? 0; left > 0; left--) client.incrementSeqNum();
    if (order.data) {
        Object.assign(held, order.data);
        const data = metrics(Object.keys(order.data), false);
        told = data.told;
        client.publishDeviceData(DEVICE, { timestamp: data.timestamp, metrics: data.metrics });
    }
    if (order.birth) told = birth();
    if (order.death) client.publishDeviceDeath(DEVICE, { timestamp: Date.now() });
    if (order.drop) client.stop(); // says NDEATH itself
    say({ at: Date.now(), told });
}).on("close", () => { client.stop(); setTimeout(() => process.exit(0), 200); });

function say(what) {
    process.stdout.write(`${JSON.stringify(what)}\n`);
}
