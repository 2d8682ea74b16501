//! Every kind of value reads back from the log exactly as it was stored, whatever the session that wrote it prints like.

use custody_tests::replay::assert_replays;
use custody_tests::{Db, Session};

/// A session's settings and surroundings at their worst: everything that could change how a value prints.
const HOSTILE: &str = "
    SET DateStyle = 'German, DMY'; SET IntervalStyle = sql_standard; SET TimeZone = 'Asia/Kolkata'; SET extra_float_digits = -15;
    SET bytea_output = escape; SET xmloption = document; SET quote_all_identifiers = on; SET array_nulls = off; SET jit_above_cost = 0;
    SET default_toast_compression = lz4; SET search_path = hostile, public, pg_catalog";

/// Types and functions that stand before pg_catalog's in that session's search path.
const SHADOWS: &str = "
    CREATE SCHEMA hostile;
    CREATE DOMAIN hostile.text AS pg_catalog.int4; CREATE DOMAIN hostile.int4 AS pg_catalog.text; CREATE TYPE hostile.numeric AS ENUM ('x');
    CREATE FUNCTION hostile.format_type(oid, integer) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT 'x'::pg_catalog.text $$;
    CREATE FUNCTION hostile.quote_ident(pg_catalog.text) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT 'x'::pg_catalog.text $$;
    CREATE FUNCTION hostile.never(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR hostile.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = hostile.never);
    CREATE TABLE hostile.pg_class (oid oid); CREATE TABLE hostile.pg_trigger (oid oid)";

/// Puts the values into a table of their own and does to them all that can be done, asserting after each step that they read back.
fn lives(s: &mut Session, name: &str, kind: &str, values: &[&str]) {
    let (table, count) = (format!("public.{name}"), values.len());
    s.batch(&format!(
        "RESET ALL; CREATE TABLE {table} (id pg_catalog.int4 PRIMARY KEY, v {kind}); SELECT custody.audit('{table}')"
    ));
    // Literals that the hostile settings would misread are cast before those are in force.
    s.batch(&format!("CREATE TABLE public.{name}_values (id pg_catalog.int4, v {kind})"));
    for (n, value) in values.iter().enumerate() {
        s.batch(&format!("INSERT INTO public.{name}_values VALUES ({}, {value})", n + 1));
    }
    s.batch(&format!("INSERT INTO public.{name}_values VALUES (0, NULL)"));
    let steps = [
        format!("INSERT INTO {table} SELECT * FROM public.{name}_values"),
        format!(
            "UPDATE {table} k SET v = n.v FROM public.{name}_values n WHERE n.id OPERATOR(pg_catalog.=) (k.id + 1) % ({count} + 1)"
        ),
        format!("UPDATE {table} SET v = v"),
        format!("UPDATE {table} SET id = id + 1000 WHERE id % 3 OPERATOR(pg_catalog.=) 0"),
        format!("INSERT INTO {table} SELECT id + 5000, v FROM public.{name}_values"),
        format!("DELETE FROM {table} WHERE id > 5000"),
        format!("TRUNCATE {table}"),
    ];
    for step in steps {
        s.batch(&format!("RESET ALL; {HOSTILE}; {step}"));
        assert_replays(s, &table);
    }
}

fn database() -> Db {
    let db = Db::new();
    db.superuser().batch(SHADOWS);
    db
}

#[test]
fn numbers() {
    let db = database();
    let mut s = db.superuser();
    lives(&mut s, "i2", "smallint", &["-32768", "32767", "0"]);
    lives(&mut s, "i4", "integer", &["-2147483648", "2147483647", "0"]);
    lives(&mut s, "i8", "bigint", &["'-9223372036854775808'", "9223372036854775807", "9007199254740993"]);
    lives(
        &mut s,
        "n",
        "numeric",
        &[
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1.0",
            "1.00",
            "-0.0",
            "0e-100",
            "1e131071",
            "1e-16383",
            "('-' || repeat('9', 1000) || '.' || repeat('123', 3000))::numeric",
        ],
    );
    lives(&mut s, "n52", "numeric(5,2)", &["1", "-999.99", "'NaN'"]);
    lives(&mut s, "nneg", "numeric(3,-2)", &["12345", "-99900"]);
    let floats = [
        "'-0'",
        "0",
        "'NaN'",
        "'Infinity'",
        "'-Infinity'",
        "0.1",
        "1e15",
        "1e16",
        "123456789.123456789",
        "1e-5",
        "'-1e-30'",
        "1e23",
    ];
    lives(
        &mut s,
        "f8",
        "double precision",
        &[
            &floats[..],
            &[
                "4.9e-324",
                "2.2250738585072011e-308",
                "1.7976931348623157e308",
                "0.1::float8 + 0.2::float8",
                "9007199254740993",
            ],
        ]
        .concat(),
    );
    lives(&mut s, "f4", "real", &[&floats[..], &["1.4e-45", "3.4028235e38", "16777217", "1.17549421e-38"]].concat());
    lives(&mut s, "money", "money", &["'$1,234.56'", "'-92233720368547758.08'", "'$0.01'"]);
    lives(&mut s, "b", "boolean", &["true", "false"]);
    lives(&mut s, "o", "oid", &["0", "4294967295"]);
    s.assert_valid();
}

