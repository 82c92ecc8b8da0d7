//! The MQTT driver against a broker on loopback, under the supervisor.
