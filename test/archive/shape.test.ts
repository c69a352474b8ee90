/** What the configuration makes of an archive's tree, from upserv.toml to the files that a client has. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { ascii } from '../../src/lib/bytes.ts'
import { Mirror } from '../support/mirror.ts'
import { isRoot } from '../support/scratch.ts'
import { snapshot } from '../support/snapshot.ts'
import { tarArchive, tarMember } from '../support/tar-builder.ts'

const TIME = 1_193_961_600

const directory = (name: string): Buffer =>
  tarMember({ name, type: '5', mode: 0o755, uid: 0, gid: 0, mtime: TIME })
const file = (name: string, uid: number, gid: number, text: string): Buffer =>
  tarMember({ name, mode: 0o644, uid, gid, mtime: TIME, size: text.length }, text)

/** As docs/configuration.md has it: the time follows from the content. */
const timeOf = (text: string): number =>
  1_000_000_000 + (createHash('sha256').update(text).digest().readUInt32LE(0) % 2 ** 29)

test('subtree, exclude, users, groups and mtimes: a client gets the tree that the configuration describes', async () => {
  await using mirror = new Mirror()
  writeFileSync(
    mirror.archive('1'),
    tarArchive(
      file('README', 0, 0, 'not a part of the system\n'),
      ...['image/', 'image/root/', 'image/root/etc/', 'image/root/var/', 'image/root/var/cache/'].map(
        directory,
      ),
      file('image/root/etc/passwd', 500, 70, 'root:x:0:0\n'),
      file('image/root/etc/group', 1234, 71, 'root:x:0\n'),
      file('image/root/etc/passwd.bak', 0, 0, 'left out by its name\n'),
      file('image/root/var/cache/index', 0, 0, 'left out with its directory\n'),
      file('image/root/var/same', 500, 70, 'root:x:0\n'),
    ),
  )
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `[[source]]
name    = "images"
url     = "file://${mirror.path('www')}/{build}"
subtree = "image/root"
exclude = ["*.bak", "var/cache"]
users   = { "500" = 0, "*" = 12 }
groups  = { "70" = 7 }
mtimes  = "content"
`,
  )
  const upserv = await mirror.startUpserv({ config, sources: [] })
  const { place } = await mirror.sync(upserv, '1')
  const got = snapshot(place)
  assert.deepEqual([...got.keys()].sort(), ['.', 'etc', 'etc/group', 'etc/passwd', 'var', 'var/same'])
  const facts = (path: string) => {
    const { uid, gid, mtime } = got.get(ascii(path))!
    return { ...(isRoot ? { uid, gid } : {}), mtime }
  }
  const owned = (uid: number, gid: number) => (isRoot ? { uid, gid } : {})
  assert.deepEqual(facts('etc/passwd'), { ...owned(0, 7), mtime: timeOf('root:x:0:0\n') })
  assert.deepEqual(facts('etc/group'), { ...owned(12, 71), mtime: timeOf('root:x:0\n') })
  assert.deepEqual(facts('var/same'), { ...owned(0, 7), mtime: timeOf('root:x:0\n') })
  assert.deepEqual(facts('etc'), { ...owned(12, 0), mtime: TIME })
})
