//! The messages of Sparkplug B (Eclipse Sparkplug 3.0, 6.4: sparkplug_b.proto), as far as they are read or written here.
//! What is refused as a whole (data sets, templates, nested properties) stays bytes, so nothing nests.

use prost::{Message, Oneof};

/// What an MQTT payload of Sparkplug B is.
#[derive(Clone, PartialEq, Message)]
pub struct Payload {
    /// When it was sent, in ms since the Unix epoch.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    /// What it says.
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// From 0 to 255, then 0 again.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
}

/// A value.
#[derive(Clone, PartialEq, Message)]
pub struct Metric {
    /// Its name; births have it, data may leave it to the alias.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Stands for the name after the birth.
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When the value came to be, in ms since the Unix epoch.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// What the value is (6.4.16).
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// It is told late, and says nothing of now.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    /// There is no value.
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    /// What else is known of it.
    #[prost(message, optional, tag = "9")]
    pub properties: Option<PropertySet>,
    /// The value.
    #[prost(oneof = "MetricValue", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub value: Option<MetricValue>,
}

/// The value of a metric.
#[derive(Clone, PartialEq, Oneof)]
pub enum MetricValue {
    /// Up to 32 bits; signed ones as two's complement.
    #[prost(uint32, tag = "10")]
    Int(u32),
    /// Up to 64 bits, likewise.
    #[prost(uint64, tag = "11")]
    Long(u64),
    /// 32 bits.
    #[prost(float, tag = "12")]
    Float(f32),
    /// 64 bits.
    #[prost(double, tag = "13")]
    Double(f64),
    /// True or false.
    #[prost(bool, tag = "14")]
    Boolean(bool),
    /// Text.
    #[prost(string, tag = "15")]
    Text(String),
    /// Bytes, files, arrays.
    #[prost(bytes = "vec", tag = "16")]
    Bytes(Vec<u8>),
    /// A table.
    #[prost(bytes = "vec", tag = "17")]
    DataSet(Vec<u8>),
    /// A structure.
    #[prost(bytes = "vec", tag = "18")]
    Template(Vec<u8>),
}

/// What else is known of a metric: names, and as many values.
#[derive(Clone, PartialEq, Message)]
pub struct PropertySet {
    /// Names.
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// Values, in the same order.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<PropertyValue>,
}

/// The value of a property. Only whole numbers are looked at.
#[derive(Clone, PartialEq, Message)]
pub struct PropertyValue {
    /// What it is, as with metrics.
    #[prost(uint32, optional, tag = "1")]
    pub datatype: Option<u32>,
    /// The value.
    #[prost(oneof = "PropertyNumber", tags = "3, 4")]
    pub value: Option<PropertyNumber>,
}

/// A whole number.
#[derive(Clone, Copy, PartialEq, Eq, Oneof)]
pub enum PropertyNumber {
    /// Up to 32 bits.
    #[prost(uint32, tag = "3")]
    Int(u32),
    /// Up to 64 bits.
    #[prost(uint64, tag = "4")]
    Long(u64),
}
