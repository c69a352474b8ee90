/** Recorded conversations of the real client, of every protocol: the server's bytes must not change. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { toHex } from './support/hex.ts'
import { PROTOCOLS } from './support/rsync.ts'
import { replay, VECTOR_CASES, VECTORS, vectorTrees } from './support/vectors.ts'

const trees = vectorTrees()
after(() => {
  for (const tree of Object.values(trees)) tree.close()
})

for (const protocol of PROTOCOLS) {
  for (const { name, since = 0 } of VECTOR_CASES) {
    if (protocol < since) continue
    test(`replay at ${protocol}: ${name}`, async () => {
      const recorded = (side: string): Buffer =>
        readFileSync(join(VECTORS, String(protocol), `${name}.${side}`))
      const [expected, actual] = [recorded('server'), await replay(trees, recorded('client'))]
      if (expected.equals(actual)) return
      let at = 0
      while (at < expected.length && expected[at] === actual[at]) at++
      assert.fail(
        `the server's bytes differ from byte ${at} of ${expected.length} on:\n` +
          `  recorded ${toHex(expected.subarray(at, at + 24))}\n  now      ${toHex(actual.subarray(at, at + 24))}\n` +
          'If that is meant, record them anew: script/vectors',
      )
    })
  }
}
