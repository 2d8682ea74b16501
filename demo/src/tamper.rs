//! Chapter 5: the log is verified, tampered with by a superuser in every way we know, and found out each time.

use custody_core::key::{fingerprint, hex, key_id};
use custody_harness::Result;
use ed25519_dalek::SigningKey;
use uuid::Uuid;

use crate::session::{Session, Table, described};
use crate::stored::{Stored, relink};
use crate::story::Story;
use crate::{expect, print};

const LIFT: &str =
    "ALTER TABLE custody.entry DISABLE TRIGGER \"!custody_append_only\", DISABLE TRIGGER \"!custody_foreign_only\";";
const GUARD: &str = "ALTER TABLE custody.entry ENABLE ALWAYS TRIGGER \"!custody_append_only\", ENABLE ALWAYS TRIGGER \"!custody_foreign_only\";";
const HEADS: &str = "heads => (SELECT heads FROM kept_heads)";

pub fn tell(story: &mut Story<'_>) -> Result<()> {
    print::chapter(5, "Verification, and tampering");
    untouched(story)?;
    let mut attack = Attack::prepare(story)?;
    attack.edits()?;
    attack.rearrangements()?;
    attack.forgeries()?;
    attack.ends()?;
    attack.count()?;
    switched_off(story)
}

fn untouched(story: &mut Story<'_>) -> Result<()> {
    print::section("The log as it is");
    let pin = story.pin.clone();
    let root = &mut story.root;
    let summary = root.show("SELECT verdict, detail FROM custody.verify();")?;
    expect::equal(
        "valid, and it says how far that goes",
        "valid of 1",
        &format!("{} of {}", summary.cell(0, 0), summary.rows.len()),
    )?;
    print::text(
        "Kept outside the database: the fingerprint of the key, and where every chain ends. Here, a temporary table stands for outside.",
    );
    root.run("CREATE TEMPORARY TABLE kept_heads AS SELECT jsonb_agg(h) AS heads FROM custody.heads() h;")?;
    let summary = root.show(&format!("SELECT verdict, detail FROM custody.verify(pin => '{pin}', {HEADS});"))?;
    expect::equal(
        "valid, for that key and these heads",
        "valid of 1",
        &format!("{} of {}", summary.cell(0, 0), summary.rows.len()),
    )?;
    print::text("The log is append-only for everyone, the superuser included:");
    root.refused("UPDATE custody.entry SET login_role = 'somebody else';", "UC031")?;
    root.refused("DELETE FROM custody.entry;", "UC031")?;
    root.refused("TRUNCATE custody.entry;", "UC031")?;
    root.refused(
        "INSERT INTO custody.entry SELECT (jsonb_populate_record(e, '{\"seq\": 1000000}')).* FROM custody.entry e LIMIT 1;",
        "UC031",
    )?;
    Ok(())
}

/// A superuser against one chain of tenant A's.
struct Attack<'a> {
    root: &'a mut Session,
    pin: String,
    tenant: String,
    lane: i32,
    incarnation: Uuid,
    /// The chain as it is.
    chain: Vec<Stored>,
    /// Places in `chain`: a prescription within a transaction, which is followed by another entry of that transaction.
    prescription: usize,
    attempts: i64,
}

