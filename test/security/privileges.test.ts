/** Who root is as a server: the owner of the data directory, before anything is opened; where that is root, it says so. */
import assert from 'node:assert/strict'
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { run } from '../support/processes.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import { makeScratch, skipUnlessRoot } from '../support/scratch.ts'
import { startUpserv, UPSERV, upserv } from '../support/upserv.ts'

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

test("root neither reads nor makes a token in another user's data directory, but as that user", {
  skip: whyNot(),
}, async () => {
  using scratch = makeScratch('privileges')
  chmodSync(scratch.path, 0o711)
  const data = join(scratch.path, 'data')
  mkdirSync(data)
  chownSync(data, UID, GID)
  const token = join(data, 'http.token')
  const secret = 'of-root-and-of-nobody-else'
  writeFileSync(join(scratch.path, 'secret'), `${secret}\n`, { mode: 0o600 })
  symlinkSync('../secret', token)
  const read = await upserv(['token', '--data', data])
  assert.equal(read.code, 1)
  assert.doesNotMatch(read.stdout + read.stderr, new RegExp(secret))
  assert.match(read.stderr, /EACCES/)
  rmSync(token)
  const made = await upserv(['token', '--new', '--data', data])
  assert.equal(made.code, 0, made.stderr)
  assert.equal(statSync(token).uid, UID)
  assert.equal(statSync(token).mode & 0o777, 0o600)
  assert.equal(readFileSync(token, 'utf8'), made.stdout)
  // What that user may not do there, root does not do for it.
  chmodSync(data, 0o555)
  assert.equal((await upserv(['token', '--new', '--data', data])).code, 1)
})

test('root gives a new token file away by its descriptor, not by a name that may lead elsewhere by then', {
  skip:
    skipUnlessRoot || ((await findProgram('strace')) === undefined && 'needs strace: apt-get install strace'),
}, async () => {
  using scratch = makeScratch('privileges')
  const [file, config] = [join(scratch.path, 'token'), join(scratch.path, 'upserv.toml')]
  writeFileSync(file, 'the-token-before-this-one\n', { mode: 0o600 })
  chownSync(file, UID, GID)
  writeFileSync(config, `[http]\ntoken_file = "${file}"\n`)
  const trace = join(scratch.path, 'trace')
  const words = [...['-f', '-qq', '-e', 'trace=chown,lchown,fchownat,fchown', '-o', trace]]
  const command = [UPSERV, 'token', '--new', '--config', config, '--data', join(scratch.path, 'data')]
  const made = await run('strace', [...words, ...command])
  assert.equal(made.code, 0, made.stderr)
  assert.equal(readFileSync(file, 'utf8'), made.stdout)
  assert.equal(statSync(file).uid, UID)
  const calls = readFileSync(trace, 'utf8')
  assert.match(calls, new RegExp(`\\bfchown\\(\\d+, ${UID}, ${GID}\\)`))
  assert.doesNotMatch(calls, /\b(?:chown|lchown|fchownat)\(/)
})

test('root with a directory of its own stays root, and the log warns of it', {
  skip: skipUnlessRoot,
}, async () => {
  using scratch = makeScratch('privileges')
  const upserv = await startUpserv({ data: join(scratch.path, 'data') })
  await upserv.process.waitForOutput('stderr', /"level":40.*"msg":"root runs this/)
  await upserv.stop()
})
