/** A file system that is really full, on a tiny tmpfs: needs the right to mount one. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { NoRoom } from '../../src/errors.ts'
import { PackFile, PackWriter, readPackIndex } from '../../src/store/pack.ts'
import { temporaryDirectory } from '../support/trees.ts'

const MB = 2 ** 20

test('a pack writer that meets a full disk asks for room and goes on where it was', async (t) => {
  const directory = temporaryDirectory()
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', directory.path]).status === 0
  if (!mounted) {
    directory.remove()
    t.skip('no right to mount a tmpfs')
    return
  }
  try {
    const ballast = join(directory.path, 'ballast')
    writeFileSync(ballast, Buffer.alloc(4 * MB))
    let asked = 0
    const path = join(directory.path, 'pack')
    const writer = new PackWriter(path, () => {
      asked++
      rmSync(ballast)
      return true
    })
    const blob = Buffer.alloc(6 * MB, 'abc')
    writer.begin()
    for (let at = 0; at < blob.length; at += 3 * MB) writer.append(blob.subarray(at, at + 3 * MB))
    writer.keep(createHash('sha256').update(blob).digest())
    writer.seal()
    assert.equal(asked, 1)
    assert.equal((await readPackIndex(path)).length(0), blob.length)
    const file = new PackFile(path)
    await file.acquire()
    const read = Buffer.alloc(blob.length)
    await file.read([read], 16)
    file.release()
    file.retire()
    assert.ok(read.equals(blob))

    const refused = new PackWriter(join(directory.path, 'other'), () => false)
    assert.throws(() => refused.append(Buffer.alloc(4 * MB)), NoRoom)
    refused.close()
  } finally {
    spawnSync('umount', ['-l', directory.path])
    directory.remove()
  }
})
