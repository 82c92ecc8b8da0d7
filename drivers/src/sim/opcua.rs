//! An OPC UA server.

mod events;
mod history;
mod model;
mod secure;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, mem};

use async_trait::async_trait;
use history::History;
pub use opcua::server::OperationalLimits;
use opcua::server::address_space::{AccessLevel, AddressSpace, NodeType, Variable};
use opcua::server::diagnostics::NamespaceMetadata;
use opcua::server::node_manager::memory::{InMemoryNodeManager, InMemoryNodeManagerBuilder, InMemoryNodeManagerImpl};
use opcua::server::node_manager::{HistoryNode, ParsedReadValueId, RequestContext, ServerContext};
use opcua::server::{CreateMonitoredItem, Limits, ServerBuilder, ServerHandle, SubscriptionLimits};
use opcua::sync::{Mutex, RwLock};
pub use opcua::types::Variant;
use opcua::types::{
    DataTypeId, DataValue, DateTime, Identifier, NodeId, NumericRange, ObjectId, ReadRawModifiedDetails, StatusCode,
    TimestampsToReturn, VariableId,
};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

pub use self::events::Happened;
pub use self::history::Flaws;
pub use self::model::Inspection;
pub use self::secure::Secure;
use crate::{Time, Value};

/// An OPC UA server in process, without security and for anonymous users unless told otherwise. Dropping it stops it.
///
/// Its nodes are variables `nsu=<namespace>;s=<name>` in the objects folder. Each change is reported as
/// it was set, whatever sampling interval the client asked for, so that tests know what must come.
/// One exception, which is the library's: a change with an earlier source time than the change before it
/// comes late and with a time of the library's making. So let a node's time go forward.
pub struct OpcuaServer {
    namespace: String,
    address: SocketAddr,
    by_name: HashMap<String, usize>,
    nodes: Mutex<Vec<Node>>,
    no_filters: Arc<AtomicBool>,
    secure: Option<Secure>,
    no_ranges: Arc<AtomicBool>,
    hidden: Arc<Mutex<HashSet<String>>>,
    muted: Arc<Mutex<HashSet<String>>>,
    history: Arc<Mutex<History>>,
    operations: Option<OperationalLimits>,
    items_per_subscription: Option<usize>,
    subscriptions: Option<usize>,
    running: Option<Running>,
}

struct Node {
    name: String,
    id: NodeId,
    last: DataValue,
}

struct Running {
    handle: ServerHandle,
    manager: Arc<InMemoryNodeManager<Manager>>,
    task: JoinHandle<Result<(), String>>,
    /// The library wants a folder for certificates, also when nobody will use it.
    pki: tempfile::TempDir,
}

impl OpcuaServer {
    /// Starts a server on a free port of 127.0.0.1. The nodes' source time is now.
    ///
    /// # Errors
    /// When there is no port or no temporary folder to be had.
    pub async fn start<N: Into<String>, V: Into<Variant>>(
        namespace: &str,
        nodes: impl IntoIterator<Item = (N, V)>,
    ) -> io::Result<Self> {
        Self::start_at(namespace, nodes, Time::now()).await
    }

    /// The same, with nodes whose source time is `source_time`.
    ///
    /// # Errors
    /// When there is no port or no temporary folder to be had.
    pub async fn start_at<N: Into<String>, V: Into<Variant>>(
        namespace: &str,
        nodes: impl IntoIterator<Item = (N, V)>,
        source_time: Time,
    ) -> io::Result<Self> {
        Self::start_with(namespace, nodes, source_time, None).await
    }

    /// The same with security.
    ///
    /// # Errors
    /// When there is no port or no temporary folder to be had.
    pub async fn start_secure<N: Into<String>, V: Into<Variant>>(
        namespace: &str,
        nodes: impl IntoIterator<Item = (N, V)>,
        source_time: Time,
        secure: Secure,
    ) -> io::Result<Self> {
        Self::start_with(namespace, nodes, source_time, Some(secure)).await
    }

