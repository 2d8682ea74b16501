// docs/connecting.md, JDBC.
import java.sql.Connection;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.ds.PGSimpleDataSource;

public final class CheckJdbc {
    static final Map<String, String> TOKENS = Map.of("a", System.getenv("TOKEN_A"), "b", System.getenv("TOKEN_B"));
    static final Map<String, String> ROWS = Map.of("a", "[a 1 Ada, a 2 Alan]", "b", "[b 1 Bo]");

    static void ok(String what) {
        System.out.println("ok " + what);
    }

    static void same(Object left, Object right) {
        if (!left.equals(right)) throw new AssertionError(left + " is not " + right);
    }

    static void fails(String sqlstate, Callable<?> work) throws Exception {
        try {
            work.call();
        } catch (SQLException error) {
            same(error.getSQLState(), sqlstate);
            return;
        }
        throw new AssertionError(sqlstate + " was to come");
    }

    static String own(Connection connection) throws SQLException {
        List<String> rows = new ArrayList<>();
        try (var statement = connection.prepareStatement("SELECT tenant_id, id, name FROM clinic.patients WHERE id < ? ORDER BY id")) {
            statement.setInt(1, 100);
            ResultSet result = statement.executeQuery();
            while (result.next()) rows.add(result.getString(1) + " " + result.getInt(2) + " " + result.getString(3));
        }
        return rows.toString();
    }

    static int run(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            return statement.executeUpdate(sql);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var source = new PGSimpleDataSource();
        source.setServerNames(new String[] {"127.0.0.1"});
        source.setPortNumbers(new int[] {Integer.parseInt(System.getenv("PGPORT"))});
        source.setDatabaseName(System.getenv("PGDATABASE"));
        source.setUser(System.getenv("PGUSER"));
        // From the second execution of a statement on, or never.
        source.setPrepareThreshold(System.getenv("PREPARED").equals("1") ? 1 : 0);

        for (String tenant : List.of("a", "b", "a")) {
            same(Tenants.asTenant(source, TOKENS.get(tenant), CheckJdbc::own), ROWS.get(tenant));
        }
        ok("own rows only");
        try (Connection connection = source.getConnection()) {
            same(own(connection), "[]");
            ok("nothing after commit");
            fails("UC001", () -> run(connection, "UPDATE clinic.patients SET name = 'x'"));
            ok("forgotten call");
        }
        fails("22012", () -> Tenants.asTenant(source, TOKENS.get("a"), connection -> {
            run(connection, "INSERT INTO clinic.patients (id) VALUES (50)");
            return run(connection, "UPDATE clinic.patients SET id = 1 / 0");
        }));
        same(Tenants.asTenant(source, TOKENS.get("a"), CheckJdbc::own), ROWS.get("a"));
        ok("nothing after rollback");
        same(Tenants.asTenant(source, TOKENS.get("a"), connection -> {
            Savepoint savepoint = connection.setSavepoint();
            run(connection, "INSERT INTO clinic.patients (id) VALUES (61)");
            connection.rollback(savepoint);
            return own(connection);
        }), ROWS.get("a"));
        ok("savepoints");
        fails("UC004", () -> Tenants.asTenant(source, System.getenv("TOKEN_BAD"), CheckJdbc::own));
        ok("errors");
        ExecutorService threads = Executors.newFixedThreadPool(8);
        List<Future<?>> all = new ArrayList<>();
        for (int number = 0; number < 8; number++) {
            String tenant = number % 2 == 0 ? "a" : "b";
            all.add(threads.submit(() -> {
                for (int i = 0; i < 20; i++) {
                    same(Tenants.asTenant(source, TOKENS.get(tenant), connection -> own(connection) + own(connection)), ROWS.get(tenant) + ROWS.get(tenant));
                }
                return null;
            }));
        }
        for (Future<?> one : all) one.get();
        threads.shutdown();
        ok("threads");
    }
}