#[test]
fn texts() {
    let db = database();
    let mut s = db.superuser();
    let every_ascii: String =
        (1..=127u8).map(|c| format!("\\x{c:02x}")).collect::<Vec<_>>().join("").replace("\\x27", "\\'");
    let every_ascii = format!("E'{every_ascii}'");
    let unicode = "E'\\u00e9e\\u0301\\u2028\\u2029\\ufeff\\ufffd\\uffff\\U0001F600\\U0010FFFF\\u0080\\u200d\\u202e'";
    let texts = [
        every_ascii.as_str(),
        unicode,
        "''",
        "' '",
        "'  blanks  '",
        "'null'",
        "'NULL'",
        "'\\\\'",
        r"'\u0041'",
        r#"'{"a": "b"}'"#,
        "'true'",
        "'1e5'",
        "repeat('long ', 50000)",
        "repeat(E'\\x01\"\\\\', 20000)",
    ];
    lives(&mut s, "t", "text", &texts);
    lives(&mut s, "vc", "varchar", &texts);
    lives(&mut s, "vc5", "varchar(5)", &["'a'", "'abcde'", "E'\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9'", "'a    '"]);
    lives(&mut s, "bp", "character(5)", &["'a'", "''", "'  a '", "E'\\u00e9'", "'abcde'"]);
    lives(&mut s, "bpn", "bpchar", &["'a  '", "''", "'  '"]);
    lives(&mut s, "nm", "name", &["'a'", "''", "repeat('x', 63)", "E'\"\\u00e9'"]);
    lives(&mut s, "ch", "\"char\"", &["'a'", "''", "' '", "'\"'", "'\\'", "'\\351'", "(-1)::int4::\"char\""]);
    lives(&mut s, "ext", "text COMPRESSION lz4", &["repeat('lz4 ', 50000)", "'x'"]);
    lives(&mut s, "coll", "text COLLATE \"C\"", &[unicode]);
    lives(
        &mut s,
        "by",
        "bytea",
        &["''", "'\\x00'", "'\\xdeadbeef'", "'\\x5c785c'", "decode(repeat('00ff5c27', 20000), 'hex')"],
    );
    s.batch("CREATE EXTENSION citext SCHEMA public; CREATE EXTENSION hstore SCHEMA public; CREATE EXTENSION ltree SCHEMA public; CREATE EXTENSION cube SCHEMA public");
    lives(&mut s, "lt", "public.ltree", &["'a.b.c'", "''"]);
    lives(&mut s, "cu", "public.cube", &["'(0.1,-1e300),(2,3)'", "'(1)'"]);
    lives(&mut s, "ci", "public.citext", &["'AbC'", "''", "'\"'"]);
    lives(&mut s, "hs", "public.hstore", &["''", "'a=>NULL, \"b c\"=>\"q\\\"\", \"\"=>\"\"'", "'\"NULL\"=>\"NULL\"'"]);
    s.assert_valid();
}

