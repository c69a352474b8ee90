/** Kept digests take part in the budget: they are counted, and go before any build does. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { pino } from 'pino'
import { loadConfig } from '../../src/config/config.ts'
import { Upserv } from '../../src/server.ts'
import { publishBuild, temporaryDirectory } from '../support/trees.ts'

const DIGESTS = 3000
/** 16 bytes of key, 8 of digest, 4 of CRC, and the header. */
const FILE_BYTES = 16 + DIGESTS * 28

test('a budget that was lowered takes the digests first, and leaves the build', async () => {
  const { path, remove } = temporaryDirectory()
  const open = (budget: number): Promise<Upserv> =>
    Upserv.open(loadConfig({ data: path, budget: String(budget) }, {}), pino({ level: 'silent' }))
  try {
    let upserv = await open(1e9)
    await publishBuild(upserv.store, '802', [{ path: 'file', content: 'x'.repeat(200_000) }])
    const bare = (await upserv.operations.status()).usedBytes
    await upserv.digests.get('xxh3', 8, '')
    for (let i = 0; i < DIGESTS; i++) upserv.digests.put('xxh3', `key ${i}`, Buffer.alloc(8, i))
    await upserv.digests.flush()
    assert.equal((await upserv.operations.status()).usedBytes, bare + FILE_BYTES)
    await upserv.close()

    upserv = await open(1e9)
    assert.equal((await upserv.operations.status()).usedBytes, bare + FILE_BYTES, 'after a restart, unread')
    await upserv.tidy()
    assert.ok(existsSync(upserv.store.paths.digests), 'a budget that is kept takes nothing')
    await upserv.close()

    upserv = await open(bare + FILE_BYTES - 1)
    await upserv.tidy()
    assert.ok(!existsSync(upserv.store.paths.digests))
    assert.deepEqual(upserv.store.ids(), ['802'])
    assert.equal((await upserv.operations.status()).usedBytes, bare)
    // And none is written any more where there is no room for it.
    await upserv.digests.get('sha1', 20, '')
    for (let i = 0; i < DIGESTS; i++) upserv.digests.put('sha1', `key ${i}`, Buffer.alloc(20, i))
    await upserv.digests.flush()
    assert.equal((await upserv.operations.status()).usedBytes, bare)
    await upserv.close()
  } finally {
    remove()
  }
})
