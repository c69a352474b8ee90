/** A server that takes long over a search: the real client, with --timeout, hears that it is alive. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Derived } from '../../src/rsync/derived.ts'
import { MemoryTree } from '../support/memory-tree.ts'
import { PROTOCOLS, rsyncEnds } from '../support/rsync.ts'
import { makeScratch } from '../support/scratch.ts'
import { listen, memoryKept, SEED, sessionContext } from '../support/session.ts'
import { randomBytes } from '../support/tree.ts'

const TIMEOUT_S = 3
const SEARCH_MS = 7000

/** As on a machine that is busy with others' searches. */
class SlowDerived extends Derived {
  override async delta(...args: Parameters<Derived['delta']>): ReturnType<Derived['delta']> {
    await sleep(SEARCH_MS)
    return super.delta(...args)
  }
}

describe('a search that takes longer than the timeout of the client', { concurrency: 6 }, () => {
  for (const protocol of PROTOCOLS) {
    test(`protocol ${protocol}: empty frames keep it waiting`, async () => {
      using scratch = makeScratch('timeouts')
      const old = randomBytes(1, 100_000)
      const data = Buffer.concat([old, Buffer.from('more')])
      const tree = new MemoryTree({ mode: 0o040755, children: { big: { mode: 0o100644, data } } })
      const derived = new SlowDerived({ kept: memoryKept(), checksumSeed: SEED })
      const context = sessionContext({ m: tree }, { derived, now: () => performance.now() })
      await using port = await listen(context)
      writeFileSync(join(scratch.path, 'big'), old)
      const args = ['-a', '-I', `--timeout=${TIMEOUT_S}`, `rsync://127.0.0.1:${port.port}/m/`, scratch.path]
      const { milliseconds } = await rsyncEnds(0, args, { protocol })
      assert.ok(milliseconds > SEARCH_MS, 'there was nothing to wait for')
      assert.deepEqual(readFileSync(join(scratch.path, 'big')), data)
      await derived.close()
      tree.close()
    })
  }
})
