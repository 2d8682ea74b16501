//! What there is to find, for reports that list their rules. `sql/install/70_coverage.sql` finds it; ids are stable.

use super::Severity;

/// A kind of finding.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// `CU001` and so on.
    pub id: &'a str,
    /// The worst that such a finding can be.
    pub severity: Severity,
    /// What is found, in one line.
    pub title: &'a str,
    /// Why it matters, and what ends it.
    pub help: &'a str,
}

impl Rule<'_> {
    /// The title in Pascal case, which SARIF asks of a rule's name.
    pub fn name(&self) -> String {
        self.title
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(|w| w[..1].to_ascii_uppercase() + &w[1..])
            .collect()
    }
}

macro_rules! rules {
    ($($id:literal $severity:ident $title:literal $help:literal)*) => {
        &[$(Rule { id: $id, severity: Severity::$severity, title: $title, help: $help }),*]
    };
}

/// The catalogue, in order.
pub const RULES: &[Rule<'static>] = rules! {
    "CU001" Critical "Row-level security is off"
        "Whoever may read the table reads every tenant's rows. custody.protect enables row-level security, forces it on the owner and adds the policies; reference data that every tenant may read is declared with custody.register_shared."
    "CU002" High "Row-level security is not forced"
        "The policies do not bind the table's owner, nor views and definer functions that run as the owner. ALTER TABLE … FORCE ROW LEVEL SECURITY."
    "CU003" Critical "There are policies but row-level security is off"
        "PostgreSQL ignores policies until row-level security is enabled on the table."
    "CU004" Medium "No permissive policy"
        "Row-level security without a permissive policy lets nobody in. If that is meant, say so with a policy: USING (false)."
    "CU005" Critical "A permissive policy does not test the tenant"
        "Permissive policies add up: one that does not compare the tenant column with the context opens every tenant's rows, unless a restrictive policy for everybody narrows it."
    "CU006" High "No tenant column and not registered shared"
        "Nothing in a row says whose it is. Add a tenant column and custody.protect the table, or declare with custody.register_shared that every tenant may read all of it."
    "CU007" Medium "The tenant column may be NULL"
        "A row without a tenant belongs to nobody, or to everybody if a policy admits NULL. Set the column NOT NULL."
    "CU008" Critical "The restrictive floor is gone or altered"
        "custody.protect lays a restrictive policy under all others; without it any permissive policy may open other tenants' rows. custody.protect puts it back."
    "CU009" Medium "Writes without a context are not refused"
        "Without its statement trigger, an UPDATE or DELETE of a protected table without a context changes nothing and says nothing. custody.protect puts it back."
    "CU010" Low "No index is led by the tenant column"
        "Every query is narrowed to one tenant; without an index that the tenant column leads, it reads all of them."
    "CU011" Medium "A unique key lacks the tenant column"
        "A duplicate-key error tells one tenant that another has the value, and refuses it what is free among its own rows. Put the tenant column into the key."
    "CU012" High "A foreign key lacks the tenant column"
        "Foreign keys are checked without row-level security: a row may refer to another tenant's, errors tell which exist, and cascades cross over. Refer by (tenant, key)."
    "CU013" High "Several permissive policies and no restrictive one"
        "Permissive policies are joined with OR: the most generous decides. Lay a restrictive floor under them."
    "CU014" Medium "Whether a policy keeps tenants apart cannot be told"
        "What cannot be decided is not taken for safe. Lay a restrictive floor under the policy with custody.protect, or test it and waive this."
    "CU015" Medium "A policy has a way past the tenants"
        "An exception for whom some condition lets in is as good as what guards the condition."
    "CU016" Low "The tenant comes from a setting or a function"
        "A setting can be set by any SQL that the session runs; a function is as good as its body. pg_custody's context can only be set with a token or a grant."
    "CU017" Critical "A policy reads a table that may be written"
        "Who may write what a policy reads writes himself into any tenant."
    "CU018" Critical "A policy's function looks names up without a schema"
        "Who makes a table of that name, be it a temporary one, decides what the policy reads. Qualify the names, or set the function's search_path with pg_temp at its end."
    "CU019" High "A policy's function is IMMUTABLE or VOLATILE"
        "An immutable answer may be kept in a plan, which then serves the next tenant; a volatile one is asked for every row. Declare it STABLE."
    "CU020" Critical "A constrained role is SUPERUSER or BYPASSRLS"
        "Row-level security does not exist for such a role."
    "CU021" Critical "A constrained role may become SUPERUSER or BYPASSRLS"
        "Membership is enough: SET ROLE takes it. Revoke the membership."
    "CU022" Critical "A constrained role owns tables"
        "An owner disables row-level security and drops policies whenever it likes. Tables belong to a role that no application uses or reaches."
    "CU023" Critical "TRUNCATE granted"
        "TRUNCATE does not ask row-level security: it empties the table for every tenant."
    "CU024" High "TRIGGER or REFERENCES granted"
        "A trigger planted on the table runs in other tenants' transactions; a foreign key to it tells which keys exist."
    "CU025" Critical "CREATEROLE or REPLICATION within reach"
        "CREATEROLE grants itself other roles; REPLICATION streams every tenant's changes."
    "CU026" Critical "A powerful predefined role within reach"
        "Roles that read or write files of the server, run programs, or see what others run, step around every policy."
    "CU027" High "A protecting parameter may be set"
        "SET or ALTER SYSTEM was granted on a parameter that switches triggers or checks off, or loads code."
    "CU028" High "CREATE or TEMP granted on a schema or the database"
        "What a role creates stands in the way of names that others look up, and gives triggers and functions a place."
    "CU029" High "A shared table may be written"
        "What one tenant writes to reference data, all others read."
    "CU030" Critical "A view shows a tenant table with its owner's rights"
        "The policies are applied for the view's owner and not for who asks. ALTER VIEW … SET (security_invoker = on)."
    "CU031" Critical "A materialized view of tenant rows may be read"
        "A materialized view has no row-level security: who may read it sees what its owner saw."
    "CU032" Critical "A partition or child without forced row-level security"
        "The parent's policies do not hold for queries that name the child itself."
    "CU033" High "A SECURITY DEFINER routine may be called"
        "It runs as its owner: if row-level security does not hold that role, it reads and writes every tenant's rows."
    "CU034" Critical "A foreign table may be read"
        "A foreign table has no row-level security here: the other server decides, for the one user it knows."
    "CU035" Medium "A trigger fires before the capture"
        "What such a trigger changes in turn is recorded before the change that set it off. Rename it to sort after the capture."
    "CU036" High "A rewrite rule on a tenant table"
        "Its statements run with the rights of the table's owner. A trigger does the same under row-level security."
    "CU037" High "A policy lets rows be written for any tenant"
        "Who writes a row into another tenant's data is not stopped by what he may read. Let WITH CHECK ask what USING asks."
    "CU038" High "A fixed or default tenant"
        "A tenant that is written into a policy or a setting is everybody's, or that of sessions which have none."
    "CU039" Critical "A policy believes what users edit themselves"
        "Take the tenant from a claim that only the server sets."
    "CU040" Critical "A login becomes the constrained role by a setting"
        "RESET ROLE gives the session back all that it logged in with. Let the application log in as the constrained role."
    "CU041" High "Default privileges open tables to come"
        "A new table is open to every tenant until somebody protects it."
    "CU042" High "A system catalog with secrets may be read"
        "Statistics hold values of every tenant's rows; other catalogs hold passwords."
    "CU043" High "A publication of more than one tenant's rows"
        "A subscriber is sent every tenant's rows: row-level security holds nobody who replicates."
    "CU044" High "Large objects are shared"
        "Large objects have no row-level security. Keep such data in a bytea column of a protected table."
    "CU045" Critical "A way out of the database may be called"
        "Functions that open connections, or run in an untrusted language, are outside of all that the database keeps apart."
    "CU046" High "A user mapping that constrained roles may use"
        "The other server knows one user for every tenant."
    "CU047" High "A function is declared LEAKPROOF"
        "PostgreSQL calls it on rows before the policies have sorted them out."
    "CU048" Low "Tenants share a sequence"
        "The gaps between a tenant's own numbers tell how much the others write."
    "CU049" Low "The tenant column may be updated"
        "Only the policies keep a row from being handed to another tenant."
    "CU050" Medium "MAINTAIN granted"
        "It locks and rewrites the table, which every tenant waits for."
    "CU051" High "The server lacks a security fix"
        "Isolation rests on PostgreSQL's own; install its latest minor version."
    "CU052" Low "A command is granted that no policy lets through"
        "Such a command finds no rows, or fails, and says nothing of why."
    "CU053" Medium "CREATEDB within reach"
        "A constrained role has no business making databases."
    "CU054" High "A trigger runs with its owner's rights"
        "Every tenant's writes call it, and row-level security does not hold its owner."
    "CU055" Critical "A function of the system's that only superusers should call"
        "It reads files, or reaches into other sessions and the server."
    "CU056" High "A policy's function changes settings of the session"
        "What it writes outlives the transaction and decides for whoever has the connection next. Work the value out anew, or set it for the transaction only."
    "CU057" Critical "A constrained role owns what policies stand on"
        "The owner of a function, operator, type or schema drops it with CASCADE, policies and all, or puts something else in its place. They belong to the owner of the tables."
    "CU058" Critical "A tenant table inherits from one that is not kept apart"
        "A query of the parent shows the child's rows and asks only the parent's policies. ALTER TABLE … NO INHERIT, or protect the parent."
    "CU059" High "A routine sets what isolation goes by"
        "While it runs, its SET clause stands in for its caller's tenant, or switches checks off. ALTER ROUTINE … RESET."
    "CU060" High "A trigger tells listeners about rows"
        "Notifications reach every session that listens, of whichever tenant."
    "CU061" Medium "A sequence may be set by constrained roles"
        "One tenant winds back the numbers of all. USAGE is enough for nextval; revoke UPDATE."
};
