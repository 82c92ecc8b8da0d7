//! Faults that were in here once.

use super::*;

#[test]
fn a_journal_that_grew_and_was_sealed_under_the_readers_hands_is_read_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    let commit = |spool: &mut Live, from: u64, to: u64| {
        spool.writer.append(&readings(from..to));
        spool.writer.commit(Time(to as i64)).expect("commits");
    };
    commit(&mut spool, 0, 10);
    assert_eq!(spool.reader.next(1_000).expect("reads").expect("a chunk").readings, 10, "and upstream is away");
    // The same journal goes on and is full; two more make it one to be sealed.
    commit(&mut spool, 10, 20);
    commit(&mut spool, 20, 400);
    commit(&mut spool, 400, 800);
    commit(&mut spool, 800, 1_200);
    assert!(keep_house(&mut spool.sealer).sealed > 0);
    assert_eq!(numbers(drain(&mut spool.reader)), (0..1_200).collect::<Vec<_>>());
}

#[test]
fn a_journal_of_which_nothing_is_left_is_lost_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = start(folder.path());
    for batch in 0..4 {
        spool.writer.append(&readings(batch * 400..batch * 400 + 400));
        spool.writer.commit(Time(batch as i64 + 1)).expect("commits");
    }
    drop(spool);
    let journals = listing(folder.path()).journals;
    let (second, third) = (journals.iter().nth(1).expect("a second"), journals.iter().nth(2).expect("a third"));
    let path = folder.path().join(journal_name(*second));
    let length = fs::metadata(&path).expect("is there").len();
    fs::write(&path, vec![0; length as usize]).expect("writes");
    for _ in 0..3 {
        let (_, recovery) = start(folder.path());
        let [loss] = &recovery.losses[..] else { panic!("{:?}", recovery.losses) };
        // Its commit's end was nothing that anybody misses.
        assert_eq!((&*loss.source, loss.count), ("spool", third - second - 1));
        assert_eq!((loss.from, loss.to), (Time(1), Time(1)), "after the last commit that is left");
    }
    let (mut spool, _) = start(folder.path());
    let left: Vec<u64> = (0..400).chain(800..1_600).collect();
    assert_eq!(numbers(drain(&mut spool.reader)), left);
}

#[test]
fn a_damaged_segment_that_cannot_be_saved_yet_is_kept_until_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(sealed(folder.path(), 3_000));
    damage(folder.path(), "db", std::iter::once(2_000));
    let (first, (last, _)) = listing(folder.path()).sealed.pop_first().expect("a sealed part");
    let segment = files::Segment { lane: Lane::Readings, first, last };
    // Something in the way of the segment that would hold what is left.
    let (mut spool, _) = start(folder.path());
    let obstacle = folder.path().join(format!("tmp-{}", segment.name()));
    fs::write(&obstacle, "x").expect("writes");
    for _ in 0..3 {
        let error = spool.reader.next(1_000).expect_err("cannot save it");
        assert!(matches!(error, SpoolError::Seal { .. }), "{error}");
    }
    fs::remove_file(&obstacle).expect("removes");
    let got = drain(&mut spool.reader).into_iter().filter(|entry| matches!(entry, Entry::Readings(_)));
    let got = numbers(got.collect()).len() as u64;
    let lost: u64 = keep_house(&mut spool.sealer).losses.iter().map(|loss| loss.count).sum();
    assert_eq!(got + lost, 3_000);
    assert!(lost < 300, "{lost} of 3000 lost by one byte");
}
