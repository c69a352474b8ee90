import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import fs, { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { openFilesBelow } from '../../test/support/open-files.ts'
import { NoRoom, StoreError } from '../errors.ts'
import { PACK_LIMIT, PACK_MAX_BLOBS, PackFile, PackWriter, readPackIndex } from './pack.ts'

const scratch = mkdtempSync(join(tmpdir(), 'upserv-pack-'))
after(() => rmSync(scratch, { recursive: true }))
let files = 0
const newPath = () => join(scratch, `${files++}.pack`)
const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest()

function writePack(path: string, blobs: Uint8Array[]) {
  const writer = new PackWriter(path)
  for (const blob of blobs) {
    writer.begin()
    writer.append(blob)
    writer.keep(sha256(blob))
  }
  return writer.seal()
}

const MB = 2 ** 20
const CASES = [
  { name: 'no blob', blobs: [] },
  { name: 'one', blobs: [Buffer.from('hello')] },
  { name: 'an empty one between others', blobs: [Buffer.from('a'), Buffer.alloc(0), Buffer.from('b')] },
  {
    name: 'as large as the write buffer',
    blobs: [Buffer.alloc(MB, 1), Buffer.alloc(MB - 16, 2), Buffer.from('x')],
  },
  {
    name: 'larger than the write buffer',
    blobs: [Buffer.from('y'), Buffer.alloc(3 * MB + 5, 3), Buffer.from('z')],
  },
]
for (const { name, blobs } of CASES) {
  test(`pack: ${name}`, async () => {
    const path = newPath()
    const { size, count } = writePack(path, blobs)
    assert.equal(count, blobs.length)
    assert.equal(size, readFileSync(path).length)
    const index = await readPackIndex(path)
    assert.equal(index.count, blobs.length)
    assert.equal(index.fileSize, size)
    const file = new PackFile(path)
    await file.acquire()
    for (const [i, blob] of blobs.entries()) {
      assert.deepEqual(Buffer.from(index.digest(i)), sha256(blob))
      assert.equal(index.length(i), blob.length)
      const half = blob.length >>> 1
      const read = [Buffer.alloc(half), Buffer.alloc(blob.length - half)]
      await file.read(read, index.offset(i))
      assert.ok(Buffer.concat(read).equals(blob))
    }
    file.release()
    file.rest()
  })
}

for (const size of [5, MB - 30, MB, 4 * MB]) {
  test(`pack: a dropped blob of ${size} bytes leaves no trace`, () => {
    const [dropped, plain] = [newPath(), newPath()]
    const writer = new PackWriter(dropped)
    for (const [content, keep] of [
      ['a', true],
      ['b'.repeat(size), false],
      ['c', true],
      ['d'.repeat(size), false],
    ] as const) {
      writer.begin()
      writer.append(Buffer.from(content))
      if (keep) writer.keep(sha256(Buffer.from(content)))
      else writer.drop()
    }
    writer.seal()
    writePack(plain, [Buffer.from('a'), Buffer.from('c')])
    assert.ok(readFileSync(dropped).equals(readFileSync(plain)))
  })
}

test('pack: cut anywhere, it is refused', async () => {
  const path = newPath()
  writePack(path, [Buffer.from('hello'), Buffer.from('world')])
  const whole = readFileSync(path)
  for (let length = 0; length < whole.length; length++) {
    writeFileSync(path, whole.subarray(0, length))
    await assert.rejects(readPackIndex(path), StoreError, `cut at ${length}`)
  }
})

test('pack: a flipped bit outside the blobs is noticed', async () => {
  const path = newPath()
  writePack(path, [Buffer.from('hello'), Buffer.from('world')])
  const whole = readFileSync(path)
  for (let at = 0; at < whole.length; at++) {
    if (at >= 16 && at < 26) continue // the blobs themselves: their digests are checked elsewhere
    for (const bit of [1, 128]) {
      const damaged = Buffer.from(whole)
      damaged[at]! ^= bit
      writeFileSync(path, damaged)
      await assert.rejects(readPackIndex(path), StoreError, `byte ${at}`)
    }
  }
})

test('pack: a reader that is in use survives unlink and retirement', async () => {
  const path = newPath()
  writePack(path, [Buffer.from('hello')])
  const file = new PackFile(path)
  await file.acquire()
  rmSync(path)
  file.retire()
  const content = Buffer.alloc(5)
  await file.read([content], 16)
  assert.equal(content.toString(), 'hello')
  file.release()
  assert.equal(file.isOpen, false)
})

test('pack: it ends at its size or its number of blobs, but takes one blob however large', () => {
  const writer = new PackWriter(newPath())
  assert.equal(writer.takes(2 * PACK_LIMIT), true)
  const digest = Buffer.alloc(32)
  for (let i = 0; i < PACK_MAX_BLOBS; i++) {
    assert.equal(writer.takes(1), true)
    writer.begin()
    writer.append(Buffer.from('x'))
    writer.keep(digest)
  }
  assert.equal(writer.takes(1), false)
  writer.close()
  const other = new PackWriter(newPath())
  other.begin()
  other.append(Buffer.from('x'))
  other.keep(digest)
  assert.equal(other.takes(PACK_LIMIT - 100), true)
  assert.equal(other.takes(PACK_LIMIT), false)
  other.close()
})

test('pack: room that does not help is asked for twice, then the writer gives up with NoRoom', (t) => {
  let asked = 0
  const writer = new PackWriter(newPath(), () => {
    asked++
    return true
  })
  t.mock.method(fs, 'writeSync', () => {
    throw Object.assign(new Error('EDQUOT: quota'), { code: 'EDQUOT', syscall: 'write' })
  })
  syncBuiltinESMExports()
  try {
    assert.throws(() => writer.append(Buffer.alloc(2 * MB)), NoRoom)
    assert.equal(asked, 2)
  } finally {
    t.mock.restoreAll()
    syncBuiltinESMExports()
    writer.close()
  }
})

test('pack: one failed opening does not lose the file that another reader opened since', async () => {
  const path = newPath()
  const file = new PackFile(path)
  const first = file.acquire()
  const second = file.acquire()
  // The first to learn of the failure tries again at once, before the second one has learned of it.
  const retried = first.catch(() => {
    writePack(path, [Buffer.from('hello')])
    return file.acquire()
  })
  await assert.rejects(second, { code: 'ENOENT' })
  await retried
  assert.equal(file.isOpen, true)
  file.release()
  file.rest()
  assert.equal(file.isOpen, false)
  // It is closed in a thread.
  for (let tries = 0; openFilesBelow(scratch).includes(path); tries++) {
    assert.ok(tries < 1000, 'it stays open')
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
})
