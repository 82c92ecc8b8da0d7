// A Sparkplug B edge node with one device (Eclipse Tahu's client), told by lines of JSON what to do.
//
//   node sparkplug.js BROKER-URL
//
// {"data": {"Total": 5}}     publishes DDATA of the device, with aliases as its birth said
// {"birth": true}            says NBIRTH and DBIRTH again; {"death": true} DDEATH
// A rebirth that is asked for is obeyed, and answered with {"rebirth": true}.

"use strict";
const readline = require("node:readline");
const sparkplug = require("sparkplug-client");

const DEVICE = "press-2";
const KINDS = { State: "String", Total: "UInt64", Pressure: "Double", Running: "Boolean" };
const held = { State: "running", Total: 10, Pressure: 2.25, Running: true };

const client = sparkplug.newClient({
    serverUrl: process.argv[2], username: "", password: "", groupId: "fab-2", edgeNode: "cell-7",
    clientId: "cell-7", version: "spBv1.0", publishDeath: true,
});

function metric(name) {
    return { name, type: KINDS[name], value: held[name], timestamp: Date.now() };
}

function birth() {
    client.publishNodeBirth({ timestamp: Date.now(), metrics: [{ name: "Node Control/Rebirth", type: "Boolean", value: false }] });
    client.publishDeviceBirth(DEVICE, { timestamp: Date.now(), metrics: Object.keys(KINDS).map(metric) });
}

client.on("birth", () => { birth(); say({ born: true }); });
client.on("ncmd", (payload) => {
    if ((payload.metrics ?? []).some((asked) => asked.name === "Node Control/Rebirth" && asked.value)) {
        birth();
        say({ rebirth: true });
    }
});
client.on("error", (error) => console.error(error));

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    if (order.data) {
        Object.assign(held, order.data);
        client.publishDeviceData(DEVICE, { timestamp: Date.now(), metrics: Object.keys(order.data).map(metric) });
    }
    if (order.birth) birth();
    if (order.death) client.publishDeviceDeath(DEVICE, { timestamp: Date.now() });
    if (order.drop) client.stop(); // says NDEATH itself
    say({ at: Date.now() });
}).on("close", () => { client.stop(); setTimeout(() => process.exit(0), 200); });

function say(what) {
    process.stdout.write(`${JSON.stringify(what)}\n`);
}
