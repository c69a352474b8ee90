/**
 * Under Debian's xinetd, with the service as OLPC's page had it: a process for each connection, as a user
 * without privileges, and one owner of the data directory behind them all.
 */
import assert from 'node:assert/strict'
import {
  chmodSync,
  chownSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { connect } from 'node:net'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { WaitingClient } from '../support/client.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, run, ServerProcess, waitForPort } from '../support/processes.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { isRoot } from '../support/scratch.ts'
import { UPSERV } from '../support/upserv.ts'

const USER = 'upserv'
const CLIENTS = 12
/** Each connection is a process of node, and all start at once on whatever machine this is. */
const PATIENCE_MS = 120_000
/** How long the owner stays without clients, where a test waits for it to go. */
const IDLE_SECONDS = 2

const xinetd = (await findProgram('xinetd')) ?? (await findProgram('/usr/sbin/xinetd'))
const skip = !isRoot
  ? 'needs root: xinetd starts its services as another user'
  : xinetd === undefined && 'needs xinetd: apt-get install xinetd'

describe('under xinetd', { skip, timeout: 4 * PATIENCE_MS }, () => {
  let mirror: Mirror
  let server: ServerProcess
  let program: string
  let port: number
  let madeUser = false

  before(async () => {
    mirror = new Mirror()
    chmodSync(mirror.path(), 0o755) // others pass through it; what lies in it has modes of its own
    madeUser = await makeUser()
    program = await readableProgram(mirror)
    await mirror.publish('1', randomTree(1, 30, 100_000))
    await mirror.publish('2', randomTree(2, 5, 1_000))
    await mirror.startNginx('1m')
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[[source]]\nname = "mirror"\nurl = "${mirror.nginx.url}/{build}"\n`)
    await giveData(mirror.data)

    port = await freePort()
    const broken = mirror.path('broken.toml')
    writeFileSync(broken, 'bugdet = "1GB"\n')
    brokenPort = await freePort()
    writeFileSync(
      mirror.path('xinetd.conf'),
      service('upserv', port, program, { UPSERV_DIR: mirror.data, UPSERV_CONFIG: config }) +
        service('upserv-broken', brokenPort, program, { UPSERV_DIR: mirror.data, UPSERV_CONFIG: broken }) +
        service('upserv-homeless', await homeless(), program, {
          UPSERV_DIR: mirror.path('root-only', 'data'),
        }),
    )
    server = new ServerProcess(xinetd!, [
      '-dontfork',
      '-f',
      mirror.path('xinetd.conf'),
      '-pidfile',
      mirror.path('xinetd.pid'),
    ])
    await waitForPort(port, server)
  })
  after(async () => {
    const owner = mirror && ownersOf(mirror.data)
    await server?.stop()
    for (const pid of owner ?? []) process.kill(pid, 'SIGTERM')
    while (mirror && ownersOf(mirror.data).length > 0) await new Promise((resolve) => setTimeout(resolve, 20))
    await mirror?.[Symbol.asyncDispose]()
    if (madeUser) await run('userdel', [USER])
  })

  let brokenPort: number
  let homelessPort: number
  async function homeless(): Promise<number> {
    mkdirSync(mirror.path('root-only'), { mode: 0o700 })
    homelessPort = await freePort()
    return homelessPort
  }
  const client = (id: string): { client: WaitingClient; place: string } =>
    mirror.client({ url: `rsync://127.0.0.1:${port}` }, id)

  test(`${CLIENTS} connections at once, none of which finds an owner: one owner, one fetch`, async () => {
    const clients = Array.from({ length: CLIENTS }, () => client('1'))
    for (const { client } of clients) await client.ends(0, PATIENCE_MS)
    for (const { client, place } of clients) {
      mirror.assertTree('1', place)
      assert.equal(client.stderr, '')
    }
    assert.ok(
      clients.some(({ client }) => client.lines.some(({ text }) => / \d+ %/.test(text))),
      'no progress was told',
    )
    assert.equal(mirror.requestsFor('1').length, 1)
    const [owner, ...more] = ownersOf(mirror.data)
    assert.ok(owner, 'there is no owner')
    assert.deepEqual(more, [])
    const log = readFileSync(join(mirror.data, '.upserv.log'), 'utf8')
    assert.equal(log.match(/"msg":"ready"/g)?.length, 1)
    assert.doesNotMatch(log, /is held by process/, 'more owners were started than one')
    assert.match(
      readFileSync(`/proc/${owner}/status`, 'utf8'),
      new RegExp(`^Uid:\\s${await idOf(USER)}\\s`, 'm'),
    )
  })

  test('the next connection finds the same owner', async () => {
    const before = ownersOf(mirror.data)
    const next = client('1')
    await next.client.ends(0)
    mirror.assertTree('1', next.place)
    assert.deepEqual(ownersOf(mirror.data), before)
    const listing = await rsyncEnds(0, [`rsync://127.0.0.1:${port}/`])
    assert.match(listing.stdout, /^build-1 /)
    // The process that xinetd starts says where its client comes from: rules on hosts go by that.
    const log = readFileSync(join(mirror.data, '.upserv.log'), 'utf8')
    assert.match(log, /"peer":"127\.0\.0\.1:\d+"/)
    assert.doesNotMatch(log, /"peer":"unknown"/)
  })

  test('the owner is killed between connections: the next one has a new owner', async () => {
    const [before] = ownersOf(mirror.data)
    process.kill(before!, 'SIGKILL')
    const next = client('2')
    await next.client.ends(0)
    mirror.assertTree('2', next.place)
    const [now, ...more] = ownersOf(mirror.data)
    assert.ok(now && now !== before)
    assert.deepEqual(more, [])
    const again = client('1')
    await again.client.ends(0)
    mirror.assertTree('1', again.place)
    assert.equal(mirror.requestsFor('1').length, 1, 'was fetched again')
  })

  test('no process is left behind for a connection that has ended', async () => {
    for (let tries = 0; handlersOf(program).length > 0; tries++) {
      assert.ok(tries < 100, `${handlersOf(program)} still run`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  })

  test('what keeps it from starting is told to the client', async () => {
    const broken = await rsyncEnds(5, [`rsync://127.0.0.1:${brokenPort}/`])
    assert.match(broken.stderr, /^@ERROR: .*unknown key "bugdet"; did you mean "budget"\?\n/)
    const homeless = await rsyncEnds(5, [`rsync://127.0.0.1:${homelessPort}/`])
    assert.match(homeless.stderr, /^@ERROR: .*root-only.*EACCES/)
  })
})

/** From here on an owner begins a log of its own. */
const LARGE_LOG = 16 * 2 ** 20
/** More than xinetd takes in a second unless told otherwise, and more than a school has. */
const CROWD = 150
const CROWD_MS = 60_000

test(`the file that is shipped: ${CROWD} connections at once, and upserv.toml says where builds are`, {
  skip,
  timeout: PATIENCE_MS,
}, async () => {
  await using mirror = new Mirror()
  const madeUser = await makeUser()
  const port = await freePort()
  const shipped = readFileSync(new URL('../../packaging/xinetd/upserv', import.meta.url), 'utf8')
  // Only where it listens, and a program that is quick, so that the crowd comes within a second on any machine:
  // env, which says what it was given.
  const edited = shipped
    .replace('service rsync\n{', 'service rsync\n{\n  type = UNLISTED\n  bind = 127.0.0.1')
    .replace(/^(\s*disable\s*=) yes$/m, '$1 no')
    .replace(/^(\s*port\s*=) 873$/m, `$1 ${port}`)
    .replace(/^(\s*server\s*=) \/usr\/bin\/upserv$/m, '$1 /usr/bin/env')
    .replace(/^\s*server_args\s*= server$/m, '')
  writeFileSync(mirror.path('xinetd.conf'), edited)
  const server = new ServerProcess(xinetd!, [
    ...['-dontfork', '-f', mirror.path('xinetd.conf')],
    ...['-pidfile', mirror.path('xinetd.pid')],
  ])
  try {
    await waitForPort(port, server)
    const heard = await Promise.all(
      Array.from({ length: CROWD }, async () => {
        const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
        // As rsync, which speaks first: xinetd has room for 64 that it has not accepted yet, and Linux only lets another
        // one in that says something once there is room again.
        socket.end()
        socket.setTimeout(CROWD_MS, () => socket.destroy(new Error('nothing came')))
        // A connection that is refused is reset, or closed without a word.
        return text(socket).catch((error: Error) => error.message)
      }),
    )
    assert.equal(heard.filter((said) => /^REMOTE_HOST=/m.test(said)).length, CROWD)
    assert.doesNotMatch(heard[0]!, /^UPSERV_/m)
  } finally {
    await server.stop()
    if (madeUser) await run('userdel', [USER])
  }
})

describe('upserv server, as inetd and ssh start it', () => {
  test('the owner ends by itself when nobody needs it, and leaves nothing open', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 3, 1000))
    await mirror.startNginx()
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[[source]]\nname = "mirror"\nurl = "${mirror.nginx.url}/{build}"\n`)
    const connect = [
      UPSERV,
      'server',
      '--data',
      mirror.data,
      '--config',
      config,
      '--exit-when-idle',
      IDLE_SECONDS,
    ]
    // The log of owners before it has become large.
    const log = join(mirror.data, '.upserv.log')
    mkdirSync(mirror.data)
    writeFileSync(`${log}.1`, 'the one before that')
    writeFileSync(log, 'from before')
    truncateSync(log, LARGE_LOG)
    const place = mirror.place()
    const client = new WaitingClient(['-aH', 'rsync://upserv/build-1/root/', place], {
      RSYNC_CONNECT_PROG: connect.join(' '),
    })
    await client.ends(0)
    mirror.assertTree('1', place)
    const [owner] = ownersOf(mirror.data)
    assert.ok(owner)
    for (let tries = 0; ownersOf(mirror.data).length > 0; tries++) {
      assert.ok(tries < 200, 'it does not end')
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    assert.match(readFileSync(log, 'utf8'), /^\{.*"msg":"stopped"\}\n$/s)
    const before = readFileSync(`${log}.1`)
    assert.deepEqual([before.length, before.toString('latin1', 0, 11)], [LARGE_LOG, 'from before'])
    assert.ok(!readdirSync(mirror.data).includes('upserv.sock'))
  })
})

/** As on OLPC's page, but for port, path and environment, which are ours here. */
function service(name: string, port: number, program: string, env: Record<string, string>): string {
  return `service ${name}
{
  disable      = no
  type         = UNLISTED
  bind         = 127.0.0.1
  port         = ${port}
  socket_type  = stream
  protocol     = tcp
  wait         = no
  user         = ${USER}
  group        = ${USER}
  groups       = yes
  server       = ${program}
  server_args  = server
  per_source   = UNLIMITED
  instances    = UNLIMITED
  env          = ${Object.entries(env)
    .map(([key, value]) => `${key}=${value}`)
    .join(' ')}
}
`
}

/** @returns whether there was no such user before. */
async function makeUser(): Promise<boolean> {
  if ((await run('id', [USER])).code === 0) return false
  const made = await run('useradd', [
    '--system',
    '--user-group',
    '--home-dir',
    '/nonexistent',
    '--shell',
    '/usr/sbin/nologin',
    USER,
  ])
  assert.equal(made.code, 0, made.stderr)
  return true
}

async function idOf(user: string): Promise<number> {
  return Number((await run('id', ['-u', user])).stdout)
}

async function giveData(directory: string): Promise<void> {
  mkdirSync(directory, { mode: 0o750 })
  const group = Number((await run('id', ['-g', USER])).stdout)
  chownSync(directory, await idOf(USER), group)
}

/** bin/upserv, or a copy of the checkout where that user may not read this one. */
async function readableProgram(mirror: Mirror): Promise<string> {
  const canRun = async (program: string): Promise<boolean> =>
    (await run('setpriv', [`--reuid=${USER}`, `--regid=${USER}`, '--clear-groups', program, '--version']))
      .code === 0
  if (await canRun(UPSERV)) return UPSERV
  const checkout = dirname(dirname(UPSERV))
  for (const name of ['bin', 'src', 'node_modules', 'package.json']) {
    cpSync(join(checkout, name), mirror.path('checkout', name), { recursive: true, verbatimSymlinks: true })
  }
  await run('chmod', ['-R', 'go+rX', mirror.path('checkout')])
  const copy = mirror.path('checkout', 'bin', 'upserv')
  assert.ok(await canRun(copy), `user ${USER} can run neither ${UPSERV} nor a copy of it`)
  return copy
}

/** Processes that were started as `upserv serve` on a data directory. */
function ownersOf(data: string): number[] {
  return processes((words) => words.includes('serve') && words.includes(data))
}

/** Processes of xinetd's that serve a connection. */
function handlersOf(program: string): number[] {
  return processes((words) => words.includes(`${program}.ts`) && words.at(-1) === 'server')
}

function processes(which: (words: readonly string[]) => boolean): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1)
        return which(words)
      } catch {
        return false // It has ended.
      }
    })
    .map(Number)
}