impl<'a> Attack<'a> {
    fn prepare(story: &'a mut Story<'_>) -> Result<Self> {
        print::section("A superuser who means it, against one chain of tenant A");
        print::text(
            "He can lift the guard. That is recorded (GUARD_OFF), and it does not help him: the entries are chained by hashes, and signed. \
                     Each attempt below lifts the guard, does its work, puts the guard back, and is undone to the byte afterwards.",
        );
        let tenant = story.cast[0].id.clone();
        let root = &mut story.root;
        root.run("CREATE TEMPORARY TABLE untouched AS TABLE custody.entry;  -- to undo each attempt from")?;
        let lane = root.number(&format!(
            "SELECT lane FROM custody.entry WHERE tenant = '{tenant}' AND table_name = 'patients' AND op = 'INSERT'
GROUP BY lane ORDER BY count(*) DESC, lane LIMIT 1"
        ))?;
        let lane = i32::try_from(lane)?;
        let chain = Stored::chain(&mut root.client, &tenant, lane).map_err(|e| described(&e))?;
        let inner = |a: &Stored, b: &Stored| {
            a.xid == b.xid && !a.signs_run && !b.signs_run && a.actor_seq == b.actor_seq && a.actor_seq < a.seq
        };
        let prescription = (0..chain.len().saturating_sub(1))
            .rfind(|i| {
                chain[*i].table_name.as_deref() == Some("medications")
                    && chain[*i].op == "INSERT"
                    && inner(&chain[*i], &chain[i + 1])
            })
            .ok_or("the chain has no transaction that the story can use")?;
        let incarnation = chain[prescription].incarnation;
        print::text(&format!("The chain: tenant {tenant}, lane {lane}, seq 1 to {}.", chain.len()));
        Ok(Self { root, pin: story.pin.clone(), tenant, lane, incarnation, chain, prescription, attempts: 0 })
    }

    fn edits(&mut self) -> Result<()> {
        let seq = self.chain[self.prescription].seq;
        let edit = format!(
            "UPDATE custody.entry SET new = jsonb_set(new::jsonb, '{{dispenses}}', '30')::text\nWHERE {};",
            self.at(seq)
        );
        self.attempt("Edit an entry: a prescription was for thirty all along", |a| a.sql(&edit), &[("edited", seq)])?;

        let rewritten = self.rewritten();
        let mut expected: Vec<_> = rewritten.iter().filter(|e| e.signs_run).map(|e| ("bad_signature", e.seq)).collect();
        expected.push(("rewritten", self.last()));
        self.attempt(
            "The same, with every digest and hash from there on computed anew",
            |a| a.write(&rewritten),
            &expected,
        )?;

        let signed = self.chain[self.prescription..].iter().find(|e| e.signs_run).map_or(self.last(), |e| e.seq);
        let strip = format!("UPDATE custody.entry SET signature = NULL WHERE {};", self.at(signed));
        self.attempt("Remove a signature", |a| a.sql(&strip), &[("unsigned", signed)])
    }

    fn rearrangements(&mut self) -> Result<()> {
        let seq = self.chain[self.prescription].seq;
        let delete = format!("DELETE FROM custody.entry WHERE {};", self.at(seq));
        self.attempt("Delete an entry from the middle", |a| a.sql(&delete), &[("deleted", seq)])?;

        let chain = self.whole();
        let swap = [
            format!("UPDATE custody.entry SET seq = -seq WHERE {chain} AND seq IN ({seq}, {});", seq + 1),
            format!("UPDATE custody.entry SET seq = {} + seq WHERE {chain} AND seq < 0;", 2 * seq + 1),
        ];
        self.attempt(
            "Swap two entries",
            |a| swap.iter().try_for_each(|sql| a.sql(sql)),
            &[("reordered", seq), ("reordered", seq + 1)],
        )
    }

