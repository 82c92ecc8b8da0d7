//! The forwarder against tonic's server: what only gRPC has. What holds for both protocols is in `forward.rs`.

use std::io::Read;
use std::time::Duration;

use gemba::config::Secret;
use gemba::snapshot::UpstreamStatus;
use gemba_drivers::Loss;
use gemba_tests::forwarder::{Line, Spool, changed, hourly, reading, stored, time, tries_again, values};
use gemba_tests::receiver::{Content, Receiver, Reply, attributes};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use prost::Message;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_what_otlp_says() {
    let receiver = Receiver::start_grpc();
    let line = Line::start_with(&receiver, |upstream, _| {
        upstream.headers.push(("x-plant".to_owned(), Secret::new("fab-2".to_owned())));
        upstream.timeout = Duration::from_millis(12_345);
    });
    line.spool.commit([reading(1), changed(1)]);
    line.acknowledged(2).await;

    let received = receiver.received();
    let paths: Vec<_> = received.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
        ]
    );
    for request in &received {
        assert_eq!(request.headers["content-type"], "application/grpc");
        assert_eq!(request.headers["te"], "trailers");
        assert_eq!(request.headers["grpc-encoding"], "gzip");
        assert_eq!(request.headers["grpc-timeout"], "12345m");
        assert_eq!(request.headers["x-plant"], "fab-2");
        assert_eq!(request.headers["user-agent"], concat!("gemba/", env!("CARGO_PKG_VERSION")));
        let resource = match &request.content {
            Content::Metrics(request) => &request.resource_metrics[0].resource,
            Content::Logs(request) => &request.resource_logs[0].resource,
            other => panic!("{other:?}"),
        };
        let resource = attributes(&resource.as_ref().expect("a resource").attributes);
        assert_eq!((&*resource["service.name"], &*resource["factory.line"]), ("gemba", "smt-1"));
    }
    let raw = &received[0].raw;
    assert_eq!((raw[0], raw[1..5].to_vec()), (1, (raw.len() as u32 - 5).to_be_bytes().to_vec()));
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&raw[5..]).read_to_end(&mut plain).expect("really gzip");
    ExportMetricsServiceRequest::decode(&plain[..]).expect("of OTLP");
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_messages_where_gzip_is_not_wanted() {
    let receiver = Receiver::start_grpc();
    let line = Line::start_with(&receiver, |upstream, _| upstream.gzip = false);
    line.spool.commit([reading(1)]);
    line.acknowledged(1).await;
    let request = &receiver.received()[0];
    assert!(!request.headers.contains_key("grpc-encoding"));
    assert_eq!(request.raw[0], 0);
    assert_eq!(values(&receiver), [1]);
}

/// Larger than every window of HTTP/2 at its start.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_chunk_goes_in_one_call() {
    let receiver = Receiver::start_grpc();
    let spool = Spool::default();
    spool.commit((0..10_000).map(reading));
    let line = Line::start_on(spool, &receiver, |upstream, _| upstream.gzip = false);
    line.acknowledged(10_000).await;
    let received = receiver.received();
    assert_eq!(received.len(), 1, "{:#?}", receiver.summary());
    assert!(received[0].raw.len() > 500_000);
    assert_eq!(values(&receiver), (0..10_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_pass_is_tried_again_with_the_same_bytes() {
    let failures = [
        Reply::code(Code::Cancelled, ""),
        Reply::code(Code::DeadlineExceeded, "slow"),
        Reply::code(Code::Aborted, ""),
        Reply::code(Code::Unavailable, "soon"),
        Reply::Status(Code::Unavailable, "now".to_owned(), Some(Duration::ZERO)),
        Reply::code(Code::DataLoss, ""),
        Reply::Status(Code::ResourceExhausted, "quota".to_owned(), Some(Duration::from_millis(1))),
        Reply::Status(Code::OutOfRange, "later".to_owned(), Some(Duration::from_millis(1))),
        Reply::code(Code::Internal, "oops"),
        Reply::code(Code::Unknown, ""),
        Reply::status(503, "no healthy upstream"),
        Reply::RetryAfter(429, "0".to_owned()),
        Reply::status(400, "said by a proxy, which knows nothing of us"),
        Reply::Answer(200, "text/html", b"<html>log in first</html>".to_vec()),
        Reply::Answer(200, "application/grpc", vec![0; 5]),
        Reply::Answer(200, "application/grpc", vec![b'x'; 1_000_000]),
        Reply::Garbage,
        Reply::Drop,
    ];
    tries_again(&Receiver::start_grpc(), &failures).await;
}

/// The usual pause is an hour, so only `RetryInfo` can bring the second request before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn retry_info_replaces_the_pause_and_is_no_reason_to_split() {
    let receiver = Receiver::start_grpc();
    receiver.script([Reply::Status(Code::ResourceExhausted, String::new(), Some(Duration::from_millis(100)))]);
    let spool = Spool::default();
    spool.commit((0..4).map(reading));
    let line = Line::start_on(spool, &receiver, |_, patience| patience.pauses = hourly);
    line.acknowledged(4).await;
    assert_eq!(receiver.received().len(), 2);
}

/// tonic answers with `OUT_OF_RANGE`, others with `RESOURCE_EXHAUSTED`, and the same again would never pass.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_goes_in_smaller_pieces_and_nothing_is_lost() {
    let receiver = Receiver::start_grpc();
    receiver.limit(2_000);
    receiver.answer_with(|request| match request.points("factory.tag.count").len() {
        0..=5 => Reply::Accept,
        _ => Reply::code(Code::ResourceExhausted, "larger than max"),
    });
    let spool = Spool::default();
    spool.commit((0..100).map(reading));
    let line = Line::start_on(spool, &receiver, |upstream, _| upstream.gzip = false);
    line.acknowledged(100).await;
    assert_eq!(values(&receiver), (0..100).collect::<Vec<_>>());
    assert!(line.losses().is_empty());
    let replies = receiver.summary();
    assert!(replies.iter().any(|reply| reply.contains("OutOfRange")), "{replies:#?}");
    assert!(replies.iter().any(|reply| reply.contains("ResourceExhausted")), "{replies:#?}");
}

