//! Promises A1 to A4 under fire (custody_tests::storm), and whether the storm would notice if they were broken.
//!
//! `make torture` lets it rage for minutes; as a test it is over in seconds. CUSTODY_SEED repeats a run's choices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use custody_harness::{Cluster, Installation, must};
use custody_tests::installation;
use custody_tests::storm::{self, Storm, Strength};

/// Defects of the sabotaged build (`custody.sabotage`), each of which the storm must see.
const DEFECTS: [&str; 14] = [
    // A chain's head is read with the transaction's snapshot.
    "stale_head",
    // The lane is let go of when the savepoint that took it is rolled back.
    "lane_savepoint",
    // What outer levels own is not written again after an inner one that wrote it is rolled back.
    "exception_block",
    // A released savepoint's entries stay those of its level, and go with the next savepoint.
    "released_saves",
    // Only the last entry of a run is signed, though a rollback may leave another as the last.
    "signs_once",
    // PREPARE TRANSACTION does not write what is buffered.
    "skip_flush_at_prepare",
    // The last row of a full batch is not inserted.
    "copy_batch",
    // The position is not that of the moment but of a while ago.
    "coarse_lsn",
    // A row that moves is recorded as gone, and not as come.
    "lost_move",
    // ... or as come in the tenant that it left.
    "wrong_tenant",
    // An UPDATE's old image holds the first changed column alone.
    "old_image_wrong",
    // An UPDATE is not recorded: custody.reconcile() itself must find the row.
    "lost_update",
    // TRUNCATE records the rows that the transaction's snapshot sees.
    "truncate_snapshot",
    // What is known of a table's columns outlives their change.
    "stale_shape",
];

/// Length of a short storm, in which everything must happen at least once.
const SHORT: Duration = Duration::from_secs(12);
/// A round on a cluster of its own is followed by two more.
const ROUNDS: u32 = 3;

#[test]
fn whatever_happens_the_tables_are_what_the_log_says() {
    let seconds = std::env::var("CUSTODY_TORTURE_SECONDS").ok().and_then(|s| s.parse().ok());
    let (length, rounds) = seconds.map_or((SHORT, 2), |s| (Duration::from_secs(s), ROUNDS));
    let round = (length / rounds).min(Duration::from_secs(20));
    let seed = storm::seed();
    let (begun, mut number) = (Instant::now(), 0);
    while number == 0 || begun.elapsed() + round * rounds < length {
        let cluster = Arc::new(Cluster::temporary(&installation(), &storm::SETTINGS).expect("a cluster"));
        let storm = Storm::new(cluster, "storm", Strength::FULL, None);
        storm.ten_thousand_tenants();
        // A slow or busy machine is given up to three times as long.
        let too_little = |storm: &Storm| storm.counts.too_little(rounds.into(), round * rounds);
        for n in 0..3 * rounds {
            if n >= rounds && too_little(&storm).is_empty() {
                break;
            }
            number += 1;
            let wrong = storm.round(seed.wrapping_add(number), round);
            println!("round {number}, {:.0} s: {} findings", begun.elapsed().as_secs_f64(), wrong.len());
            if !wrong.is_empty() {
                let log = storm.keep_log();
                panic!("{:#?}\n{}\n{}", &wrong[..wrong.len().min(10)], log.display(), storm.counts);
            }
        }
        println!("{}", storm.counts);
        assert_eq!(too_little(&storm), Vec::<String>::new(), "too little happened");
    }
}

/// A copy of the stage with the sabotaged library in it, removed in the end.
struct Sabotaged(PathBuf);

impl Sabotaged {
    fn stage() -> Self {
        let library = std::env::var("CUSTODY_SABOTAGED").expect("make test-db names the sabotaged library");
        let stage = std::env::var("CUSTODY_STAGE").expect("make test-db names the stage");
        let copy = PathBuf::from(format!("/tmp/custody-sabotaged-{}", std::process::id()));
        must(Command::new("cp").args(["-a", &stage]).arg(&copy)).unwrap();
        let original = std::fs::read_to_string(copy.join("pg_config")).unwrap();
        let moved = original.replacen(&stage, &copy.display().to_string(), 1);
        let to = Path::new(moved.trim()).parent().unwrap().join("../lib/pg_custody.so");
        std::fs::copy(library, to).unwrap();
        std::fs::write(copy.join("pg_config"), moved).unwrap();
        Self(copy)
    }
}

impl Drop for Sabotaged {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One cluster for all: lanes, chains and the setting are each database's own.
#[test]
fn the_storm_sees_through_sabotage() {
    let stage = Sabotaged::stage();
    let installation = Installation::at(&stage.0).unwrap();
    let settings = [&storm::SETTINGS[..], &["max_locks_per_transaction = 128"]].concat();
    let cluster = Arc::new(Cluster::temporary(&installation, &settings).expect("a cluster"));
    let seed = storm::seed();
    let wanted = std::env::var("CUSTODY_DEFECT").ok();
    let defects: Vec<_> = DEFECTS.into_iter().filter(|d| wanted.as_ref().is_none_or(|w| w == d)).collect();
    let (next, unseen) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(defect) = defects.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_seen(cluster.clone(), defect, seed) {
                        unseen.lock().unwrap().push(defect);
                    }
                }
            });
        }
    });
    let unseen = unseen.into_inner().unwrap();
    assert!(unseen.is_empty(), "went unseen: {unseen:?}");
    // With no defect switched on the same build is sound: it is the defect that is seen, not the build.
    let storm = Storm::new(cluster, "sound", Strength::SHARED, None);
    for n in 0..2 {
        assert_eq!(storm.round(seed.wrapping_add(n), Duration::from_secs(2)), Vec::<String>::new());
    }
    println!("sound: {}", storm.counts);
}

/// Whether the storm finds the defect, in short rounds.
fn is_seen(cluster: Arc<Cluster>, defect: &str, seed: u64) -> bool {
    let storm = Storm::new(cluster, &format!("with_{defect}"), Strength::SHARED, Some(defect));
    let begun = Instant::now();
    let wrong = (0..20).map(|n| storm.round(seed.wrapping_add(n), Duration::from_millis(1000))).find(|w| {
        // The log alone does not show it.
        let by_table = || w.iter().any(|f| f.starts_with("reconcile "));
        !w.is_empty() && (defect != "lost_update" || by_table())
    });
    let after = begun.elapsed().as_secs_f64();
    println!("{defect}, after {after:.1} s: {}", wrong.as_ref().map_or("nothing", |w| &w[0]));
    wrong.is_some()
}
