//! The forwarder against a real OTLP receiver that refuses, fails, hangs and lies: what holds over HTTP and over gRPC,
//! and what only HTTP has. What only gRPC has is in `grpc.rs`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use gemba::config::{Protocol, Secret};
use gemba::forward::{Resent, resend};
use gemba::otlp::OwnEncoder;
use gemba::record::Record;
use gemba::snapshot::UpstreamStatus;
use gemba::spool::{Entry, Seq, SeriesId, Signal, StoredReading};
use gemba::telemetry::outbox::Outbox;
use gemba_drivers::Loss;
use gemba_tests::forwarder::{
    Line, METRIC, RESOURCE, Spool, changed, holds, hourly, reading, stored, time, tries_again, values, visit,
};
use gemba_tests::receiver::{Content, DEADLINE, Received, Receiver, Reply, attributes};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tonic::Code;
use tracing::info_span;
use tracing::subscriber::with_default;
use tracing_subscriber::prelude::*;

const POISON: i64 = 666;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_arrives_in_order_and_once() {
    for receiver in Receiver::both() {
        let line = Line::start(&receiver);
        for value in 0..50 {
            line.spool.commit([reading(value)]);
        }
        receiver.until("50 points", |receiver| values(receiver).len() >= 50).await;
        line.acknowledged(50).await;

        assert_eq!(values(&receiver), (0..50).collect::<Vec<_>>());
        let point = &receiver.points(METRIC)[7];
        assert_eq!((point.time, point.flags, point.unit.as_str()), (time(7).0 as u64, 0, "{part}"));
        assert_eq!(point.attributes.get("factory.station").map(String::as_str), Some("printer-1"));
        let view = line.view();
        assert_eq!((view.status, view.retries, view.rejected), (UpstreamStatus::Connected, 0, 0));
        assert!(view.last_success.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_what_otlp_says() {
    let receiver = Receiver::start();
    let line = Line::start_with(&receiver, |upstream, _| {
        upstream.endpoint += "/plant/otlp/";
        upstream.headers.push(("x-plant".to_owned(), Secret::new("fab-2".to_owned())));
    });
    line.spool.commit([reading(1), changed(1)]);
    line.acknowledged(2).await;

    let received = receiver.received();
    let paths: Vec<_> = received.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/plant/otlp/v1/metrics", "/plant/otlp/v1/logs"]);
    for request in received {
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        assert_eq!(request.headers["content-encoding"], "gzip");
        assert_eq!(request.headers["x-plant"], "fab-2");
        assert!(request.headers["user-agent"].as_bytes().starts_with(b"gemba/"));
        assert!(!request.headers.contains_key("traceparent"), "nobody takes spans here");
        let resource = match &request.content {
            Content::Metrics(request) => &request.resource_metrics[0].resource,
            Content::Logs(request) => &request.resource_logs[0].resource,
            other => panic!("{other:?}"),
        };
        let resource = attributes(&resource.as_ref().expect("a resource").attributes);
        assert_eq!(resource["service.name"], "gemba");
        assert_eq!(resource["factory.line"], "smt-1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_bodies_where_gzip_is_not_wanted() {
    let receiver = Receiver::start();
    let line = Line::start_with(&receiver, |upstream, _| upstream.gzip = false);
    line.spool.commit([reading(1)]);
    line.acknowledged(1).await;
    assert!(!receiver.received()[0].headers.contains_key("content-encoding"));
    assert_eq!(values(&receiver), [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_pass_is_tried_again_with_the_same_bytes() {
    let failures = [
        Reply::RetryAfter(429, "0".to_owned()),
        Reply::RetryAfter(503, "Fri, 06 Nov 1998 08:49:37 GMT".to_owned()),
        Reply::RetryAfter(503, "soon".to_owned()),
        Reply::status(502, "bad gateway"),
        Reply::status(504, ""),
        Reply::status(500, "oops"),
        Reply::Answer(200, "text/html", b"<html>log in first</html>".to_vec()),
        Reply::Answer(200, "application/x-protobuf", vec![0xff; 9]),
        Reply::Answer(200, "application/x-protobuf", vec![b'x'; 1_000_000]),
        Reply::Garbage,
        Reply::Drop,
    ];
    tries_again(&Receiver::start(), &failures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_is_no_otlp_is_said_and_nothing_is_let_go() {
    let receiver = Receiver::start();
    receiver.answer_with(|_| Reply::Answer(200, "text/html", b"<html>welcome</html>".to_vec()));
    let line = Line::start(&receiver);
    line.spool.commit([reading(1)]);
    let view = line.until("an error", |view| view.last_error.is_some()).await;
    assert_eq!(view.status, UpstreamStatus::Disconnected);
    assert_eq!(view.last_error.as_deref(), Some("answered 200, but not OTLP"));
    receiver.until("three tries", |receiver| receiver.received().len() >= 3).await;
    assert!(line.spool.acknowledgements().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_is_given_up_after_the_timeout_and_tried_again() {
    for receiver in Receiver::both() {
        receiver.script([Reply::Hang, Reply::Hang]);
        let line = Line::start_with(&receiver, |upstream, _| upstream.timeout = Duration::from_millis(250));
        line.spool.commit([reading(1)]);
        let view = line.until("a timeout", |view| view.last_error.is_some()).await;
        assert_eq!(view.last_error.as_deref(), Some("no answer within 250ms"));
        line.acknowledged(1).await;
        assert_eq!(values(&receiver), [1]);
    }
}

/// The usual pause is an hour, so only `Retry-After` can bring the second request before the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_replaces_the_pause() {
    for receiver in Receiver::both() {
        receiver.script([Reply::Busy(Some(1))]);
        let line = Line::start_with(&receiver, |_, patience| patience.pauses = hourly);
        line.spool.commit([reading(1)]);
        line.acknowledged(1).await;
    }
}

/// An hour is asked for, and the cap holds.
#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_capped() {
    for receiver in Receiver::both() {
        receiver.script([Reply::Busy(Some(3600))]);
        let line = Line::start(&receiver);
        line.spool.commit([reading(1)]);
        line.acknowledged(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_upstream_refuses_is_found_and_its_neighbours_go_through() {
    for receiver in Receiver::both() {
        receiver.answer_with(|request| match holds(request, POISON) {
            true => Reply::refuse("no\r\nsuch value"),
            false => Reply::Accept,
        });
        let spool = Spool::default();
        for value in (0..40).map(|value| if value == 23 { POISON } else { value }) {
            spool.commit([Entry::Readings(vec![stored(value, value), stored(value, value + 1000)])]);
        }
        let line = Line::start_on(spool, &receiver, |_, _| {});
        line.acknowledged(40).await;

        let expected: Vec<_> = (0..40).filter(|value| *value != 23).flat_map(|value| [value, value + 1000]).collect();
        assert_eq!(sorted(values(&receiver)), sorted(expected), "nothing twice, nothing missing");
        let reason = receiver.reason(&Reply::refuse("no such value"));
        let loss = Loss {
            source: "upstream".into(),
            from: time(POISON),
            to: time(POISON),
            count: 2,
            reason: reason.as_str().into(),
        };
        assert_eq!(line.losses(), [loss]);
        assert_eq!(line.view().rejected, 2);
        assert!(line.spool.acknowledgements().is_sorted());

        let letters = line.letters.list().expect("readable");
        let [(number, letter)] = letters.as_slice() else { panic!("one dead letter: {letters:?}") };
        assert_eq!(
            (letter.signal, letter.items, letter.from, &*letter.why),
            (Signal::Metrics, 2, time(POISON), &*reason)
        );
        let (letter, body) = line.letters.read(*number).expect("readable");
        let again = resend(&line.upstream, &letter, body.clone()).await.expect("a client");
        assert_eq!(again, Resent::Refused(reason), "nothing has changed");
        receiver.answer_with(|_| Reply::Accept);
        assert_eq!(resend(&line.upstream, &letter, body).await.expect("a client"), Resent::Accepted);
        let sent = (0..40).map(|value| if value == 23 { POISON } else { value });
        let sent = sent.flat_map(|value| [value, value + 1000]).collect();
        assert_eq!(sorted(values(&receiver)), sorted(sent));

        // A refusal does not leave small requests behind: they grow back by doubling.
        let before = receiver.received().len();
        line.spool.commit((100..400).map(reading));
        line.acknowledged(340).await;
        let sent = receiver.received().len() - before;
        assert!(sent <= 9, "{sent} requests for 300 frames: {:#?}", receiver.summary());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_goes_in_smaller_pieces_and_nothing_is_lost() {
    let receiver = Receiver::start();
    receiver.answer_with(|request| match request.points(METRIC).len() {
        0..=7 => Reply::Accept,
        _ => Reply::status(413, ""),
    });
    let spool = Spool::default();
    spool.commit((0..100).map(reading));
    let line = Line::start_on(spool, &receiver, |_, _| {});
    line.acknowledged(100).await;
    assert_eq!(values(&receiver), (0..100).collect::<Vec<_>>());
    assert!(line.losses().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_error_that_does_not_pass_counts_as_refused_in_the_end() {
    for receiver in Receiver::both() {
        receiver.answer_with(|request| match holds(request, POISON) {
            true => Reply::fail("panicked"),
            false => Reply::Accept,
        });
        let spool = Spool::default();
        spool.commit([reading(1), reading(POISON), reading(3)]);
        let line = Line::start_on(spool, &receiver, |_, patience| patience.server_errors = 2);
        line.acknowledged(3).await;

        assert_eq!(values(&receiver), [1, 3]);
        let losses = line.losses();
        assert_eq!(losses.len(), 1);
        assert_eq!((losses[0].count, &*losses[0].reason), (1, &*receiver.reason(&Reply::fail("panicked"))));
        let alone = receiver.received().iter().filter(|request| request.points(METRIC).len() == 1).count();
        assert_eq!(alone, 6, "1, four times the poison, 3: {:#?}", receiver.summary());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_fails_over_everything_is_down_and_nothing_is_given_up() {
    for receiver in Receiver::both() {
        receiver.answer_with(|_| Reply::fail("no database"));
        let spool = Spool::default();
        spool.commit((1..=3).map(reading));
        let line = Line::start_on(spool, &receiver, |_, patience| patience.server_errors = 2);
        receiver
            .until("far more failures than count against a request", |receiver| receiver.received().len() > 12)
            .await;
        assert_eq!((line.view().status, line.view().rejected), (UpstreamStatus::Disconnected, 0));
        receiver.answer_with(|_| Reply::Accept);
        line.acknowledged(3).await;

        assert_eq!(values(&receiver), [1, 2, 3]);
        assert!(line.losses().is_empty());
        let sent = receiver.received();
        let bodies: BTreeSet<_> =
            sent.iter().filter(|request| !request.points(METRIC).is_empty()).map(|request| &request.raw).collect();
        assert_eq!(bodies.len(), 1, "the same bytes each time");
        assert!(sent.iter().any(|request| request.metrics().next().is_none()), "and requests with nothing in them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_want_us_blocks_and_everything_is_kept() {
    for (status, advice) in
        [(401, "headers"), (403, "headers"), (404, "endpoint"), (405, "endpoint"), (302, "endpoint")]
    {
        let receiver = Receiver::start();
        receiver.answer_with(move |_| Reply::status(status, "hunter2-hunter2 is wrong"));
        let line = Line::start_with(&receiver, |upstream, _| {
            upstream.headers.push(("x-token".to_owned(), Secret::new("hunter2-hunter2".to_owned())));
        });
        line.spool.commit([reading(1)]);
        let view = line.until("blocked", |view| view.status == UpstreamStatus::Blocked).await;
        let error = view.last_error.expect("why");
        assert!(error.starts_with(&status.to_string()) && error.contains(advice), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
        receiver.until("it is tried again", |receiver| receiver.received().len() >= 3).await;
        assert!(line.spool.acknowledgements().is_empty() && line.losses().is_empty());

        receiver.answer_with(|_| Reply::Accept);
        line.acknowledged(1).await;
        assert_eq!(line.view().status, UpstreamStatus::Connected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_without_a_place_for_traces_blocks_and_says_what_to_leave_out() {
    for receiver in Receiver::both() {
        let unserved = match receiver.protocol() {
            Protocol::Http => Reply::status(404, "no such page"),
            Protocol::Grpc => Reply::code(Code::Unimplemented, "unknown service"),
        };
        receiver.answer_with(move |request| match request.content {
            Content::Traces(_) => unserved.clone(),
            _ => Reply::Accept,
        });
        let spool = Spool::default();
        spool.commit([reading(1), changed(1), visit("SN1", 1), visit("SN2", 2)]);

        let line = Line::start_on(spool.clone(), &receiver, |_, _| {});
        let view = line.until("blocked", |view| view.status == UpstreamStatus::Blocked).await;
        let error = view.last_error.expect("why");
        let advice = "; if upstream takes no traces, leave `traces` out of upstream.otlp.signals";
        assert!(error.contains("check the endpoint") && error.ends_with(advice), "{error}");
        assert!(spool.acknowledgements().is_empty() && line.losses().is_empty(), "all of it is kept");
        line.stop.cancel();
        tokio::time::timeout(DEADLINE, line.task).await.expect("it ends").expect("it does not panic");
        let asked = receiver.received().len();

        let line = Line::start_on(spool, &receiver, |upstream, _| {
            upstream.signals = vec![Signal::Metrics, Signal::Logs];
        });
        line.acknowledged(4).await;
        line.spool.commit([visit("SN3", 3)]);
        line.acknowledged(5).await;
        let sent: Vec<_> = receiver.received()[asked..].iter().map(signal).collect();
        assert_eq!(sent, ["metrics", "logs"], "and nothing at all for a frame that holds but a visit");
        assert!(line.losses().is_empty(), "it is by configuration");
        assert_eq!((line.view().status, line.view().rejected), (UpstreamStatus::Connected, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_logs_can_be_left_out_as_well() {
    for receiver in Receiver::both() {
        let line = Line::start_with(&receiver, |upstream, _| upstream.signals = vec![Signal::Traces]);
        let orphan = StoredReading { series: SeriesId(77), ..stored(1, 1) };
        line.spool.commit([reading(1), changed(1), visit("SN1", 1), Entry::Readings(vec![orphan])]);
        line.acknowledged(4).await;
        assert_eq!(receiver.received().iter().map(signal).collect::<Vec<_>>(), ["traces"]);
        assert!(line.losses().is_empty(), "nobody wants the reading that nobody knows");
    }
}

/// A unit's stay, and a span of the agent's own, as the teller stores it.
#[tokio::test(flavor = "multi_thread")]
async fn visits_and_own_spans_arrive_as_traces() {
    for receiver in Receiver::both() {
        let outbox = Outbox::default();
        with_default(tracing_subscriber::registry().with(outbox.layer(1.0)), || {
            info_span!("connect", otel.kind = "client", endpoint = "tcp://plc:502").in_scope(|| ());
        });
        let own = OwnEncoder::new(&RESOURCE).spans(outbox.take().spans, time(9));
        let line = Line::start(&receiver);
        line.spool.commit([visit("SN1", 1), visit("SN2", 2)].into_iter().chain(own.into_iter().map(Entry::Telemetry)));
        line.acknowledged(3).await;

        assert_eq!(receiver.received().iter().map(signal).collect::<Vec<_>>(), ["traces"], "one request for all");
        let visits = receiver.spans("factory.visit");
        let serials: Vec<_> =
            visits.iter().map(|visit| attributes(&visit.attributes)["factory.serial"].clone()).collect();
        assert_eq!(serials, ["SN1", "SN2"]);
        assert_ne!(visits[0].trace_id, visits[1].trace_id, "a trace is of one unit");
        let nanos = |second| u64::try_from(time(second).0).expect("after 1970");
        assert_eq!((visits[0].start_time_unix_nano, visits[0].end_time_unix_nano), (nanos(1), nanos(6)));

        let [connect] = &receiver.spans("connect")[..] else { panic!("{:#?}", receiver.summary()) };
        assert_eq!(connect.kind, SpanKind::Client as i32);
        assert_eq!(attributes(&connect.attributes)["endpoint"], "tcp://plc:502");
        assert_eq!((connect.trace_id.len(), connect.span_id.len()), (16, 8));
        assert!(connect.start_time_unix_nano > 0 && connect.start_time_unix_nano <= connect.end_time_unix_nano);
        let Content::Traces(request) = &receiver.received()[0].content else { panic!("a request of traces") };
        for of in &request.resource_spans {
            let resource = attributes(&of.resource.as_ref().expect("a resource").attributes);
            assert_eq!((&*resource["service.name"], &*resource["factory.line"]), ("gemba", "smt-1"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn points_that_a_partial_success_rejects_are_a_loss() {
    for receiver in Receiver::both() {
        receiver.script([Reply::Partial(2, "out of\norder".to_owned()), Reply::Partial(0, "be careful".to_owned())]);
        let spool = Spool::default();
        spool.commit([reading(1), reading(2), reading(3)]);
        let line = Line::start_on(spool, &receiver, |_, _| {});
        line.acknowledged(3).await;

        let loss =
            Loss { source: "upstream".into(), from: time(1), to: time(3), count: 2, reason: "out of order".into() };
        assert_eq!(line.losses(), [loss]);
        assert_eq!((line.view().rejected, line.view().status), (2, UpstreamStatus::Connected));

        line.spool.commit([reading(4)]);
        line.acknowledged(4).await;
        assert!(line.losses().is_empty(), "a warning is no loss");
        assert_eq!(line.view().last_error.as_deref(), Some("be careful"));
        assert_eq!(line.view().retries, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_failed_is_sent_again() {
    for receiver in Receiver::both() {
        receiver.script([Reply::Accept, Reply::Busy(None), Reply::Drop]);
        let spool = Spool::default();
        spool.commit([reading(1), changed(2)]);
        let line = Line::start_on(spool, &receiver, |_, _| {});
        line.acknowledged(2).await;

        let signals: Vec<_> = receiver.received().iter().map(signal).collect();
        assert_eq!(signals, ["metrics", "logs", "logs", "logs"]);
        let logs: Vec<Bytes> = receiver.received()[1..].iter().map(|request| request.raw.clone()).collect();
        assert!(logs.iter().all(|raw| *raw == logs[0]));
        assert_eq!((values(&receiver), receiver.logs("factory.state.changed").len()), (vec![1], 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_logs_do_not_send_accepted_metrics_twice() {
    for receiver in Receiver::both() {
        receiver.answer_with(|request| match request.logs().any(|log| log.time_unix_nano == time(3).0 as u64) {
            true => Reply::refuse("bad log"),
            false => Reply::Accept,
        });
        let spool = Spool::default();
        spool.commit([reading(1), changed(1), reading(2), changed(2), reading(3), changed(3), reading(4), changed(4)]);
        let line = Line::start_on(spool, &receiver, |_, _| {});
        line.acknowledged(8).await;

        assert_eq!(values(&receiver), [1, 2, 3, 4]);
        assert_eq!(receiver.logs("factory.state.changed").len(), 3);
        let losses = line.losses();
        assert_eq!(losses.len(), 1);
        assert_eq!(
            (losses[0].count, losses[0].from, &*losses[0].reason),
            (1, time(3), &*receiver.reason(&Reply::refuse("bad log")))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_goes_and_comes_back_has_everything_once() {
    for mut receiver in Receiver::both() {
        let line = Line::start(&receiver);
        line.spool.commit([reading(0)]);
        line.acknowledged(1).await;

        receiver.stop();
        for value in 1..30 {
            line.spool.commit([reading(value)]);
        }
        let view = line.until("disconnected", |view| view.status == UpstreamStatus::Disconnected).await;
        assert!(view.last_error.is_some() && view.last_success.is_some());
        receiver.restart();
        line.acknowledged(30).await;
        assert_eq!(values(&receiver), (0..30).collect::<Vec<_>>());
        assert_eq!(line.view().status, UpstreamStatus::Connected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_sends_what_is_committed_even_out_of_a_long_pause() {
    for mut receiver in Receiver::both() {
        let line = Line::start_with(&receiver, |_, patience| patience.pauses = hourly);
        receiver.stop();
        line.spool.commit([reading(1)]);
        line.until("disconnected", |view| view.status == UpstreamStatus::Disconnected).await;
        line.spool.commit([reading(2), changed(3)]);
        receiver.restart();

        let Line { spool, stop, task, .. } = line;
        stop.cancel();
        tokio::time::timeout(DEADLINE, task).await.expect("it ends").expect("it does not panic");
        assert_eq!(values(&receiver), [1, 2]);
        assert_eq!(spool.acknowledgements().last(), Some(&Seq(3)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_upstream_ends_and_keeps_everything() {
    let mut receiver = Receiver::start();
    let line = Line::start_with(&receiver, |_, patience| patience.pauses = hourly);
    receiver.stop();
    line.spool.commit([reading(1)]);
    line.until("disconnected", |view| view.status == UpstreamStatus::Disconnected).await;
    line.stop.cancel();
    tokio::time::timeout(DEADLINE, line.task).await.expect("it ends").expect("it does not panic");
    assert!(line.spool.acknowledgements().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_let_go_before_its_loss_is_told() {
    let receiver = Receiver::start();
    receiver.answer_with(|_| Reply::status(400, "no"));
    let Line { spool, told, task, .. } = Line::start(&receiver);
    drop(told);
    spool.commit([reading(1)]);
    tokio::time::timeout(DEADLINE, task).await.expect("it ends").expect("it does not panic");
    assert!(spool.acknowledgements().is_empty());
}

/// Else a receiver that refuses everything and a ledger that tells of it would go on for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_news_of_a_loss_upstream_is_not_lost_again() {
    let receiver = Receiver::start();
    receiver.answer_with(|_| Reply::status(400, "no"));
    let line = Line::start(&receiver);
    let loss = |source: &str| Entry::Record {
        cause: None,
        record: Record::Loss {
            loss: Loss { source: source.into(), from: time(1), to: time(2), count: 3, reason: "400: no".into() },
            total: 3,
            since: time(0),
            at: time(2),
        },
    };
    line.spool.commit([loss("upstream")]);
    line.acknowledged(1).await;
    assert!(line.losses().is_empty());
    assert_eq!(line.view().rejected, 2, "the point and the log");

    line.spool.commit([loss("printer-1")]);
    line.acknowledged(2).await;
    let losses = line.losses();
    assert_eq!(losses.len(), 1, "metrics and logs of one frame are one loss: {losses:?}");
    assert_eq!(losses[0].count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_of_a_series_that_nobody_knows_are_a_loss() {
    let receiver = Receiver::start();
    let line = Line::start(&receiver);
    let orphan = StoredReading { series: SeriesId(77), ..stored(1, 1) };
    line.spool.commit([Entry::Readings(vec![orphan, stored(2, 2)])]);
    line.acknowledged(1).await;
    assert_eq!(values(&receiver), [2]);
    let losses = line.losses();
    assert_eq!((losses.len(), losses[0].count), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_with_nothing_to_send_are_let_go_without_a_request() {
    for receiver in Receiver::both() {
        let line = Line::start(&receiver);
        line.spool.commit([Entry::Tick(time(1))]);
        line.acknowledged(1).await;
        assert!(receiver.received().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_only_the_authorities_given() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let folder = tempfile::tempdir().expect("a folder");
        let trusted = folder.path().join("ca.pem");
        let receiver = Receiver::start_tls(protocol);
        std::fs::write(&trusted, receiver.certificate()).expect("written");
        let line = Line::start_with(&receiver, |upstream, _| upstream.ca_file = Some(trusted.clone()));
        line.spool.commit([reading(1)]);
        line.acknowledged(1).await;
        assert_eq!(values(&receiver), [1]);

        let stranger = Receiver::start_tls(protocol);
        let line = Line::start_with(&stranger, |upstream, _| upstream.ca_file = Some(trusted.clone()));
        line.spool.commit([reading(1)]);
        let view = line.until("disconnected", |view| view.status == UpstreamStatus::Disconnected).await;
        assert!(view.last_error.as_deref().is_some_and(|error| error.contains("certificate")), "{view:?}");
        assert!(stranger.received().is_empty() && line.spool.acknowledgements().is_empty());
    }
}

fn sorted(mut values: Vec<i64>) -> Vec<i64> {
    values.sort_unstable();
    values
}

fn signal(request: &Received) -> &'static str {
    match request.content {
        Content::Metrics(_) => "metrics",
        Content::Logs(_) => "logs",
        Content::Traces(_) => "traces",
        Content::Unreadable(_) => "nothing",
    }
}
