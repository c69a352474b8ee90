/**
 * The download that is kept for a later start, on a disk that fails and through power cuts: what it says
 * that it holds are the first bytes of the file that it says they are of, or it holds nothing.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Disk } from '../../src/lib/disk.ts'
import { Spool, type SpoolKey } from '../../src/source/spool.ts'
import { MemoryDisk } from '../support/memory-disk.ts'
import { BrokenPromise, cutPower, FATES, fateLacking, momentsOf, randomFate } from '../support/power-cut.ts'
import { WatchedDisk } from '../support/watched-disk.ts'

const DIRECTORY = '/802.spool'
const URL = 'http://upstream/802.tar'
const SIZE = 100
const RANDOM_FATES = 20
/** There are never more changes of names that are not synced yet. */
const MOST_CHANGES = 12

/** Two versions of the file behind one URL: they differ in every byte. */
const VERSIONS = ['"old"', '"new"'].map((etag, i) => ({
  key: { url: URL, version: { etag, lastModified: undefined, size: SIZE } } satisfies SpoolKey,
  bytes: Buffer.from(Array.from({ length: SIZE }, (_, at) => 2 * at + i)),
}))
const [OLD, NEW] = VERSIONS

/** Bytes of the old and of the new version that a power cut must not take: at most one is not 0. */
type Promised = readonly [old: number, new: number]

/** A download breaks off, goes on, is left to a later process, and starts over since the file is another. */
async function download(
  disk: Disk,
  machine: MemoryDisk,
  promise: (...promised: Promised) => void = () => {},
): Promise<void> {
  const first = new Spool(DIRECTORY, disk)
  await first.open(OLD!.key)
  await first.append(OLD!.bytes.subarray(0, 30))
  await first.append(OLD!.bytes.subarray(30, 50))
  await first.close()
  promise(50, 0)
  const second = new Spool(DIRECTORY, disk)
  const held = await second.open(OLD!.key)
  await second.append(OLD!.bytes.subarray(held, 80))
  // Killed: whoever comes next counts on bytes that nobody synced.
  machine.kill()
  const next = new Spool(DIRECTORY, disk)
  await next.open(OLD!.key)
  machine.kill()
  promise(0, 0)
  const third = new Spool(DIRECTORY, disk)
  await third.open(NEW!.key)
  await third.append(NEW!.bytes.subarray(0, 60))
  await third.close()
  promise(0, 60)
  const fourth = new Spool(DIRECTORY, disk)
  const heldOfNew = await fourth.open(NEW!.key)
  await fourth.append(NEW!.bytes.subarray(heldOfNew, 90))
  await fourth.close()
  promise(0, 0)
  await fourth.discard()
}

/** Whatever it holds can be gone on from, and it holds what it must. */
async function assertHonest(disk: Disk, promised: Promised = [0, 0]): Promise<void> {
  const held = await new Spool(DIRECTORY, disk).held(URL)
  const version = VERSIONS.findIndex(({ key }) => key.version.etag === held?.version.etag)
  for (const [i, bytes] of promised.entries()) {
    if (bytes > 0) assert.ok(held && version === i && held.bytes >= bytes, `${bytes} bytes are lost`)
  }
  if (!held) return
  const { key, bytes } = VERSIONS[version]!
  const spool = new Spool(DIRECTORY, disk)
  const kept = await spool.open(key)
  assert.ok(kept <= held.bytes)
  const prefix = Buffer.concat(await Array.fromAsync(spool.prefix()))
  assert.ok(prefix.equals(bytes.subarray(0, kept)), `${kept} bytes of ${held.version.etag} are wrong`)
  await spool.append(bytes.subarray(kept))
  assert.ok(Buffer.concat(await Array.fromAsync(spool.prefix())).equals(bytes))
  await spool.close()
}

async function momentsOfDownload(without?: string) {
  let promised: Promised = [0, 0]
  const promise = (...now: Promised): void => {
    promised = now
  }
  return await momentsOf(
    (watched, machine) => download(watched, machine, promise),
    () => promised,
    without === undefined ? {} : { without },
  )
}

const allFates = [
  ...FATES,
  ...Array.from({ length: MOST_CHANGES }, (_, change) => fateLacking(change)),
  ...Array.from({ length: RANDOM_FATES }, (_, seed) => randomFate(seed)),
]

test('spool: a power cut at every call costs what was not synced, and never leaves wrong bytes', async () => {
  const { moments } = await momentsOfDownload()
  assert.ok(moments.length > 30)
  assert.ok((await cutPower(moments, () => allFates, assertHonest)) > 30)
})

test('spool: no fsync can be left out', async (t) => {
  const { calls } = await momentsOfDownload()
  const reasons = new Set(calls.filter(({ name }) => name === 'sync').map(({ why }) => why!))
  assert.ok(reasons.size > 0)
  for (const why of reasons) {
    const { moments } = await momentsOfDownload(why)
    const found = await cutPower(moments, () => allFates, assertHonest).catch((error: Error) => error)
    assert.ok(found instanceof BrokenPromise, `nothing breaks without the fsync of "${why}"`)
    t.diagnostic(`without "${why}": ${found.message}`)
  }
})

test('spool: a disk that fails at any call leaves nothing that is wrong, and nothing open', async () => {
  for (let at = 0, calls = at + 1; at < calls; at++) {
    for (const afterwards of [false, true]) {
      const disk = new MemoryDisk()
      calls = 0
      const failing = new WatchedDisk(disk, () => (calls++ === at ? { fails: 'EIO', afterwards } : undefined))
      await download(failing, disk).catch(() => {})
      await assertHonest(disk.killed())
      for (const fate of FATES) await assertHonest(disk.afterPowerCut(fate))
    }
  }
})
