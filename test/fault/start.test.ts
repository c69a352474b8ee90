/**
 * Clients that come while the store is still being opened. What holds the opening up is a FIFO among the
 * packs: opening it waits, as a slow disk would, until the test opens its other end; then it is a pack that
 * cannot be read, which keeps nothing else from being served.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Status } from '../../src/build/operations.ts'
import { Store } from '../../src/store/store.ts'
import { diskUsage } from '../support/mirror.ts'
import { RawClient } from '../support/raw-client.ts'
import { rsync, rsyncSucceeds } from '../support/rsync.ts'
import { publishBuild, temporaryDirectory } from '../support/trees.ts'
import { startUpserv, type Upserv, upserv } from '../support/upserv.ts'

const CONFIG = `
[channels]
stable = "802"

[rsync]
handshake_timeout = 1

[[module]]
name = "build-803"
hosts_deny = ["0.0.0.0/0"]
`

interface SlowStart {
  upserv: Upserv
  config: string
  letGo(): Promise<void>
}

/** A server that listens and cannot open its store yet. */
async function startSlowly(t: TestContext): Promise<SlowStart> {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const data = join(directory.path, 'data')
  const store = await Store.open(data)
  for (const id of ['802', '803']) await publishBuild(store, id, [{ path: 'file', content: id }])
  await store.close()
  const fifo = store.paths.pack('0123456789abcdef.pack')
  execFileSync('mkfifo', [fifo])
  const config = join(directory.path, 'upserv.toml')
  writeFileSync(config, CONFIG)
  const upserv = await startUpserv({ data, config })
  t.after(() => upserv.kill9())
  // Waits for the server to be there.
  return { upserv, config, letGo: async () => (await open(fifo, 'w')).close() }
}

test('clients that come before the store is open are greeted, told, and served', async (t) => {
  const { upserv, letGo } = await startSlowly(t)
  using lister = await RawClient.open(upserv.port)
  lister.send('@RSYNCD: 31.0 md5\n#list\n')
  const syncing = rsyncSucceeds([`${upserv.url}/build-802/root/file`, '--list-only'])
  const byChannel = rsyncSucceeds([`${upserv.url}/channel-stable/`, '--list-only'])
  const command = upserv.cli(['list', '--json'])
  // Who may not have it needs no store to hear so.
  const denied = await rsync([`${upserv.url}/build-803/`, '--list-only'])
  assert.match(denied.stdout + denied.stderr, /@ERROR: access denied to build-803/)

  // Longer than the client's handshake may take: it is we who make it wait.
  for (let n = 0; n < 2; n++) assert.match(await lister.line(), /has just started/)
  await letGo()
  let line = await lister.line()
  while (/has just started/.test(line)) line = await lister.line()
  assert.match(line, /^build-802 /)
  assert.match((await syncing).stdout, /^-rw-r--r-- .* 3 .* file$/m)
  assert.match((await byChannel).stdout, / root$/m)
  const { code, stdout } = await command
  assert.equal(code, 0)
  assert.deepEqual((JSON.parse(stdout) as { id: string }[]).map(({ id }) => id).sort(), ['802', '803'])
  await upserv.stop()
})

test('who hangs up while the store is being opened is forgotten; a stop waits for it and ends well', async (t) => {
  const { upserv, letGo } = await startSlowly(t)
  {
    using client = await RawClient.open(upserv.port)
    client.send('@RSYNCD: 31.0 md5\nbuild-802\n')
    assert.match(await client.line(), /has just started/)
  }
  await upserv.process.waitForOutput('stderr', /the client left while it waited/)
  using other = await RawClient.open(upserv.port)
  other.send('@RSYNCD: 31.0 md5\nbuild-802\n')
  const ended = upserv.stop()
  await upserv.process.waitForOutput('stderr', /"stopping"/)
  await letGo()
  await ended
})

test('a reload before the store is open holds once it is; one that is wrong is told at once', async (t) => {
  const { upserv, config, letGo } = await startSlowly(t)
  writeFileSync(config, 'bugdet = "1GB"\n')
  const wrong = await upserv.cli(['reload'])
  assert.equal(wrong.code, 78, wrong.stderr)
  assert.match(wrong.stderr, /did you mean "budget"/)
  writeFileSync(config, CONFIG.replace('stable', 'next'))
  const right = upserv.cli(['reload'])
  await letGo()
  assert.equal((await right).code, 0)
  assert.match((await rsyncSucceeds([`${upserv.url}/`])).stdout, /^channel-next /m)
  await upserv.stop()
})

test('neither a store nor a door that can be opened: it ends in our words, not with a stack', async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const data = join(directory.path, 'data')
  const store = await Store.open(data)
  await store.close()
  rmdirSync(store.paths.packs)
  writeFileSync(store.paths.packs, 'no directory')
  const taken = createServer().listen(0, '127.0.0.1')
  t.after(() => taken.close())
  await once(taken, 'listening')
  const rsync = `127.0.0.1:${(taken.address() as AddressInfo).port}`
  const { code, stderr } = await upserv(['serve', '--data', data, '--rsync', rsync, '--http', 'off'])
  assert.notEqual(code, 0)
  assert.match(stderr, /^upserv: .*\S/m)
  assert.doesNotMatch(stderr, /^ +at /m)
})

test('compiled code is kept for the next start, counts, and gives way before any build', {
  timeout: 120_000,
}, async (t) => {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const data = join(directory.path, 'data')
  const store = await Store.open(data)
  await publishBuild(store, '802', [{ path: 'file', content: '802' }])
  await store.close()
  // As for everybody who does not run tests.
  const env = { NODE_COMPILE_CACHE: '' }
  const used = async (upserv: Upserv): Promise<number> =>
    (JSON.parse((await upserv.cli(['status', '--json'])).stdout) as Status).usedBytes

  const first = await startUpserv({ data, env })
  const withCode = await used(first)
  const kept = diskUsage(store.paths.code)
  assert.ok(kept > 2 ** 20, `${kept} bytes of code are kept`)
  assert.ok(withCode >= diskUsage(data))
  for (const name of ['', ...(readdirSync(store.paths.code, { recursive: true }) as string[])])
    assert.equal(statSync(join(store.paths.code, name)).mode & 0o027, 0, name)
  await first.kill9()

  // What is there fits into this budget without the code only.
  const second = await startUpserv({ data, env, budget: `${withCode - kept / 2}` })
  t.after(() => second.kill9())
  while (existsSync(store.paths.code)) await sleep(20)
  assert.match((await rsyncSucceeds([`${second.url}/`])).stdout, /^build-802 /m)
  await second.stop()
  assert.ok(!existsSync(store.paths.code), 'it is not written again when there is little room')
})