    fn forgeries(&mut self) -> Result<()> {
        let Some(end) = self.chain.last().cloned() else { return Err("the chain is empty".into()) };
        let mut forged = end.clone();
        forged.seq += 1;
        forged.at += 1_000_000;
        forged.xid += 1;
        forged.ordinal = 1;
        forged.op = "UPDATE".into();
        (forged.signs_run, forged.key_id, forged.signature) = (false, None, None);
        (forged.actor_salt, forged.actor, forged.actor_digest) = (None, None, None);
        forged.new = Some(r#"{"value": "60"}"#.into());
        forged.old = Some(r#"{"value": "120"}"#.into());
        forged.prev_hash = end.hash.clone();
        forged.seal();
        let seq = forged.seq;
        self.attempt(
            "Append a false entry, its digest, link and hash computed as docs/format.md says",
            |a| a.append(&forged),
            &[("unsigned", seq)],
        )?;

        let own = SigningKey::from_bytes(&[0x66; 32]);
        let mut signed = end.clone();
        signed.sign(&own);
        let sql = format!(
            "UPDATE custody.entry SET signature = '\\x{}'\nWHERE {};",
            hex(signed.signature.as_deref().unwrap_or_default()),
            self.at(end.seq)
        );
        self.attempt("Sign an entry with another key", |a| a.sql(&sql), &[("bad_signature", end.seq)])?;
        self.own_key(&own)
    }

    /// The strongest that somebody without the signing key can do.
    fn own_key(&mut self, own: &SigningKey) -> Result<()> {
        let public = own.verifying_key().to_bytes();
        let id = key_id(&public);
        let mut rewritten = self.rewritten();
        // The key's name goes into the hashes, so they come after it.
        rewritten.iter_mut().filter(|e| e.signs_run).for_each(|e| e.key_id = Some(id.clone()));
        relink(&mut rewritten);
        rewritten.iter_mut().filter(|e| e.signs_run).for_each(|e| e.sign(own));
        let register = format!(
            "INSERT INTO custody.signing_key (key_id, incarnation, public_key, fingerprint, created_at)
VALUES ('{id}', '{}', '\\x{}', '{}', now());",
            self.incarnation,
            hex(&public),
            fingerprint(&public)
        );
        let mut expected: Vec<_> = rewritten.iter().filter(|e| e.signs_run).map(|e| ("key_not_valid", e.seq)).collect();
        expected.push(("rewritten", self.last()));
        self.attempt(
            "Register a key of one's own, and rewrite the end of the chain with it: edited, chained, and signed without a flaw",
            |a| {
                a.sql(&register)?;
                a.write(&rewritten)?;
                a.unseen("key not pinned: who can rewrite the log can rewrite its keys")
            },
            &expected,
        )?;
        self.root.run(&format!("DELETE FROM custody.signing_key WHERE key_id = '{id}';"))?;
        self.valid_again()
    }

    fn ends(&mut self) -> Result<()> {
        let start = self.chain[..self.chain.len() - 1].iter().rfind(|e| e.signs_run).map_or(1, |e| e.seq + 1);
        let cut = format!("DELETE FROM custody.entry WHERE {} AND seq >= {start};", self.whole());
        self.attempt(
            "Cut off the chain's last transaction",
            |a| {
                a.sql(&cut)?;
                a.unseen("no heads or checkpoints from outside given: a chain cut at its end is not seen")
            },
            &[("truncated", start)],
        )
    }

    fn count(&mut self) -> Result<()> {
        let summary =
            self.root.show(&format!("SELECT verdict, detail FROM custody.verify(pin => '{}', {HEADS});", self.pin))?;
        let lifted = format!("the append-only guard was lifted {} times", 2 * self.attempts);
        expect::holds(
            &format!("and every time is on record: {lifted}, to tamper and to undo"),
            summary.cell(0, 0) == "valid" && summary.cell(0, 1).contains(&lifted),
            summary.cell(0, 1),
        )
    }

    /// Does something with the guard lifted, looks for exactly these findings, and undoes it.
    fn attempt(
        &mut self,
        title: &str,
        act: impl FnOnce(&mut Self) -> Result<()>,
        expected: &[(&str, i64)],
    ) -> Result<()> {
        print::section(title);
        self.attempts += 1;
        match self.attempts {
            1 => self.root.run(LIFT)?,
            _ => self.root.quiet(LIFT)?,
        };
        act(self)?;
        match self.attempts {
            1 => self.root.run(GUARD)?,
            // Putting it back twice does no harm.
            _ => self.root.quiet(GUARD)?,
        };
        let sql = match self.attempts {
            1 => format!(
                "SELECT verdict, tenant, lane, seq, detail FROM custody.verify(pin => '{}', {HEADS})\nOFFSET 1;  -- the first row is the summary",
                self.pin
            ),
            _ => format!(
                "SELECT verdict, tenant, lane, seq, detail FROM custody.verify('{}…', …) OFFSET 1;",
                &self.pin[..8]
            ),
        };
        self.root.print(&sql);
        let mut found = self.verify()?;
        found.rows.drain(..found.rows.len().min(1));
        print::table_head(&found, 4);
        let mut wanted: Vec<String> =
            expected.iter().map(|(verdict, seq)| format!("{verdict} {} {} {seq}", self.tenant, self.lane)).collect();
        let mut got: Vec<String> =
            (0..found.rows.len()).map(|i| (0..4).map(|c| found.cell(i, c)).collect::<Vec<_>>().join(" ")).collect();
        wanted.sort();
        got.sort();
        let mut named: Vec<String> = Vec::new();
        for (verdict, seq) in expected {
            match named.last_mut() {
                Some(last) if last.starts_with(&format!("{verdict} ")) => *last += &format!(", {seq}"),
                _ => named.push(format!("{verdict} at seq {seq}")),
            }
        }
        expect::equal(&format!("found: {}, and nothing else", named.join("; ")), wanted.join(", "), got.join(", "))?;
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        self.root.quiet(LIFT)?;
        let chain = self.whole();
        self.root.quiet(&format!("DELETE FROM custody.entry WHERE {chain}"))?;
        self.root.quiet(&format!("INSERT INTO custody.entry SELECT * FROM untouched WHERE {chain}"))?;
        self.root.quiet(GUARD)?;
        // Its own undoing is told where it happens.
        match self.root.number("SELECT count(*) FROM custody.signing_key")? {
            1 => self.valid_again(),
            _ => Ok(()),
        }
    }

    fn valid_again(&mut self) -> Result<()> {
        let verified = self.verify()?;
        expect::equal(
            "undone, and valid again",
            "valid of 1".into(),
            format!("{} of {}", verified.cell(0, 0), verified.rows.len()),
        )
    }

    fn verify(&mut self) -> Result<Table> {
        self.root.quiet(&format!(
            "SELECT verdict, tenant, lane, seq, detail FROM custody.verify(pin => '{}', {HEADS})",
            self.pin
        ))
    }

    /// What somebody sees who kept nothing outside.
    fn unseen(&mut self, reservation: &str) -> Result<()> {
        self.root.quiet(GUARD)?;
        let summary =
            self.root.show("SELECT verdict, detail FROM custody.verify();  -- by someone who kept nothing outside")?;
        expect::equal(
            "not seen without what was kept outside",
            "valid of 1",
            &format!("{} of {}", summary.cell(0, 0), summary.rows.len()),
        )?;
        expect::holds(
            &format!("and the summary says so: \"{reservation}\""),
            summary.cell(0, 1).contains(reservation),
            summary.cell(0, 1),
        )
    }

    fn sql(&mut self, sql: &str) -> Result<()> {
        match self.root.run(sql)?.affected {
            0 => expect::unmet(sql, "rows", "none changed"),
            _ => Ok(()),
        }
    }

    /// The chain from the prescription to its end, with the prescription changed and nothing else done yet.
    fn rewritten(&self) -> Vec<Stored> {
        let mut entries = self.chain[self.prescription..].to_vec();
        if let Some(first) = entries.first_mut() {
            first.new = first.new.as_deref().map(|new| {
                new.replace("\"dispenses\":3,", "\"dispenses\":30,").replace("\"dispenses\": 3,", "\"dispenses\": 30,")
            });
        }
        relink(&mut entries);
        entries
    }

    fn write(&mut self, entries: &[Stored]) -> Result<()> {
        const WRITE: &str =
            "UPDATE custody.entry SET new = $4, row_digest = $5, prev_hash = $6, hash = $7, key_id = $8, signature = $9
WHERE tenant = $1 AND lane = $2 AND seq = $3";
        let (first, last) = (entries.first().map_or(0, |e| e.seq), self.last());
        self.root.print(&format!("{WRITE};\n-- for seq {first} to {last}, computed as docs/format.md says"));
        for e in entries {
            let changed = self
                .root
                .client
                .execute(
                    WRITE,
                    &[
                        &self.tenant,
                        &self.lane,
                        &e.seq,
                        &e.new,
                        &e.row_digest,
                        &e.prev_hash,
                        &e.hash,
                        &e.key_id,
                        &e.signature,
                    ],
                )
                .map_err(|e| described(&e))?;
            if changed != 1 {
                expect::unmet("an entry is rewritten", 1, changed)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, e: &Stored) -> Result<()> {
        let values = serde_json::json!({
            "seq": e.seq, "xid": e.xid.to_string(), "ordinal": e.ordinal, "op": e.op, "signs_run": e.signs_run, "key_id": null, "signature": null,
            "actor_salt": null, "actor": null, "actor_digest": null, "old": e.old, "new": e.new,
            "row_digest": format!("\\x{}", hex(&e.row_digest)), "prev_hash": format!("\\x{}", hex(&e.prev_hash)), "hash": format!("\\x{}", hex(&e.hash)),
        });
        const APPEND: &str = "INSERT INTO custody.entry
SELECT (jsonb_populate_record(e, $1 || jsonb_build_object('at', e.at + interval '1 second'))).* FROM custody.entry e
WHERE tenant = $2 AND lane = $3 AND seq = $4";
        self.root.print(&format!(
            "INSERT INTO custody.entry VALUES (…, {}, 'UPDATE', 'observations', …, '{{\"value\": \"60\"}}', …);",
            e.seq
        ));
        let added = self
            .root
            .client
            .execute(APPEND, &[&values, &self.tenant, &self.lane, &self.last()])
            .map_err(|e| described(&e))?;
        match added {
            1 => Ok(()),
            n => expect::unmet("an entry is appended", 1, n),
        }
    }

    fn last(&self) -> i64 {
        self.chain.last().map_or(0, |e| e.seq)
    }

    fn whole(&self) -> String {
        format!("tenant = '{}' AND lane = {}", self.tenant, self.lane)
    }

    fn at(&self, seq: i64) -> String {
        format!("{} AND seq = {seq}", self.whole())
    }
}

fn switched_off(story: &mut Story<'_>) -> Result<()> {
    print::section("Stop recording for a moment, instead of touching the record");
    let a = story.cast[0].id.clone();
    let root = &mut story.root;
    let entries = format!("SELECT count(*) FROM custody.entry WHERE tenant = '{a}'");
    let before = root.number(&entries)?;
    root.run("ALTER TABLE clinic.medications DISABLE TRIGGER \"!custody_capture\";")?;
    let changed = root
        .run(&format!(
            "UPDATE clinic.medications SET dispenses = dispenses + 1
WHERE (organization_id, id) = (SELECT organization_id, id FROM clinic.medications WHERE organization_id = '{a}' LIMIT 1);"
        ))?
        .affected;
    root.run("ALTER TABLE clinic.medications ENABLE ALWAYS TRIGGER \"!custody_capture\";")?;
    let after = root.number(&entries)?;
    expect::equal(
        "a row was changed, and nothing recorded of it",
        "1 row, 0 entries".into(),
        format!("{changed} row, {} entries", after - before),
    )?;
    let off = root.one(
        "SELECT 'capture_disabled ' || lane || ' ' || seq FROM custody.log WHERE op = 'CAPTURE_OFF' AND tenant = ''",
    )?;
    let found =
        root.show(&format!("SELECT verdict, tenant, lane, seq, detail FROM custody.verify({HEADS}) OFFSET 1;"))?;
    expect::equal(
        "that is itself on record, in the system chain, and stays a finding: nobody can say what went on meanwhile",
        format!("{off} of 1"),
        format!("{} {} {} of {}", found.cell(0, 0), found.cell(0, 2), found.cell(0, 3), found.rows.len()),
    )?;
    let e = root.refused(&format!("SELECT custody.assert_verified({HEADS});"), "UC050")?;
    expect::holds(
        "the same for a script: an error, with the findings",
        e.detail().is_some_and(|d| d.contains("capture_disabled")),
        e.message(),
    )
}