    async fn start_with<N: Into<String>, V: Into<Variant>>(
        namespace: &str,
        nodes: impl IntoIterator<Item = (N, V)>,
        source_time: Time,
        secure: Option<Secure>,
    ) -> io::Result<Self> {
        let at = date_time(source_time);
        let nodes: Vec<_> = nodes
            .into_iter()
            .map(|(name, value)| {
                let (name, last) = (name.into(), DataValue::new_at(value, at));
                Node { id: NodeId::null(), name, last }
            })
            .collect();
        let by_name = nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut server = Self {
            namespace: namespace.to_owned(),
            address: listener.local_addr()?,
            by_name,
            nodes: Mutex::new(nodes),
            no_filters: Arc::default(),
            secure,
            no_ranges: Arc::default(),
            hidden: Arc::default(),
            muted: Arc::default(),
            history: Arc::default(),
            operations: None,
            items_per_subscription: None,
            subscriptions: None,
            running: None,
        };
        server.run(listener)?;
        Ok(server)
    }

    /// Where it listens, also while it is stopped.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("opc.tcp://{}/", self.address)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// How a client names the node.
    #[must_use]
    pub fn node(&self, name: &str) -> String {
        format!("nsu={};s={name}", self.namespace)
    }

    /// Gives a node a good value. Kept, and shown after the next start, while the server is stopped.
    ///
    /// # Panics
    /// When there is no such node: the test is wrong.
    pub fn set(&self, name: &str, value: impl Into<Variant>, source_time: Time) {
        self.set_data(name, DataValue::new_at(value, date_time(source_time)));
    }

