/** Disks rot: clients never get wrong bytes, and get the build, if it can be had again. */
import assert from 'node:assert/strict'
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { VerifyReport } from '../../src/build/operations.ts'
import { bytesOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { randomBytes } from '../support/tree.ts'
import { upserv as runUpserv, type Upserv } from '../support/upserv.ts'

const CONCURRENCY = 2
const BYTES = 300_000

async function mirrorWith(...ids: string[]): Promise<Mirror> {
  const mirror = new Mirror()
  for (const id of ids) await mirror.publish(id, randomTree(Number(id), 6, BYTES))
  await mirror.startNginx()
  return mirror
}

/** Turns a bit in the middle of `file-N` of a tree of `randomTree`. */
function rot(mirror: Mirror, seed: number, n: number): void {
  const wanted = randomBytes(seed * 10_000 + n, BYTES).subarray(0, 64)
  for (const name of readdirSync(join(mirror.data, 'packs'))) {
    const path = join(mirror.data, 'packs', name)
    const bytes = Buffer.alloc(statSync(path).size)
    const fd = openSync(path, 'r+')
    readSync(fd, bytes)
    const at = bytes.indexOf(wanted)
    if (at >= 0) writeSync(fd, Uint8Array.of(bytes[at + BYTES / 2]! ^ 4), 0, 1, at + BYTES / 2)
    closeSync(fd)
    if (at >= 0) return
  }
  assert.fail('no pack holds that file')
}

async function damaged(upserv: Upserv): Promise<string[]> {
  return JSON.parse((await upserv.cli(['status', '--json'])).stdout).damaged
}

describe('rot', { concurrency: CONCURRENCY }, () => {
  test('what a client refuses is looked at, and the next client gets it, fetched again', async () => {
    await using mirror = await mirrorWith('1', '2')
    const before = await mirror.startUpserv()
    await mirror.assertServes(before, '1')
    await mirror.assertServes(before, '2')
    // A new process: what the old one has in memory is as it was.
    await before.stop()
    rot(mirror, 1, 3)
    const upserv = await mirror.startUpserv()
    const unlucky = await mirror.sync(upserv, '1', 23)
    assert.match(unlucky.stderr, /failed verification/)
    assert.ok(!readdirSync(unlucky.place).includes('file-3'), 'wrong bytes came')
    while (!(await damaged(upserv)).includes('1')) await sleep(50)

    const { stdout } = await mirror.assertServes(upserv, '1')
    assert.match(stdout, /build-1 is damaged: it is being fetched again, please wait/)
    assert.match(stdout, /build-1: found http/)
    assert.equal(mirror.requestsFor('1').length, 2)
    assert.equal(mirror.requestsFor('2').length, 1)
    assert.deepEqual(await damaged(upserv), [])
    await mirror.assertServes(upserv, '1')
    await mirror.assertServes(upserv, '2')
    assert.equal(mirror.requestsFor('1').length, 2, 'once is enough')
  })

  test('verify: what it finds, how it tells, and that it repairs', async () => {
    await using mirror = await mirrorWith('1', '2')
    const upserv = await mirror.startUpserv()
    for (const id of ['1', '2']) await mirror.assertServes(upserv, id)
    const fine = await upserv.cli(['verify'])
    assert.equal(fine.code, 0, fine.stderr)
    assert.match(fine.stdout, /^12 blobs of 3\.6 MB were read: all are what they were\.\n$/)
    assert.match(fine.stderr, /verifying: 100 % \(3\.6 MB of 3\.6 MB\)/)

    rot(mirror, 1, 2)
    rot(mirror, 1, 4)
    assert.equal((await upserv.cli(['verify', '2'])).code, 0)
    const found = await upserv.cli(['verify'])
    assert.equal(found.code, 1)
    assert.match(
      found.stdout,
      /^12 blobs .*: 2 have rotted\.\nbuild 1 is damaged: 2 files are lost\n {2}file-2\n {2}file-4\n$/,
    )
    assert.match(
      found.stderr,
      /upserv: 1 build is damaged\n +To have it fetched again now: upserv verify --repair/,
    )
    assert.match((await upserv.cli(['list'])).stdout, /^1 .* damaged$/m)
    assert.match((await upserv.cli(['status'])).stdout, /^damaged +1$/m)

    // It is remembered, also by the next process, here without a server.
    await upserv.stop()
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[[source]]\nname = "mirror"\nurl = "${mirror.nginx.url}/{build}"\n`)
    const cli = (...args: string[]) => runUpserv([...args, '--data', mirror.data, '--config', config])
    const before = bytesOnDisk(join(mirror.data, 'packs'))
    assert.equal((await cli('verify', '1', '--json')).code, 1)
    const repaired = await cli('verify', '--repair', '--json')
    assert.equal(repaired.code, 0, repaired.stderr)
    const report = JSON.parse(repaired.stdout) as VerifyReport
    assert.deepEqual(
      report.damaged.map(({ id, files, repaired }) => ({ id, files, repaired })),
      [{ id: '1', files: ['file-2', 'file-4'], repaired: true }],
    )
    const grown = bytesOnDisk(join(mirror.data, 'packs')) - before
    assert.ok(grown < 2 * BYTES + 5000, `${grown} bytes more: only what was missing is to be written`)
    assert.equal((await cli('verify')).code, 0)
    assert.equal((await cli('gc')).code, 0)
    const left = bytesOnDisk(join(mirror.data, 'packs'))
    assert.ok(left < before + 1000, `${left} bytes are left of ${before}: the bad copies are to go`)
    await mirror.assertServes(await mirror.startUpserv(), '1')
  })

  test('without a source the client is told, and an import makes it whole', async () => {
    await using mirror = await mirrorWith('1')
    const archive = mirror.archive('1')
    const moved = mirror.path('moved.tar.gz')
    const imported = await runUpserv(['import', archive, '--as', '1', '--data', mirror.data])
    assert.equal(imported.code, 0, imported.stderr)
    renameSync(archive, moved)
    rot(mirror, 1, 0)
    const upserv = await mirror.startUpserv({ sources: [] })
    assert.equal((await upserv.cli(['verify'])).code, 1)
    const refused = await mirror.sync(upserv, '1', 5)
    assert.match(
      refused.stderr,
      /^@ERROR: build 1 is damaged: 1 file is lost, and it cannot be fetched again: /,
    )
    assert.match(refused.stderr, /upserv verify 1 --repair/)
    const tried = await upserv.cli(['verify', '--repair'])
    assert.equal(tried.code, 1)
    assert.match(tried.stdout, /build 1 is damaged: 1 file is lost: .*cannot be fetched again/)

    assert.equal((await upserv.cli(['import', moved, '--as', '1'])).code, 0)
    await mirror.assertServes(upserv, '1')
    assert.deepEqual(await damaged(upserv), [])
    // What was imported first is read again where it was, as long as it is there.
    renameSync(moved, archive)
    rot(mirror, 1, 0)
    const again = await upserv.cli(['verify', '--repair'])
    assert.equal(again.code, 0, again.stdout)
    await mirror.assertServes(upserv, '1')
    // Not when it is another one by now: that would be another build.
    rot(mirror, 1, 1)
    const manifest = join(mirror.data, 'builds', '1', 'manifest')
    const before = readFileSync(manifest)
    await mirror.publish('1', randomTree(2, 6, BYTES))
    const other = await upserv.cli(['verify', '--repair'])
    assert.equal(other.code, 1)
    assert.match(
      other.stdout,
      /cannot be fetched again: \S+ is another file now than the one that was imported/,
    )
    assert.deepEqual(readFileSync(manifest), before)
  })

  test('a rotten manifest: the next client gets the build, fetched again', async () => {
    await using mirror = await mirrorWith('1')
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    await upserv.stop()
    const fd = openSync(join(mirror.data, 'builds/1/manifest'), 'r+')
    writeSync(fd, 'rot', 400)
    closeSync(fd)
    const again = await mirror.startUpserv()
    const { stdout } = await mirror.assertServes(again, '1')
    assert.match(stdout, /build-1 is damaged: it is being fetched again/)
    assert.equal(mirror.requestsFor('1').length, 2)
    assert.equal((await again.cli(['verify'])).code, 0)
  })
})
