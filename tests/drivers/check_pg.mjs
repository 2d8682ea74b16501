// docs/connecting.md, node-postgres.
import assert from 'node:assert/strict'
import pg from 'pg'
import { withRetries, withTenant } from './tenant-pg.mjs'

const { TOKEN_A, TOKEN_B, TOKEN_BAD, PREPARED, PGHOST, PGPORT, PGDATABASE, PGUSER } = process.env
const tokens = { a: TOKEN_A, b: TOKEN_B }
const rows = { a: [['a', 1, 'Ada'], ['a', 2, 'Alan']], b: [['b', 1, 'Bo']] }
const pool = new pg.Pool({ host: PGHOST, port: Number(PGPORT), database: PGDATABASE, user: PGUSER, max: 2 })
const ok = (what) => console.log('ok', what)
const prepared = PREPARED === '1'
const text = 'SELECT tenant_id, id, name FROM clinic.patients WHERE id < 100 ORDER BY id'
// Named: prepared once on each connection. A pooler that does not know that gets no name.
const query = { text, rowMode: 'array', ...(prepared ? { name: 'own' } : {}) }
const own = async (client) => (await client.query(query)).rows
const nothingLeft = async () => {
  for (let i = 0; i < 4; i++) assert.deepEqual(await own(pool), [])
}

for (const tenant of ['a', 'b', 'a', 'b']) {
  assert.deepEqual(await withTenant(pool, tokens[tenant], own), rows[tenant])
}
ok('own rows only')
await nothingLeft()
ok('nothing after commit')
await assert.rejects(pool.query("UPDATE clinic.patients SET name = 'x'"), { code: 'UC001' })
ok('forgotten call')

await assert.rejects(withTenant(pool, TOKEN_A, async (client) => {
  await client.query('INSERT INTO clinic.patients (id) VALUES (50)')
  throw new Error('own')
}), { message: 'own' })
await assert.rejects(withTenant(pool, TOKEN_A, async (client) => {
  await client.query('INSERT INTO clinic.patients (id) VALUES (51)')
  await client.query('SELECT 1 / 0').catch(() => {})
}), /swallowed/)
await nothingLeft()
assert.deepEqual(await withTenant(pool, TOKEN_A, own), rows.a)
ok('nothing after rollback')

await withTenant(pool, TOKEN_A, async (client) => {
  await client.query('SAVEPOINT s')
  await client.query('INSERT INTO clinic.patients (id) VALUES (61)')
  await client.query('SELECT 1 / 0').catch(() => {})
  await client.query('ROLLBACK TO s')
  assert.deepEqual(await own(client), rows.a)
})
ok('savepoints')

await assert.rejects(withTenant(pool, TOKEN_BAD, own), { code: 'UC004' })
await assert.rejects(withTenant(pool, TOKEN_A, (client) => client.query('SELECT custody.authenticate($1)', [TOKEN_B])), { code: 'UC003' })
await nothingLeft()
// A connection lost in mid-transaction is not given back.
await assert.rejects(withTenant(pool, TOKEN_A, (client) => new Promise((_, reject) => {
  client.on('error', () => {})
  client.connection.stream.destroy()
  client.query('SELECT 1').catch(reject)
})))
await nothingLeft()
ok('errors')

let attempts = 0
await withRetries(pool, TOKEN_A, async (client) => {
  attempts++
  assert.deepEqual(await own(client), rows.a)
  if (attempts === 1) {
    await withTenant(pool, TOKEN_A, (second) => second.query("UPDATE clinic.patients SET notes = 'first' WHERE id = 1"))
  }
  await client.query("UPDATE clinic.patients SET notes = 'second' WHERE id = 1")
}, { begin: 'BEGIN ISOLATION LEVEL SERIALIZABLE' })
assert.equal(attempts, 2)
ok('retry')

const served = {}
await Promise.all([...Array(8).keys()].map(async (number) => {
  const tenant = 'ab'[number % 2]
  for (let i = 0; i < 20; i++) {
    await withTenant(pool, tokens[tenant], async (client) => {
      await client.query('INSERT INTO clinic.patients (id, name) VALUES ($1, $2)', [1000 + number * 100 + i, tenant])
      const { rows: [{ pid }] } = await client.query('SELECT pg_backend_pid() AS pid')
      served[pid] = (served[pid] ?? new Set()).add(tenant)
      const seen = await client.query({ text: 'SELECT DISTINCT tenant_id, name FROM clinic.patients WHERE id >= $1', values: [1000], rowMode: 'array', ...(prepared ? { name: 'seen' } : {}) })
      assert.deepEqual(seen.rows, [[tenant, tenant]])
    })
  }
}))
assert(Object.values(served).some((tenants) => tenants.size === 2), 'no connection served both')
for (const token of Object.values(tokens)) {
  await withTenant(pool, token, async (client) => {
    const { rows: [{ n }] } = await client.query('SELECT count(*)::int AS n FROM clinic.patients WHERE id >= 1000')
    assert.equal(n, 80)
    await client.query('DELETE FROM clinic.patients WHERE id >= 1000')
  })
}
ok('tasks')
await pool.end()