    /// Gives a node a good value without a time, neither the source's nor the server's.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_undated(&self, name: &str, value: Variant) {
        self.set_data(name, DataValue { value: Some(value), ..DataValue::null() });
    }

    /// Gives a node a status, now. A bad one takes the value away.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_status(&self, name: &str, code: u32) {
        self.set_status_at(name, code, Time::now());
    }

    /// Gives a node a status. A bad one takes the value away.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_status_at(&self, name: &str, code: u32, source_time: Time) {
        let status = StatusCode::from(code);
        let last = self.nodes.lock()[self.index(name)].last.value.clone();
        let at = Some(date_time(source_time));
        // The library forgets the status of a node without any value.
        let value = if status.is_bad() { Some(Variant::Empty) } else { last };
        let told =
            DataValue { value, status: Some(status), source_timestamp: at, server_timestamp: at, ..DataValue::null() };
        self.set_data(name, told);
    }

    /// Gives a node whatever is said.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn set_data(&self, name: &str, told: DataValue) {
        self.set_many([(self.index(name), told)]);
    }

    /// Gives many nodes good values at one time, by their place in the list that the server was started
    /// with. Clients see them in one message.
    ///
    /// # Panics
    /// When a place is beyond the list.
    pub fn set_values(&self, values: impl IntoIterator<Item = (usize, Value)>, source_time: Time) {
        let at = date_time(source_time);
        self.set_many(values.into_iter().map(|(index, value)| (index, DataValue::new_at(value, at))));
    }

    /// The same with the OPC UA types that they are to have.
    ///
    /// # Panics
    /// When a place is beyond the list.
    pub fn set_variants(&self, values: impl IntoIterator<Item = (usize, Variant)>, source_time: Time) {
        let at = date_time(source_time);
        self.set_many(values.into_iter().map(|(index, value)| (index, DataValue::new_at(value, at))));
    }

    fn set_many(&self, values: impl IntoIterator<Item = (usize, DataValue)>) {
        let mut nodes = self.nodes.lock();
        let mut changed = Vec::new();
        for (index, told) in values {
            self.history.lock().keep(&nodes[index].name, &told);
            nodes[index].last = told;
            changed.push(index);
        }
        let Some(running) = &self.running else { return };
        let muted = self.muted.lock();
        changed.retain(|&index| {
            let node = &nodes[index];
            if !muted.contains(&node.name) {
                return true;
            }
            let mut space = running.manager.address_space().write();
            if let Some(NodeType::Variable(variable)) = space.find_mut(&node.id) {
                variable.set_data_value(node.last.clone());
            }
            false
        });
        let changes = changed.iter().map(|&index| (&nodes[index].id, None, nodes[index].last.clone()));
        running.manager.set_values(running.handle.subscriptions(), changes).expect("every node was made at the start");
    }

    /// Keeps history from now on, of what the nodes say now and of every change, also while it is stopped.
    ///
    /// # Errors
    /// When the port is gone: it starts anew, for its nodes to say that they have history.
    pub async fn keep_history(&mut self) -> io::Result<()> {
        {
            let mut history = self.history.lock();
            history.kept = true;
            for node in self.nodes.lock().iter() {
                history.keep(&node.name, &node.last);
            }
        }
        self.restart().await
    }

    /// Makes its history worse than the book has it.
    pub fn flaw_history(&self, flaws: Flaws) {
        self.history.lock().flaws = flaws;
    }

    /// Calls of HistoryRead so far, and the values given.
    #[must_use]
    pub fn history_given(&self) -> (u32, usize) {
        let history = self.history.lock();
        (history.reads, history.given)
    }

    /// Takes less at once, and says so.
    ///
    /// # Errors
    /// When the port is gone: it starts anew.
    pub async fn limit(&mut self, operations: OperationalLimits, items_per_subscription: usize) -> io::Result<()> {
        self.operations = Some(operations);
        self.items_per_subscription = Some(items_per_subscription);
        self.restart().await
    }

    /// Gives a session so many subscriptions and no more.
    ///
    /// # Errors
    /// When the port is gone: it starts anew.
    pub async fn limit_subscriptions(&mut self, subscriptions: usize) -> io::Result<()> {
        self.subscriptions = Some(subscriptions);
        self.restart().await
    }

    /// Refuses monitored items that come with a filter, as small servers do.
    pub fn refuse_filters(&self, refuse: bool) {
        self.no_filters.store(refuse, Ordering::Relaxed);
    }

    /// How well it says it is, from 0 to 255, until it is stopped.
    ///
    /// # Panics
    /// When it is stopped: the test is wrong.
    pub fn set_service_level(&self, level: u8) {
        self.running.as_ref().expect("it runs").handle.set_service_level(level);
    }

    /// Lets the client in that has shown its certificate and was turned away; false when there was none.
    ///
    /// # Panics
    /// When it is stopped.
    pub fn trust_who_came(&self) -> bool {
        let pki = self.running.as_ref().expect("it runs").pki.path();
        let came = std::fs::read_dir(pki.join("rejected")).into_iter().flatten().flatten();
        came.filter(|file| std::fs::rename(file.path(), pki.join("trusted").join(file.file_name())).is_ok()).count() > 0
    }

    /// Refuses monitored items of a part of an array, as small servers do.
    pub fn refuse_ranges(&self, refuse: bool) {
        self.no_ranges.store(refuse, Ordering::Relaxed);
    }

    /// Lets no client watch a node: it is unknown until it is shown again.
    pub fn hide(&self, name: &str, hide: bool) {
        let mut hidden = self.hidden.lock();
        if hide {
            hidden.insert(name.to_owned());
        } else {
            hidden.remove(name);
        }
    }

    /// Tells nobody of a node's changes until it is watched anew; who reads it learns them.
    pub fn mute(&self, name: &str) {
        self.muted.lock().insert(name.to_owned());
    }

    /// Whether it was muted and not watched anew since.
    #[must_use]
    pub fn mutes(&self, name: &str) -> bool {
        self.muted.lock().contains(name)
    }

    /// How many sessions clients hold; 0 while stopped.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        let count = VariableId::Server_ServerDiagnostics_ServerDiagnosticsSummary_CurrentSessionCount;
        let counted = self.running.as_ref().and_then(|running| running.handle.info().summary().get(count));
        match counted.and_then(|count| count.value) {
            Some(Variant::UInt32(count)) => count,
            _ => 0,
        }
    }

    /// Stops it: every connection is closed, and the port is free.
    pub async fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.handle.cancel();
        if let Err(error) = (&mut running.task).await {
            tracing::error!(%error, "the OPC UA server ended badly");
        }
    }

    /// Starts it again on the port that it had, with the values that were set last.
    ///
    /// # Errors
    /// When somebody else took the port meanwhile.
    pub async fn restart(&mut self) -> io::Result<()> {
        self.stop().await;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        self.run(socket.listen(128)?)
    }

    fn run(&mut self, listener: TcpListener) -> io::Result<()> {
        let pki = tempfile::tempdir()?;
        let nodes = mem::take(&mut *self.nodes.lock());
        let namespace = self.namespace.clone();
        let (no_filters, no_ranges) = (self.no_filters.clone(), self.no_ranges.clone());
        let (hidden, muted, history) = (self.hidden.clone(), self.muted.clone(), self.history.clone());
        let historic = history.lock().kept;
        let manager = move |context: ServerContext, space: &mut AddressSpace| {
            let index = context.type_tree.write().namespaces_mut().add_namespace(&namespace);
            space.add_namespace(&namespace, index);
            Manager { namespace, index, no_filters, no_ranges, hidden, muted, history }
        };
        let builder = match &self.secure {
            None => ServerBuilder::new_anonymous("gemba simulated server").host(self.address.ip().to_string()),
            Some(secure) => secure.set_up(ServerBuilder::new().host(self.address.ip().to_string()), pki.path())?,
        };
        let (server, handle) = builder
            .application_uri("urn:gemba:sim") // the namespace of its diagnostics
            .product_uri("urn:gemba:sim")
            .create_sample_keypair(false)
            .pki_dir(pki.path())
            .port(self.address.port())
            .diagnostics_enabled(true)
            .subscription_poll_interval_ms(10)
            .limits(self.limits(nodes.len()))
            .with_node_manager(InMemoryNodeManagerBuilder::new(manager))
            .build()
            .map_err(io::Error::other)?;
        let manager = handle
            .node_managers()
            .get_of_type::<InMemoryNodeManager<Manager>>()
            .ok_or_else(|| io::Error::other("the node manager is gone"))?;
        let index = manager.inner().index;
        let nodes: Vec<_> =
            nodes.into_iter().map(|node| Node { id: NodeId::new(index, node.name.as_str()), ..node }).collect();
        {
            let mut space = manager.address_space().write();
            let variables = nodes.iter().map(|node| variable(node, historic)).collect();
            space.add_variables(variables, &ObjectId::ObjectsFolder.into());
        }
        *self.nodes.lock() = nodes;
        let task = tokio::spawn(server.run_with(listener));
        self.running = Some(Running { handle, manager, task, pki });
        Ok(())
    }

    fn limits(&self, nodes: usize) -> Limits {
        let mut limits = limits(nodes);
        if let Some(operations) = &self.operations {
            limits.operational = operations.clone();
        }
        if let Some(items) = self.items_per_subscription {
            limits.subscriptions.max_monitored_items_per_sub = items;
        }
        if let Some(subscriptions) = self.subscriptions {
            limits.subscriptions.max_subscriptions_per_session = subscriptions;
        }
        limits
    }

    fn index(&self, name: &str) -> usize {
        *self.by_name.get(name).unwrap_or_else(|| panic!("the server has no node `{name}`"))
    }
}

