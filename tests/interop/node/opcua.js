// An OPC UA server (node-opcua) with history, security and users, told by lines of JSON what to do.
//
//   node opcua.js PORT PKI
//
// {"set": {"Total": 5}, "status": "Good"}   sets variables with one source time, and answers {"at": <unix ms>}
// Variables are nsu=urn:fab-2:press;s=<name>. `Live` has no history. User operator / secret, or nobody. Pressure above 800 is an alarm.

"use strict";
const readline = require("node:readline");
const {
    AccessLevelFlag, DataType, MessageSecurityMode, OPCUACertificateManager, OPCUAServer, SecurityPolicy, StatusCodes,
    makeAccessLevelFlag,
} = require("node-opcua");

const [port, pki] = process.argv.slice(2);
const KINDS = { State: DataType.String, Total: DataType.UInt32, Reject: DataType.UInt32, Pressure: DataType.Double, Live: DataType.Double };
const FIRST = { State: "Idle", Total: 100, Reject: 0, Pressure: 1.5, Live: 0.5 };

async function main() {
    const manager = new OPCUACertificateManager({ rootFolder: pki, automaticallyAcceptUnknownCertificate: true });
    const server = new OPCUAServer({
        port: Number(port),
        hostname: "127.0.0.1",
        serverCertificateManager: manager,
        securityPolicies: [SecurityPolicy.None, SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep, SecurityPolicy.Aes256_Sha256_RsaPss],
        securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
        allowAnonymous: true,
        userManager: { isValidUser: (user, password) => user === "operator" && password === "secret" },
        serverInfo: { applicationUri: "urn:fab-2:press:server", productUri: "urn:fab-2:press" },
    });
    await server.initialize();
    const space = server.engine.addressSpace;
    space.installAlarmsAndConditionsService();
    space.registerNamespace("urn:fab-2:padding"); // so that ours is not at the index one would guess
    const own = space.registerNamespace("urn:fab-2:press");
    const press = own.addObject({ organizedBy: space.rootFolder.objects, browseName: "Press", eventSourceOf: space.rootFolder.objects.server });
    const variables = {};
    for (const [name, dataType] of Object.entries(KINDS)) {
        const readable = AccessLevelFlag.CurrentRead | (name === "Live" ? 0 : AccessLevelFlag.HistoryRead);
        variables[name] = own.addVariable({
            componentOf: press, browseName: name, nodeId: `s=${name}`, dataType,
            accessLevel: makeAccessLevelFlag(readable), userAccessLevel: makeAccessLevelFlag(readable),
            minimumSamplingInterval: 0,
        });
        if (name !== "Live") space.installHistoricalDataNode(variables[name], { maxOnlineValues: 100000 });
        variables[name].setValueFromSource({ dataType, value: FIRST[name] }, StatusCodes.Good, new Date());
    }
    own.instantiateNonExclusiveLimitAlarm("NonExclusiveLimitAlarmType", {
        browseName: "PressureHigh", conditionSource: press, componentOf: press,
        inputNode: variables.Pressure, highHighLimit: 900, highLimit: 800, lowLimit: -800, lowLowLimit: -900,
    });
    await server.start();
    say({ ready: true, endpoint: server.getEndpointUrl() });

    for await (const line of readline.createInterface({ input: process.stdin })) {
        const order = JSON.parse(line);
        const at = new Date();
        for (const [name, value] of Object.entries(order.set ?? {})) {
            variables[name].setValueFromSource({ dataType: KINDS[name], value }, StatusCodes[order.status ?? "Good"], at);
        }
        say({ at: at.getTime() });
    }
    await server.shutdown(0);
}

function say(what) {
    process.stdout.write(`${JSON.stringify(what)}\n`);
}

main().catch((error) => {
    console.error(error);
    process.exit(1);
});