/// A frame that is too large for a receiver which takes others cannot block them for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_single_frame_that_stays_too_large_is_a_loss_in_the_end() {
    let receiver = Receiver::start_grpc();
    receiver.limit(2_000);
    let spool = Spool::default();
    spool.commit([reading(1), gemba::spool::Entry::Readings((0..100).map(|n| stored(2, n)).collect()), reading(3)]);
    let line = Line::start_on(spool, &receiver, |upstream, patience| {
        upstream.gzip = false;
        patience.server_errors = 2;
    });
    line.acknowledged(3).await;
    assert_eq!(values(&receiver), [1, 3]);
    let losses = line.losses();
    let [Loss { count: 100, from, to, reason, .. }] = &losses[..] else { panic!("{losses:?}") };
    assert_eq!((*from, *to), (time(2), time(2)));
    assert!(reason.starts_with("OUT_OF_RANGE: "), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_short_of_everything_is_waited_for() {
    let receiver = Receiver::start_grpc();
    receiver.answer_with(|_| Reply::code(Code::ResourceExhausted, "quota"));
    let spool = Spool::default();
    spool.commit((1..=4).map(reading));
    let line = Line::start_on(spool, &receiver, |_, patience| patience.server_errors = 2);
    receiver.until("far more failures than count against a request", |receiver| receiver.received().len() > 16).await;
    assert_eq!((line.view().status, line.view().rejected), (UpstreamStatus::Disconnected, 0));
    receiver.answer_with(|_| Reply::Accept);
    line.acknowledged(4).await;
    assert_eq!(values(&receiver), [1, 2, 3, 4]);
    assert!(line.losses().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_want_us_blocks_and_everything_is_kept() {
    let text = "hunter2-hunter2\nis wrong";
    for (reply, told, advice) in [
        (Reply::code(Code::Unauthenticated, text), "UNAUTHENTICATED: *** is wrong", "headers"),
        (Reply::code(Code::PermissionDenied, text), "PERMISSION_DENIED: *** is wrong", "headers"),
        (Reply::code(Code::Unimplemented, ""), "UNIMPLEMENTED", "endpoint"),
        (Reply::code(Code::NotFound, text), "NOT_FOUND", "endpoint"),
        (Reply::status(401, text), "401: *** is wrong", "headers"),
        (Reply::status(404, text), "404", "endpoint"),
        (Reply::status(302, ""), "302", "endpoint"),
    ] {
        let receiver = Receiver::start_grpc();
        receiver.answer_with(move |_| reply.clone());
        let line = Line::start_with(&receiver, |upstream, _| {
            upstream.headers.push(("authorization".to_owned(), Secret::new("Bearer hunter2-hunter2".to_owned())));
        });
        line.spool.commit([reading(1)]);
        let view = line.until("blocked", |view| view.status == UpstreamStatus::Blocked).await;
        let error = view.last_error.expect("why");
        assert!(error.starts_with(told) && error.contains(advice), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        receiver.until("it is tried again", |receiver| receiver.received().len() >= 3).await;
        assert!(line.spool.acknowledgements().is_empty() && line.losses().is_empty());

        receiver.answer_with(|_| Reply::Accept);
        line.acknowledged(1).await;
        assert_eq!(line.view().status, UpstreamStatus::Connected);
    }
}

/// The first connection leads nowhere for ever: over HTTP/2 a request that is given up leaves it open.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_timeout_the_next_attempt_makes_a_new_connection() {
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = door.local_addr().expect("bound");
    let receiver = Receiver::start_grpc();
    let line = Line::start_with(&receiver, |upstream, _| {
        upstream.endpoint = format!("http://{address}");
        upstream.timeout = Duration::from_millis(300);
    });
    line.spool.commit([reading(1)]);
    let (black_hole, _) = door.accept().await.expect("the first connection");
    let view = line.until("a timeout", |view| view.last_error.is_some()).await;
    assert_eq!(view.last_error.as_deref(), Some("no answer within 300ms"));
    let (mut second, _) = tokio::time::timeout(gemba_tests::receiver::DEADLINE, door.accept())
        .await
        .expect("a second connection")
        .expect("accepted");
    let to = receiver.endpoint();
    let mut onward = tokio::net::TcpStream::connect(to.trim_start_matches("http://")).await.expect("it listens");
    let pump = tokio::spawn(async move { tokio::io::copy_bidirectional(&mut second, &mut onward).await });
    line.acknowledged(1).await;
    assert_eq!(values(&receiver), [1]);
    pump.abort();
    drop(black_hole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_speaks_only_http_1_is_asked_about() {
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = door.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        loop {
            let (mut stream, _) = door.accept().await.expect("a connection");
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let receiver = Receiver::start_grpc();
    let line = Line::start_with(&receiver, |upstream, _| upstream.endpoint = format!("http://{address}"));
    line.spool.commit([reading(1)]);
    let view = line.until("an error", |view| view.last_error.is_some()).await;
    assert_eq!(view.status, UpstreamStatus::Disconnected);
    assert!(
        view.last_error.as_deref().is_some_and(|error| error.ends_with("is that a gRPC port (mostly 4317)?")),
        "{view:?}"
    );
    server.abort();
}