#[test]
fn documents() {
    let db = database();
    let mut s = db.superuser();
    lives(
        &mut s,
        "j",
        "json",
        &[
            r#"'{"a": 1, "a": 2,  "b":[ ]}'"#,
            r#"E' \n\t{ "x" : 1.50e+3 } '"#,
            r#"'"\u0000"'"#,
            r#"'"\ud83d\ude00"'"#,
            "'null'",
            "'1.00'",
            "'-0'",
        ],
    );
    lives(
        &mut s,
        "jb",
        "jsonb",
        &[
            r#"'{"b": 1, "a": [1.50, null, "\"", {}], "": "é"}'"#,
            "'null'",
            "'1.00'",
            "'\"\\\\u0041\"'",
            "to_jsonb(repeat('x', 100000))",
            "'1e1000'",
        ],
    );
    lives(
        &mut s,
        "x",
        "xml",
        &[
            "xml '<a b=\"1\">t</a>'",
            "xmlparse(content 'text only')",
            "xmlparse(content '<a/><b/>')",
            "xmlparse(document '<!DOCTYPE a><a/>')",
            "xmlparse(document '<?xml version=\"1.0\" standalone=\"yes\"?><a/>')",
            "xmlparse(content '')",
            "xmlparse(content ' <a/> &amp; <![CDATA[<x>]]>')",
        ],
    );
    lives(
        &mut s,
        "jp",
        "jsonpath",
        &["'$'", r#"'strict $.a[*] ? (@.b > 1.50 && @ like_regex "x\"y" flag "i")'"#, r#"'$."k \" l"'"#],
    );
    lives(
        &mut s,
        "tv",
        "tsvector",
        &["''", "'a:1A b:2,3 ''q q'':16383D'", "to_tsvector('simple', 'it''s \\ a')", "strip('b a'::tsvector)"],
    );
    lives(&mut s, "tq", "tsquery", &["'a & !b | (c <2> d:*AB)'", "''", "'''x y'':A & ''q''''\\\\'''"]);
    s.assert_valid();
}

#[test]
fn times() {
    let db = database();
    let mut s = db.superuser();
    lives(
        &mut s,
        "d",
        "date",
        &[
            "'infinity'",
            "'-infinity'",
            "'4714-11-24 BC'",
            "'5874897-12-31'",
            "'0001-01-01'",
            "'0044-03-15 BC'",
            "'2024-02-29'",
        ],
    );
    let stamps = [
        "'infinity'",
        "'-infinity'",
        "'4713-01-01 00:00:00 BC'",
        "'4714-11-24 00:00:00 BC'",
        "'294276-12-31 23:59:59.999999'",
        "'0001-01-01 00:00:00.000001'",
        "'1969-12-31 23:59:59.999999'",
        "'2026-03-29 02:30:00'",
    ];
    lives(&mut s, "ts", "timestamp", &stamps);
    lives(&mut s, "ts0", "timestamp(0)", &["'2026-01-01 00:00:00.5'"]);
    let zoned: Vec<String> = stamps.iter().map(|v| format!("timestamp {v} AT TIME ZONE 'UTC'")).collect();
    let zoned: Vec<&str> = zoned.iter().map(String::as_str).collect();
    lives(
        &mut s,
        "tz",
        "timestamptz",
        &[&zoned[..], &["'1883-11-18 12:03:57 America/New_York'", "'2026-10-25 01:30:00 Europe/Berlin'"]].concat(),
    );
    lives(&mut s, "tm", "time", &["'00:00'", "'24:00'", "'23:59:59.999999'"]);
    lives(
        &mut s,
        "tmtz",
        "timetz",
        &["'00:00+15:59:59'", "'24:00-15:59:59'", "'12:34:56.789+05:30'", "'01:00-00:00:01'"],
    );
    lives(
        &mut s,
        "iv",
        "interval",
        &[
            "'0'",
            "'-1 year -2 mons +3 days -04:05:06.789'",
            "'1 year -1 mon'",
            "'-1 day +00:00:00.000001'",
            "'-00:00:00.000001'",
            "'178000000 years'",
            "'-178000000 years'",
            "'2147483647 days'",
            "'-2147483648 days'",
            "'1 mon -1 days'",
            "make_interval(hours => 2147483647)",
            "make_interval(months => -2147483648)",
            "'-9223372036854775807 us'",
            "'9223372036854775807 us'",
        ],
    );
    lives(&mut s, "ivs", "interval day to second(2)", &["'1 12:59:10.126'", "'-1 00:00:00.01'"]);
    s.assert_valid();
}

#[test]
fn compounds() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TYPE public.mood AS ENUM ('ok', 'not \"ok\"', ' ', 'a,b', '{}');
         CREATE DOMAIN public.pos AS pg_catalog.int4 CHECK (value > 0); CREATE DOMAIN public.words AS pg_catalog.text[] CHECK (pg_catalog.cardinality(value) < 9);
         CREATE DOMAIN public.posts AS public.pos[];
         CREATE TYPE public.pair AS (a pg_catalog.int4, b pg_catalog.text, c pg_catalog.float8, d pg_catalog.timestamptz, e pg_catalog.bytea, f pg_catalog.interval);
         CREATE TYPE public.\"Nest \"\"ed\" AS (p public.pair, ps public.pair[], m public.mood, r pg_catalog.tstzrange);
         CREATE TYPE public.float_range AS RANGE (subtype = pg_catalog.float8, subtype_diff = pg_catalog.float8mi);
         CREATE TABLE public.rowtype (x pg_catalog.int4, gone pg_catalog.text, y pg_catalog.date); ALTER TABLE public.rowtype DROP gone",
    );
    lives(&mut s, "m", "public.mood", &["'ok'", "'not \"ok\"'", "' '", "'a,b'", "'{}'"]);
    lives(&mut s, "dp", "public.pos", &["1", "2147483647"]);
    lives(&mut s, "dw", "public.words", &["'{}'", "'{a,NULL,\"NULL\",\"\"}'"]);
    lives(&mut s, "dps", "public.posts", &["'{1,2}'"]);
    lives(&mut s, "ma", "public.mood[]", &["ARRAY['ok', 'a,b', '{}', NULL, ' ']::public.mood[]"]);
    lives(
        &mut s,
        "ia",
        "integer[]",
        &["'{}'", "'{1,NULL,3}'", "'{{1,2},{3,4}}'", "'[-2:0]={1,2,3}'", "'[0:1][5:6]={{1,2},{3,NULL}}'"],
    );
    lives(
        &mut s,
        "ta",
        "text[]",
        &[
            r#"ARRAY['a,b', 'c"d', 'e\f', '', NULL, 'NULL', 'null', ' x ', '{}', E'\n\x01']"#,
            "array_fill('x'::text, ARRAY[2,2,2,2,2,2])",
        ],
    );
    lives(&mut s, "ba", "bytea[]", &["ARRAY['\\x00ff', '\\x5c']::bytea[]"]);
    lives(&mut s, "fa", "float8[]", &["'{-0,NaN,Infinity,1e-300,0.1}'"]);
    lives(&mut s, "tsa", "timestamptz[]", &["'{2026-01-01 00:00+00, infinity, 0044-03-15 00:00:00+00 BC}'"]);
    lives(&mut s, "iva", "interval[]", &["'{-1 year -2 mons +3 days -04:05:06,0}'"]);
    lives(&mut s, "vca", "varchar(3)[]", &["'{abc,a}'"]);
    let pair = r#"ROW(1, E'q"\\ (,) ''', '-0', '2026-01-01 00:00+00', '\x00ff', '-1 days')::public.pair"#;
    lives(
        &mut s,
        "co",
        "public.pair",
        &[
            pair,
            "ROW(NULL, NULL, NULL, NULL, NULL, NULL)::public.pair",
            "ROW(NULL, '', 'NaN', 'infinity', '', '0')::public.pair",
        ],
    );
    lives(&mut s, "coa", "public.pair[]", &[&format!("ARRAY[{pair}, NULL, {pair}]")]);
    lives(
        &mut s,
        "cn",
        "public.\"Nest \"\"ed\"",
        &[&format!("ROW({pair}, ARRAY[{pair}, NULL], 'not \"ok\"', '[2026-01-01 00:00+00,)')")],
    );
    lives(&mut s, "rt", "public.rowtype", &["ROW(1, '2026-01-02')", "ROW(NULL, 'infinity')"]);
    lives(&mut s, "r4", "int4range", &["'empty'", "'[1,5)'", "'(,)'", "'[,3]'"]);
    lives(&mut s, "rn", "numrange", &["'[1.0,1.00]'", "'(,Infinity)'", "'[-1.50,NaN]'"]);
    lives(&mut s, "rts", "tsrange", &["'[2026-01-01 01:02:03.4,infinity]'", "'(\"0044-03-15 00:00:00 BC\",)'"]);
    lives(&mut s, "rtz", "tstzrange", &["'[2026-01-01 00:00+00,2026-06-01 00:00+00)'"]);
    lives(&mut s, "rd", "daterange", &["'[2026-01-01,2026-01-31]'", "'(-infinity,infinity)'"]);
    lives(&mut s, "rf", "public.float_range", &["'[-0,0.1]'", "'(-Infinity,1e300)'"]);
    lives(
        &mut s,
        "mr",
        "tstzmultirange",
        &["'{}'", "'{[2026-01-01 00:00+00,2026-01-02 00:00+00),[2026-03-01 00:00+00,)}'"],
    );
    lives(&mut s, "mrf", "public.float_multirange", &["'{[-0,0.1],(1,2)}'"]);
    lives(&mut s, "mra", "int4multirange[]", &["ARRAY['{[1,2),[5,9)}', NULL, '{}']::int4multirange[]"]);
    s.assert_valid();
}

