/**
 * What comes before a client's request, seen from the client: every compression that an upstream may use,
 * upstream's own contents file, and entries that no tar archive can hold.
 */
import assert from 'node:assert/strict'
import { lstatSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { Store } from '../../src/store/store.ts'
import { ARCHIVE_SUFFIXES } from '../support/archive.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { PROTOCOLS, rsync, rsyncSucceeds } from '../support/rsync.ts'
import { skipUnlessRoot } from '../support/scratch.ts'
import { publishBuild } from '../support/trees.ts'

describe('archives of every compression', { concurrency: 2 }, () => {
  for (const suffix of ARCHIVE_SUFFIXES) {
    test(`${suffix}, told apart by content: the upstream's name says nothing`, async () => {
      await using mirror = new Mirror()
      await mirror.publish('802', randomTree(802, 8, 100_000), { suffix, sha256: true })
      await mirror.startNginx()
      const upserv = await mirror.startUpserv()
      await mirror.assertServes(upserv, '802')
      await upserv.stop()
    })
  }
})

test("contents is upstream's own file, byte for byte, where one is configured, and must be there", async () => {
  await using mirror = new Mirror()
  for (const id of ['802', '803']) await mirror.publish(id, randomTree(802, 2, 1000))
  const theirs = Buffer.from('theirs \0\xff and no newline', 'latin1')
  writeFileSync(mirror.path('www', '802.contents'), theirs)
  await mirror.startNginx()
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `[[source]]\nname = "own"\nurl = "${mirror.nginx.url}/{build}"\ncontents = "{url}.contents"\n`,
  )
  const upserv = await mirror.startUpserv({ config, sources: [] })
  const place = mirror.place()
  mkdirSync(place)
  await rsyncSucceeds(['-t', `${upserv.url}/build-802/contents`, `${place}/`])
  assert.deepEqual(readFileSync(join(place, 'contents')), theirs)

  const missing = await rsync([`${upserv.url}/build-803/contents`, `${place}/`])
  assert.equal(missing.code, 5)
  assert.match(missing.stderr, /@ERROR: .*803\.contents/)
  await upserv.stop()
})

test('empty files arrive at every protocol and digest, also where the device has something', async () => {
  await using mirror = new Mirror()
  const store = await Store.open(mirror.data)
  await publishBuild(store, '802', [
    { path: 'emptied', content: '', mtime: 1_234_567_890 },
    { path: 'empty', content: '' },
    { path: 'file', content: 'beside them' },
  ])
  await store.close()
  const upserv = await mirror.startUpserv()
  const choices = ['md4', 'md5', 'xxh64', 'xxh3', 'xxh128'].map((name) => [`--checksum-choice=${name}`])
  const ways = [...PROTOCOLS.map((protocol) => [`--protocol=${protocol}`]), ...choices]
  for (const way of ways) {
    for (const more of [[], ['-z'], ['-c'], ['--append'], ['--inplace']]) {
      const place = mirror.place()
      mkdirSync(place)
      writeFileSync(join(place, 'emptied'), 'x'.repeat(5000))
      writeFileSync(join(place, 'file'), 'beside')
      await rsyncSucceeds(['-a', ...way, ...more, `${upserv.url}/build-802/root/`, place])
      const sizes = ['emptied', 'empty', 'file'].map((name) => lstatSync(join(place, name)).size)
      // Whoever appends leaves alone what is longer.
      const emptied = more[0] === '--append' ? 5000 : 0
      assert.deepEqual(sizes, [emptied, 0, 11], [...way, ...more].join(' '))
    }
  }
  await upserv.stop()
})

test('sockets arrive as sockets at every protocol', { skip: skipUnlessRoot }, async () => {
  await using mirror = new Mirror()
  // No tar archive holds a socket: this build comes in by the store's own door.
  const store = await Store.open(mirror.data)
  await publishBuild(store, '802', [
    { path: 'run', type: 'directory' },
    { path: 'run/log', type: 'socket', mode: 0o640, uid: 7, gid: 8, mtime: 1_234_567_890 },
    { path: 'run/pipe', type: 'fifo', mode: 0o600 },
    { path: 'run/file', content: 'beside it' },
  ])
  await store.close()
  const upserv = await mirror.startUpserv()
  for (const protocol of PROTOCOLS) {
    const place = mirror.place()
    await rsyncSucceeds([`--protocol=${protocol}`, '-aH', `${upserv.url}/build-802/root/`, place])
    const socket = lstatSync(join(place, 'run/log'))
    const seen = [socket.isSocket(), socket.mode & 0o7777, socket.uid, socket.gid, socket.mtimeMs]
    assert.deepEqual(seen, [true, 0o640, 7, 8, 1_234_567_890_000], `protocol ${protocol}`)
    assert.ok(lstatSync(join(place, 'run/pipe')).isFIFO())
    assert.equal(readFileSync(join(place, 'run/file'), 'latin1'), 'beside it')
    const again = await rsyncSucceeds([
      `--protocol=${protocol}`,
      '-aHi',
      `${upserv.url}/build-802/root/`,
      place,
    ])
    assert.equal(again.stdout.trim(), '', `protocol ${protocol}: nothing is new`)
  }
  await upserv.stop()
})
