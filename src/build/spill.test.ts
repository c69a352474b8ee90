import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { NoRoom } from '../errors.ts'
import { type DiskNow, realDisk } from '../lib/disk.ts'
import { spillTo } from './spill.ts'

/** A disk on which these writes fail so, one after the other; `asked` is how often room was asked for. */
function setUp(t: TestContext, failures: readonly string[]) {
  const directory = mkdtempSync(join(tmpdir(), 'spill-'))
  t.after(() => rmSync(directory, { recursive: true }))
  const left = [...failures]
  const disk: DiskNow = {
    ...realDisk.now,
    write: (...args) => {
      const code = left.shift()
      if (code === undefined) return realDisk.now.write(...args)
      throw Object.assign(new Error(`${code}: no room`), { code, syscall: 'write' })
    },
  }
  const world = { asked: 0, claimed: 0 }
  const room = {
    claim: (bytes: number): void => {
      world.claimed += bytes
    },
    giveBack: (bytes: number): void => {
      world.claimed -= bytes
    },
    diskFull: (): boolean => {
      world.asked++
      return true
    },
  }
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield Buffer.from('one archive, ')
    yield Buffer.from('in two pieces')
  }
  return { directory, world, spill: () => spillTo(directory, chunks(), room, disk) }
}

for (const code of ['ENOSPC', 'EDQUOT']) {
  test(`an archive that is put aside goes on when room was made (${code})`, async (t) => {
    const { directory, world, spill } = setUp(t, [code, code])
    {
      await using file = await spill()
      assert.equal(Buffer.from(file.read(0, 100)).toString(), 'one archive, in two pieces')
      assert.deepEqual(world, { asked: 2, claimed: 26 })
    }
    assert.deepEqual(readdirSync(directory), [])
    assert.equal(world.claimed, 0)
  })

  test(`room that does not help costs an archive no more than two builds (${code})`, async (t) => {
    const { directory, world, spill } = setUp(t, Array(100).fill(code))
    await assert.rejects(spill(), NoRoom)
    assert.equal(world.asked, 2)
    assert.deepEqual(readdirSync(directory), [])
  })
}