#[test]
fn everything_else() {
    let db = database();
    let mut s = db.superuser();
    lives(&mut s, "u", "uuid", &["'6BA7B810-9dad-11d1-80b4-00c04fd430c8'", "'00000000-0000-0000-0000-000000000000'"]);
    lives(&mut s, "bits", "bit varying", &["B''", "B'0'", "B'1'", "B'10101'", "repeat('01', 5000)::bit varying"]);
    lives(&mut s, "bit9", "bit(9)", &["B'000000001'", "B'111111111'"]);
    lives(&mut s, "ip", "inet", &["'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'::ffff:1.2.3.4/96'", "'0.0.0.0/0'"]);
    lives(&mut s, "cd", "cidr", &["'10.0.0.0/8'", "'10.0.0.1/32'", "'2001:db8::/32'", "'::1/128'"]);
    lives(&mut s, "mac", "macaddr", &["'08:00:2b:01:02:03'"]);
    lives(&mut s, "mac8", "macaddr8", &["'08:00:2b:01:02:03:04:05'"]);
    lives(&mut s, "pt", "point", &["'(-0,NaN)'", "'(0.1,1e-300)'", "'(Infinity,-Infinity)'"]);
    lives(&mut s, "ln", "line", &["'{1,-1,0.1}'"]);
    lives(&mut s, "ls", "lseg", &["'[(0.1,0.2),(-0,1e300)]'"]);
    lives(&mut s, "bx", "box", &["'(1,2),(0.1,-0)'"]);
    lives(&mut s, "pa", "path", &["'[(0,0),(0.1,1)]'", "'((0,0),(1,1e-5),(2,0))'"]);
    lives(&mut s, "pg", "polygon", &["'((0,0),(1,0.1),(2,-0))'"]);
    lives(&mut s, "ci", "circle", &["'<(0.1,0.2),1e-5>'"]);
    lives(&mut s, "bxa", "box[]", &["'{(1,1),(0,0);(2,2),(0.1,0)}'"]);
    lives(&mut s, "lsn", "pg_lsn", &["'0/0'", "'FFFFFFFF/FFFFFFFF'"]);
    lives(&mut s, "snap", "txid_snapshot", &["'10:20:10,14,15'"]);
    lives(&mut s, "snap2", "pg_snapshot", &["'10:20:10,14,15'", "'1:1:'"]);
    lives(&mut s, "x8", "xid8", &["'18446744073709551615'", "'0'"]);
    lives(&mut s, "xi", "xid", &["'4294967295'"]);
    lives(&mut s, "td", "tid", &["'(4294967295,65535)'"]);
    lives(&mut s, "ov", "oidvector", &["'1 2 3'", "''"]);
    lives(&mut s, "iv2", "int2vector", &["'1 2 -3'"]);
    lives(&mut s, "rfc", "refcursor", &["'<unnamed portal 1>'"]);
    lives(&mut s, "acl", "aclitem", &["'postgres=arwd/postgres'", "'=r/postgres'"]);
    s.batch(
        "RESET ALL; CREATE SCHEMA \"Odd \"\"one\"; CREATE TABLE \"Odd \"\"one\".\"T.a\" (i int4); CREATE FUNCTION \"Odd \"\"one\".f(int4, numeric) RETURNS int4 LANGUAGE sql AS 'SELECT 1';
         CREATE TYPE hostile.odd AS ENUM ('x')",
    );
    lives(&mut s, "rc", "regclass", &["'\"Odd \"\"one\".\"T.a\"'", "'pg_catalog.pg_class'", "'hostile.pg_class'"]);
    lives(
        &mut s,
        "rt",
        "regtype",
        &[
            "'hostile.text'",
            "'pg_catalog.text'",
            "'hostile.odd[]'",
            "'-'",
            "'pg_catalog.int4'",
            "'pg_catalog.\"char\"'",
            "'hostile.numeric'",
        ],
    );
    lives(&mut s, "rp", "regprocedure", &["'pg_catalog.abs(int4)'", "'\"Odd \"\"one\".f(int4, numeric)'", "'-'"]);
    lives(
        &mut s,
        "ro",
        "regoperator",
        &[
            "'pg_catalog.+(int4,int4)'",
            "'hostile.=(pg_catalog.text, pg_catalog.text)'",
            "'0'",
            "'pg_catalog.-(none,int4)'",
        ],
    );
    lives(&mut s, "rr", "regrole", &["'postgres'", "'-'", "'pg_monitor'"]);
    lives(&mut s, "rn", "regnamespace", &["'\"Odd \"\"one\"'", "'-'"]);
    lives(&mut s, "rcfg", "regconfig", &["'english'", "'-'"]);
    lives(&mut s, "rdic", "regdictionary", &["'simple'"]);
    lives(&mut s, "rcol", "regcollation", &["'\"C\"'"]);
    s.assert_valid();
}

