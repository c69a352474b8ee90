/** Who root is as a server: the owner of the data directory, before anything is opened; where that is root, it says so. */
import assert from 'node:assert/strict'
import { accessSync, chmodSync, chownSync, constants, mkdirSync, readFileSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, skipUnlessRoot } from '../support/scratch.ts'
import { startUpserv } from '../support/upserv.ts'

/** Nobody's, on every system. */
const [UID, GID] = [65_534, 65_534]
const ROOT = resolve(import.meta.dirname, '../..')

/** Why who is not root could not even read the program. */
function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'needs root, who gives privileges up'
  for (let path = ROOT; path !== '/'; path = resolve(path, '..')) {
    if ((statSync(path).mode & 0o005) !== 0o005) return `needs a checkout that others may read: ${path}`
  }
  accessSync(ROOT, constants.R_OK)
  return false
}

test('root becomes the owner of the data directory before it opens a door', { skip: whyNot() }, async () => {
  using scratch = makeScratch('privileges')
  chmodSync(scratch.path, 0o711)
  const data = join(scratch.path, 'data')
  mkdirSync(data)
  chownSync(data, UID, GID)
  const upserv = await startUpserv({ data, http: '127.0.0.1:0' })
  const status = readFileSync(`/proc/${upserv.process.child.pid}/status`, 'utf8')
  assert.match(status, new RegExp(`^Uid:${`\\t${UID}`.repeat(4)}$`, 'm'))
  assert.match(status, new RegExp(`^Gid:${`\\t${GID}`.repeat(4)}$`, 'm'))
  assert.match(status, new RegExp(`^Groups:\\t${GID} ?$`, 'm'))
  for (const set of ['CapPrm', 'CapEff', 'CapAmb']) assert.match(status, new RegExp(`^${set}:\\t0+$`, 'm'))
  await rsyncSucceeds([`${upserv.url}/`])
  assert.doesNotMatch(upserv.process.stderr, /root runs this/)
  for (const name of ['builds', 'http.token', 'upserv.sock'])
    assert.equal(statSync(join(data, name)).uid, UID, name)
  await upserv.stop()
})

test('root with a directory of its own stays root, and the log warns of it', {
  skip: skipUnlessRoot,
}, async () => {
  using scratch = makeScratch('privileges')
  const upserv = await startUpserv({ data: join(scratch.path, 'data') })
  await upserv.process.waitForOutput('stderr', /"level":40.*"msg":"root runs this/)
  await upserv.stop()
})
