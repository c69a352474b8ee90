/** The disk in memory does what the real one does, call by call; and forgets what a real one may forget. */
import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { type Disk, realDisk } from '../../src/lib/disk.ts'
import { MemoryDisk } from './memory-disk.ts'
import { FATES, fateLacking } from './power-cut.ts'
import { fc } from './property.ts'
import { temporaryDirectory } from './trees.ts'

const PATHS = ['a', 'b', 'd', 'd/a', 'd/e', 'd/e/a', 'missing/a'] as const
const path = fc.constantFrom(...PATHS)
const call = fc.oneof(
  fc.record({ name: fc.constantFrom('mkdir', 'unlink', 'rmdir', 'readdir', 'stat', 'readFile'), path }),
  fc.record({ name: fc.constant('rename' as const), path, to: path }),
  fc.record({
    name: fc.constant('write' as const),
    path,
    flags: fc.constantFrom('r', 'r+', 'w', 'w+', 'wx', 'a'),
    text: fc.string({ maxLength: 5 }),
    at: fc.nat(8),
    length: fc.nat(12),
  }),
)

/** What a call gives: its result, or the code of its error. */
async function outcome(
  disk: Disk,
  root: string,
  what: typeof call extends fc.Arbitrary<infer C> ? C : never,
) {
  const at = join(root, what.path)
  try {
    switch (what.name) {
      case 'mkdir':
        return await disk.mkdir(at, 0o700)
      case 'unlink':
        return await disk.unlink(at)
      case 'rmdir':
        return await disk.rmdir(at)
      case 'readdir':
        return (await disk.readdir(at)).sort()
      case 'stat': {
        const stats = await disk.stat(at)
        return stats.isDirectory() ? 'a directory' : stats.size
      }
      case 'readFile':
        return (await disk.readFile(at)).toString('latin1')
      case 'rename':
        return await disk.rename(at, join(root, what.to))
      case 'write': {
        const file = await disk.open(at, what.flags)
        try {
          const bytes = Buffer.from(what.text, 'latin1')
          // Where O_APPEND writes is the kernel's business: nobody here writes at a position then.
          if (what.flags !== 'a') await file.write(bytes, 0, bytes.length, what.at)
          if (what.flags !== 'r') await file.truncate(what.length)
          await file.sync('test')
          const read = Buffer.alloc(20)
          return what.flags === 'w+' || what.flags === 'r+'
            ? [(await file.read(read, 0, 20, 0)).bytesRead, read.toString('latin1')]
            : 'written'
        } finally {
          await file.close()
        }
      }
    }
  } catch (error) {
    return (error as NodeJS.ErrnoException).code
  }
}

test('the disk in memory answers as the real one does', async () => {
  const directory = temporaryDirectory()
  let runs = 0
  try {
    await fc.assert(
      fc.asyncProperty(fc.array(call, { maxLength: 40, size: 'max' }), async (calls) => {
        const memory = new MemoryDisk()
        await memory.mkdir('/root')
        const root = join(directory.path, String(runs++))
        mkdirSync(root)
        for (const what of calls) {
          const [expected, found] = [
            await outcome(realDisk, root, what),
            await outcome(memory, '/root', what),
          ]
          assert.deepEqual(found, expected, JSON.stringify(what))
        }
      }),
      { numRuns: 60 },
    )
  } finally {
    directory.remove()
  }
})

async function write(disk: Disk, path: string, text: string, { sync = false } = {}): Promise<void> {
  const file = await disk.open(path, 'w')
  await file.writeFile(Buffer.from(text))
  if (sync) await file.sync('test')
  await file.close()
}

async function syncNames(disk: Disk, path: string): Promise<void> {
  const directory = await disk.open(path, 'r')
  await directory.sync('test')
  await directory.close()
}

const [LOST, KEPT, NO_BYTES] = FATES
const textOf = async (disk: Disk, path: string): Promise<string | undefined> =>
  await disk.readFile(path).then(String, () => undefined)

test('a power cut forgets names until their directory is synced, and bytes until their file is', async () => {
  const disk = new MemoryDisk()
  await write(disk, '/file', 'text', { sync: true })
  assert.equal(await textOf(disk.afterPowerCut(LOST!), '/file'), undefined)
  assert.equal(await textOf(disk.afterPowerCut(KEPT!), '/file'), 'text')
  await syncNames(disk, '/')
  assert.equal(await textOf(disk.afterPowerCut(LOST!), '/file'), 'text')
  await write(disk, '/file', 'another')
  assert.equal(await textOf(disk.afterPowerCut(NO_BYTES!), '/file'), 'text')
  assert.equal(await textOf(disk.killed(), '/file'), 'another', 'a killed process loses nothing')
})

test('a rename is atomic, and what it follows on the same name survives with it', async () => {
  const disk = new MemoryDisk()
  for (const directory of ['/from', '/to']) await disk.mkdir(directory)
  await syncNames(disk, '/')
  await write(disk, '/from/file', 'text', { sync: true })
  await disk.rename('/from/file', '/to/file')
  await syncNames(disk, '/to')
  const after = disk.afterPowerCut(LOST!)
  assert.deepEqual([await after.readdir('/from'), await after.readdir('/to')], [[], ['file']])
  await disk.rename('/to/file', '/from/file')
  await disk.unlink('/from/file')
  const lacking = disk.afterPowerCut(fateLacking(1))
  assert.deepEqual(await lacking.readdir('/to'), ['file'], 'the unlink comes after the rename')
})

test('a lock lasts until it is closed, or its process dies', async () => {
  const disk = new MemoryDisk()
  const [first, second] = [disk.now.open('/lock', 'rwc', 0o600), disk.now.open('/lock', 'rwc', 0o600)]
  assert.deepEqual([disk.now.lock(first), disk.now.lock(second), disk.now.lock(first)], [true, false, true])
  disk.now.close(first)
  assert.equal(disk.now.lock(second), true)
  disk.kill()
  assert.equal(disk.now.lock(disk.now.open('/lock', 'rwc', 0o600)), true)
})
