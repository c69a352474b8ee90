/**
 * The disk under a running server: full at any stage, read-only, gone, put back, replaced; and no file that
 * could be opened any more. Whoever asks hears why; what is held is served as long as it can be read; and when the cause is gone everything works again,
 * without a restart. Needs the right to mount a tmpfs.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { closeSync, mkdirSync, openSync, readdirSync, renameSync, rmSync, writeSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildsOnDisk, bytesOnDisk, Mirror } from '../support/mirror.ts'
import { rsync } from '../support/rsync.ts'
import { randomBytes, SpecWriter, type TreeSpec } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const MB = 2 ** 20
/** The server keeps 64 MB of it free, and that much more is for builds. */
const DISK = 96 * MB
const FILE_BYTES = MB
const LOOK_EVERY_MS = 5
/** More than a fetch has open at a time: its thread's own, its connection, spool, packs and a session's. */
const FETCH_FILES = 40

function tree(seed: number): TreeSpec {
  const spec = new SpecWriter()
  spec.directory('')
  for (let i = 0; i < 6; i++) spec.file(`file-${i}`, randomBytes(seed * 10 + i, FILE_BYTES))
  return spec.spec
}

/** A mirror of three builds whose data directory is a small disk of its own; undefined without the right. */
async function smallDisk(t: TestContext, rate?: string): Promise<Mirror | undefined> {
  const mirror = new Mirror()
  mkdirSync(mirror.data)
  const mount = ['-t', 'tmpfs', '-o', `size=${DISK}`, 'tmpfs', mirror.data]
  if (spawnSync('mount', mount).status !== 0) {
    await mirror[Symbol.asyncDispose]()
    t.skip('no right to mount a tmpfs')
    return undefined
  }
  t.after(async () => {
    spawnSync('umount', ['-l', mirror.data])
    await mirror[Symbol.asyncDispose]()
  })
  for (const [n, id] of ['1', '2', '3'].entries()) await mirror.publish(id, tree(n))
  await mirror.startNginx(rate)
  return mirror
}

/** Takes what is left of the disk, to the last byte. */
function fill(mirror: Mirror): () => void {
  const path = join(mirror.data, '.ballast')
  const fd = openSync(path, 'w')
  for (const size of [MB, 4096, 1]) {
    const bytes = Buffer.alloc(size, 1)
    try {
      for (;;) if (writeSync(fd, bytes) < size) break
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, 'ENOSPC')
    }
  }
  closeSync(fd)
  return () => rmSync(path)
}

async function refused(mirror: Mirror, upserv: Upserv, id: string, why: RegExp): Promise<void> {
  const { code, stdout, stderr } = await rsync(['-a', `${upserv.url}/build-${id}/root/`, mirror.place()], {
    timeoutMs: 30_000,
  })
  assert.notEqual(code, 0)
  assert.match(stdout + stderr, /@ERROR/)
  assert.match(stdout + stderr, why)
}

test('a disk that is full before a fetch', async (t) => {
  const mirror = await smallDisk(t)
  if (!mirror) return
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  assert.equal((await upserv.cli(['pin', '1'])).code, 0)
  const empty = fill(mirror)
  await refused(mirror, upserv, '2', /disk|room/)
  await mirror.assertServes(upserv, '1')
  empty()
  await mirror.assertServes(upserv, '2')
  await mirror.assertServes(upserv, '1')
  assert.deepEqual(mirror.incoming(), [])
})

test('an archive that is larger than the disk, however large the budget is', async (t) => {
  const mirror = await smallDisk(t, '8m')
  if (!mirror) return
  const huge = new SpecWriter()
  huge.directory('')
  for (let i = 0; i < 7; i++) huge.file(`file-${i}`, randomBytes(i, 16 * MB))
  await mirror.publish('huge', huge.spec, { suffix: 'tar' })
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  const why =
    /@ERROR: build huge needs at least 117 MB; the disk has [\d.]+ MB free, and all that is here takes [\d.]+ MB/
  await refused(mirror, upserv, 'huge', why)
  await mirror.nginx.stop()
  const [asked] = mirror.requestsFor('huge')
  assert.ok(asked!.bytes < 20 * MB, `${asked!.bytes} bytes came`)
  await mirror.assertServes(upserv, '1')
  assert.deepEqual(mirror.incoming(), [])
})

test('a disk that is full makes room: the build accessed longest ago goes', async (t) => {
  const mirror = await smallDisk(t)
  if (!mirror) return
  const upserv = await mirror.startUpserv()
  for (const id of ['1', '2']) await mirror.assertServes(upserv, id)
  fill(mirror)
  await mirror.assertServes(upserv, '3')
  const held = buildsOnDisk(mirror.data)
  assert.ok(held.includes('3') && !held.includes('1'), `${held} are held`)
  await mirror.assertServes(upserv, held[0]!)
  assert.deepEqual(mirror.incoming(), [])
})