impl Drop for OpcuaServer {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.handle.cancel();
        }
    }
}

impl From<Value> for Variant {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Empty,
            Value::Bool(on) => Self::Boolean(on),
            Value::Int(whole) => Self::Int64(whole),
            Value::Float(real) => Self::Double(real),
            Value::Text(text) => Self::from(&*text),
        }
    }
}

/// OPC UA's time has 100 ns; the rest is cut off.
fn date_time(at: Time) -> DateTime {
    const UNIX_EPOCH: i64 = 116_444_736_000_000_000;
    DateTime::from(UNIX_EPOCH + at.0.div_euclid(100))
}

fn variable(node: &Node, historic: bool) -> Variable {
    let value = node.last.value.as_ref();
    let data_type = value.and_then(Variant::data_type).map_or(DataTypeId::BaseDataType.into(), |found| found.node_id);
    let name = node.name.as_str();
    let mut variable = Variable::new_data_value(&node.id, name, name, data_type, None, None, Variant::Empty);
    variable.set_data_value(node.last.clone());
    if historic {
        variable.set_historizing(true);
        variable.set_access_level(AccessLevel::CURRENT_READ | AccessLevel::HISTORY_READ);
        variable.set_user_access_level(AccessLevel::CURRENT_READ | AccessLevel::HISTORY_READ);
    }
    variable
}