#[test]
fn keys_are_found_as_the_log_writes_them() {
    let db = database();
    let mut s = db.superuser();
    for (kind, keys) in [
        (
            "float8",
            &["1e300", "1e-7", "'-0'", "'NaN'", "0.1", "1e15", "'-Infinity'", "4.9e-324", "9007199254740993"][..],
        ),
        ("float4", &["1e30", "1e-7", "'-0'", "0.1", "16777216"]),
        ("numeric", &["1e30", "1.00", "'NaN'", "1e-20", "'Infinity'"]),
        ("text", &["''", "E'\\x01\\x1f\\x7f\\b\\f\\n\\r\\t\"\\\\/'", "E'\\u2028\\U0001F600'", "'null'"]),
        ("timestamptz", &["'2026-01-01 00:00+00'", "'infinity'", "'0044-03-15 00:00+00 BC'"]),
        ("interval", &["'1 year -1 day'"]),
        ("boolean", &["true"]),
        ("bytea", &["'\\x00ff'"]),
        ("uuid", &["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'"]),
        ("int4range", &["'[1,5)'"]),
    ] {
        let table = format!("public.key_{kind}");
        s.batch(&format!("RESET ALL; CREATE TABLE {table} (\"k \"\"é\" {kind}, v int, PRIMARY KEY (v, \"k \"\"é\")); SELECT custody.audit('{table}')"));
        for key in keys {
            s.batch(&format!("INSERT INTO {table} VALUES ({key}, 1)"));
        }
        // As people read it, and as the record has it; whatever the session prints floats like.
        for digits in ["-15", "3"] {
            s.batch(&format!("SET extra_float_digits = {digits}"));
            for key in ["l.row_key", "e.row_key::jsonb"] {
                let found = s.count(&format!(
                    "custody.log l JOIN custody.entry e USING (tenant, incarnation, lane, seq), LATERAL custody.history('{table}', {key}) h
                     WHERE 'public.' || l.table_name = '{table}' AND h.seq = l.seq"
                ));
                assert_eq!(found, keys.len() as i64, "{kind} by {key} with {digits} digits");
            }
        }
    }
}

#[test]
fn a_type_of_ones_own_with_a_volatile_output_function() {
    let db = database();
    let mut s = db.superuser();
    s.batch(
        "CREATE TYPE public.own; CREATE FUNCTION public.own_in(cstring) RETURNS public.own LANGUAGE internal STRICT AS 'textin';
         CREATE FUNCTION public.own_out(public.own) RETURNS cstring LANGUAGE internal VOLATILE STRICT AS 'textout';
         CREATE FUNCTION public.own_send(public.own) RETURNS bytea LANGUAGE internal STRICT AS 'textsend';
         CREATE TYPE public.own (INPUT = public.own_in, OUTPUT = public.own_out, SEND = public.own_send, LIKE = pg_catalog.text)",
    );
    lives(&mut s, "of_own", "public.own", &["'x'", "''", "'\"'", "repeat('x', 100000)::public.own"]);
    lives(&mut s, "of_owns", "public.own[]", &["'{x,NULL}'"]);
    s.assert_valid();
}