/** Bytes that a fetch has written when the disk becomes full: its first, and in the middle of a pack. */
for (const written of [1, 3 * MB]) {
  test(`a disk that becomes full when a fetch has written ${written} bytes`, async (t) => {
    const mirror = await smallDisk(t, '2m')
    if (!mirror) return
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    assert.equal((await upserv.cli(['pin', '1'])).code, 0)
    const { client } = mirror.client(upserv, '2')
    while (bytesOnDisk(join(mirror.data, 'incoming')) < written) await sleep(LOOK_EVERY_MS)
    const empty = fill(mirror)
    assert.notEqual(await client.ended, 0)
    assert.match(client.output, /@ERROR.*(disk|room|free)/)
    await mirror.assertServes(upserv, '1')
    empty()
    await mirror.assertServes(upserv, '2')
    assert.deepEqual(mirror.incoming(), [])
  })
}

test('a data directory that becomes read-only', async (t) => {
  const mirror = await smallDisk(t)
  if (!mirror) return
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  // Mounted over itself: the disk cannot become read-only as a whole while the lock is open for writing.
  assert.equal(spawnSync('mount', ['--bind', mirror.data, mirror.data]).status, 0)
  let mounted = true
  const writable = (): void => {
    if (mounted) spawnSync('umount', ['-l', mirror.data])
    mounted = false
  }
  t.after(writable)
  assert.equal(spawnSync('mount', ['-o', 'remount,bind,ro', mirror.data]).status, 0)
  await refused(mirror, upserv, '2', /read-only/)
  await mirror.assertServes(upserv, '1')
  for (const command of [
    ['pin', '1'],
    ['remove', '1'],
  ]) {
    const { code, stderr } = await upserv.cli(command)
    assert.equal(code, 1)
    assert.match(stderr, /read-only file system.*\n.*remount it/)
  }
  assert.equal((await upserv.cli(['verify'])).code, 0, 'looking needs no writing')
  writable()
  await mirror.assertServes(upserv, '1')
  await mirror.assertServes(upserv, '2')
  assert.equal((await upserv.cli(['remove', '1'])).code, 0)
  assert.deepEqual(mirror.incoming(), [])
})

test('not one file more may be opened', async (t) => {
  await using mirror = new Mirror()
  for (const [n, id] of ['1', '2'].entries()) await mirror.publish(id, tree(n))
  await mirror.startNginx()
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  const { pid } = upserv.process.child
  const highest = Math.max(...readdirSync(`/proc/${pid}/fd`).map(Number))
  const limit = highest + 1 + FETCH_FILES
  assert.equal(spawnSync('prlimit', [`--pid=${pid}`, `--nofile=${limit}:`]).status, 0)

  // Connections that say nothing take all that are left, until one is turned away.
  const silent: Socket[] = []
  const release = (count: number): void => {
    for (const socket of silent.splice(0, count)) socket.destroy()
  }
  t.after(() => release(silent.length))
  for (let refused = false; !refused; ) {
    const socket = connect(upserv.port, '127.0.0.1').on('error', () => {})
    const greeted = new Promise<boolean>((resolve) =>
      socket.once('data', () => resolve(true)).once('close', () => resolve(false)),
    )
    refused = !(await greeted)
    if (!refused) silent.push(socket)
  }
  assert.ok(silent.length > 0)

  // Then a few more files at a time: too few for a connection, for a fetch, for all of it.
  const codes: unknown[] = []
  const trySync = async (id: string): Promise<boolean> => {
    const place = mirror.place()
    const { code } = await rsync(['-a', `${upserv.url}/build-${id}/root/`, place], { timeoutMs: 30_000 })
    codes.push(code)
    if (code === 0) mirror.assertTree(id, place)
    return code === 0
  }
  while (!(await trySync('2'))) {
    await trySync('1')
    assert.ok(upserv.process.isRunning, 'it died')
    assert.ok(silent.length > 0, 'it does not work again once there are files enough')
    release(4)
  }
  assert.notEqual(codes[0], 0, 'nobody was refused')
  await mirror.assertServes(upserv, '1')
  assert.deepEqual(mirror.incoming(), [])
})

test('a data directory that is moved away and put back', async () => {
  await using mirror = new Mirror()
  for (const [n, id] of ['1', '2'].entries()) await mirror.publish(id, tree(n))
  await mirror.startNginx()
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  renameSync(mirror.data, mirror.path('moved'))
  await refused(mirror, upserv, '2', /data/)
  await refused(mirror, upserv, '1', /data/)
  assert.deepEqual(readdirSync(mirror.path()).includes('data'), false, 'it was not made anew')
  renameSync(mirror.path('moved'), mirror.data)
  await mirror.assertServes(upserv, '1')
  await mirror.assertServes(upserv, '2')
})

test('a data directory that is deleted: nothing wrong is served, and a new owner has it for itself', async () => {
  await using mirror = new Mirror()
  for (const [n, id] of ['1', '2'].entries()) await mirror.publish(id, tree(n))
  await mirror.startNginx()
  const upserv = await mirror.startUpserv()
  await mirror.assertServes(upserv, '1')
  rmSync(mirror.data, { recursive: true })
  await refused(mirror, upserv, '2', /data/)
  await refused(mirror, upserv, '1', /data/)
  const second = await mirror.startUpserv()
  await mirror.assertServes(second, '2')
  await refused(mirror, upserv, '3', /no longer|not the file|replaced/)
  await mirror.assertServes(second, '2')
})