fn limits(nodes: usize) -> Limits {
    Limits {
        max_array_length: 100_000,
        max_message_size: 16 << 20,
        max_chunk_count: 0,
        subscriptions: SubscriptionLimits {
            min_publishing_interval_ms: 10.0,
            max_monitored_items_per_sub: nodes.max(1_000) * 2,
            max_monitored_item_queue_size: 100,
            max_queued_notifications: 100, // 0 is not "any number": it drops all but the newest, with a warning for each
            ..SubscriptionLimits::default()
        },
        ..Limits::default()
    }
}

struct Manager {
    namespace: String,
    index: u16,
    no_filters: Arc<AtomicBool>,
    no_ranges: Arc<AtomicBool>,
    hidden: Arc<Mutex<HashSet<String>>>,
    muted: Arc<Mutex<HashSet<String>>>,
    history: Arc<Mutex<History>>,
}

#[async_trait]
impl InMemoryNodeManagerImpl for Manager {
    async fn init(&self, _: &mut AddressSpace, _: ServerContext) {}

    fn name(&self) -> &'static str {
        "sim"
    }

    fn namespaces(&self) -> Vec<NamespaceMetadata> {
        vec![NamespaceMetadata {
            namespace_uri: self.namespace.clone(),
            namespace_index: self.index,
            ..NamespaceMetadata::default()
        }]
    }

    async fn history_read_raw_modified(
        &self,
        _: &RequestContext,
        details: &ReadRawModifiedDetails,
        nodes: &mut [&mut &mut HistoryNode],
        _: TimestampsToReturn,
    ) -> Result<(), StatusCode> {
        self.history.lock().read(details, nodes)
    }

    async fn create_value_monitored_items(
        &self,
        context: &RequestContext,
        space: &RwLock<AddressSpace>,
        items: &mut [&mut &mut CreateMonitoredItem],
    ) {
        // Whole: the library cuts ranges out of what it is given here.
        let whole = |asked: &ParsedReadValueId| ParsedReadValueId { index_range: NumericRange::None, ..asked.clone() };
        let asked: Vec<_> = items.iter().map(|item| whole(item.item_to_monitor())).collect();
        let asked: Vec<_> = asked.iter().collect();
        let values = self.read_values(context, space, &asked, 0.0, TimestampsToReturn::Both).await;
        for (value, item) in values.into_iter().zip(items.iter_mut()) {
            let hidden = match &item.item_to_monitor().node_id.identifier {
                Identifier::String(name) => {
                    self.muted.lock().remove(name.as_ref());
                    self.hidden.lock().contains(name.as_ref())
                }
                _ => false,
            };
            let unknown = hidden || value.status() == StatusCode::BadNodeIdUnknown;
            // The type of a filter cannot be named outside the library, but shown.
            let filter = format!("{:?}", item.filter()) != "None";
            let range = item.item_to_monitor().index_range.has_range();
            let status = match () {
                () if unknown => StatusCode::BadNodeIdUnknown,
                () if range && self.no_ranges.load(Ordering::Relaxed) => StatusCode::BadIndexRangeInvalid,
                () if filter && self.no_filters.load(Ordering::Relaxed) => {
                    StatusCode::BadMonitoredItemFilterUnsupported
                }
                () => StatusCode::Good,
            };
            // With a longer one the library merges changes and gives them times of its own making.
            item.revise_sampling_interval(0.000_1);
            item.set_initial_value(value);
            item.set_status(status);
        }
    }
}
