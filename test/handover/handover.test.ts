/**
 * A server hands over to a new process while clients are at it, without systemd: test/packaging does it under systemd,
 * by an upgrade.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { request } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { doorwaysOf, type InheritedSocket } from '../../src/daemon/handover.ts'
import { Authority } from '../support/certificates.ts'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, run } from '../support/processes.ts'
import { rsyncSucceeds } from '../support/rsync.ts'
import { missing, rsyncSsl } from '../support/rsync-ssl.ts'
import type { Upserv } from '../support/upserv.ts'

const CONCURRENCY = 2
const PATIENCE_MS = 60_000
const LOOK_EVERY_MS = 50
/** Far less than the slow client needs. */
const SHUTDOWN_S = 0.5
/** Of a build that, at the slowest rate of the mirror here, is still being fetched when a new process takes over. */
const SLOW_BYTES = 6e6
/** For a command that must not be carried out: it has had the time to be. */
const COMMAND_MS = 2000

const skipTls = await missing('openssl', 'rsync-ssl')

interface Report {
  pid: number
  version: string
  sessions: number
}

async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!(await holds())) {
    assert.ok(performance.now() < deadline, `${what}: not within ${PATIENCE_MS} ms`)
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS))
  }
}

function lives(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Its output is the successor's as well, so that does not end with it. */
async function exitOf({ process: { child } }: Upserv): Promise<number | null> {
  if (child.exitCode === null) await once(child, 'exit')
  return child.exitCode
}

/** Successors are nobody's children: whoever hands over has to end them. */
class Line implements AsyncDisposable {
  readonly first: Upserv
  readonly pids: number[] = []

  /** What was done, or was to be, as operators read it. */
  async audit(done: string): Promise<{ what: string; result: string; code: string; target: string }[]> {
    const { code, stdout, stderr } = await this.first.cli(['history', '--audit', '--json'])
    assert.equal(code, 0, stderr)
    return (JSON.parse(stdout) as { what: string; result: string; code: string; target: string }[]).filter(
      ({ what }) => what === done,
    )
  }

  constructor(first: Upserv) {
    this.first = first
  }

  async handOver(): Promise<Report> {
    const { code, stdout, stderr } = await this.first.cli(['handover', '--json'])
    assert.equal(code, 0, stderr)
    const report = JSON.parse(stdout) as Report
    this.pids.push(report.pid)
    return report
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of this.pids) if (lives(pid)) process.kill(pid, 'SIGTERM')
    await until('successors have ended', () => !this.pids.some(lives))
  }
}

async function start(mirror: Mirror, toml = '', http = 'off'): Promise<Upserv> {
  const config = mirror.path('upserv.toml')
  writeFileSync(
    config,
    `shutdown_timeout = ${SHUTDOWN_S}\n[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n${toml}`,
  )
  return await mirror.startUpserv({ sources: [], config, http })
}

/** A server, and a client that has begun with build 1 and takes its time: ten files at a rate as --bwlimit has it. */
async function beginSlowly(fileBytes: number, rate: string) {
  await using stack = new AsyncDisposableStack()
  const mirror = stack.use(new Mirror())
  await mirror.publish('1', randomTree(1, 10, fileBytes))
  await mirror.startNginx()
  const upserv = await start(mirror)
  await mirror.assertServes(upserv, '1')
  const line = stack.use(new Line(upserv))
  const slow = mirror.client(upserv, '1', ['-v', '--outbuf=L', `--bwlimit=${rate}`])
  await slow.client.waitForLine(/^file-1$/)
  const owned = stack.move()
  return { mirror, upserv, line, slow, [Symbol.asyncDispose]: () => owned.disposeAsync() }
}

const ownersPid = (mirror: Mirror): number =>
  (JSON.parse(readFileSync(join(mirror.data, 'upserv.lock'), 'utf8')) as { pid: number }).pid

/** Notes the packages that a process takes modules from. */
const NOTES_PACKAGES = `data:text/javascript,${encodeURIComponent(`
  import { appendFileSync } from 'node:fs'
  import { registerHooks } from 'node:module'
  registerHooks({
    load(url, context, next) {
      const found = /node_modules.((?:@[^/]+.)?[^/]+)/.exec(url)
      if (found) appendFileSync(process.env.NOTES, found[1] + '\\n')
      return next(url, context)
    },
  })
`)}`

/** Has a process that takes over do something more when it has loaded one of the program's files. */
const inSuccessor = (file: string, more: string): string =>
  `data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module'
  const isSuccessor = process.env.UPSERV_HANDOVER !== undefined
  registerHooks({
    load(url, context, next) {
      const loaded = next(url, context)
      if (!isSuccessor || !new RegExp('/${file}[.][jt]s$').test(url)) return loaded
      return { ...loaded, source: loaded.source + ${JSON.stringify(more)} }
    },
  })
`)}`
/** Says that it was reached, and goes on in an hour. */
const STOPS_HERE = `
  await (await import('node:fs/promises')).writeFile(process.env.REACHED, '')
  await new Promise((resolve) => setTimeout(resolve, 3600_000))`
/** Keeps it from opening its doors, by the load of what it needs for one of them. */
const NEVER_SERVES = inSuccessor('http/server', STOPS_HERE)
/** Keeps it from opening the door of rsync, when that of HTTP is open. */
const SERVES_HTTP_ALONE = inSuccessor(
  'daemon/doors',
  `Doors.prototype.listenOn = async () => {${STOPS_HERE}}`,
)

/** How often a fetch of that build has begun, in whichever process. */
const fetchesOf = ({ process: { stderr } }: Upserv, id: string): number =>
  [...stderr.matchAll(new RegExp(`"build":"${id}".*"fetch began"`, 'g'))].length

test('before its files are replaced a server has all of them that it needs', async () => {
  await using mirror = new Mirror()
  await mirror.startNginx()
  const notes = mirror.path('packages')
  const upserv = await mirror.startUpserv({
    env: { NODE_OPTIONS: `--import=${NOTES_PACKAGES}`, NOTES: notes },
  })
  const packages = (): Set<string> => new Set(readFileSync(notes, 'utf8').split('\n'))
  assert.equal(packages().has('undici') || packages().has('htmlparser2'), false)
  assert.equal((await upserv.cli(['handover', '--prepare'])).code, 0)
  const before = packages()
  assert.ok(before.has('undici') && before.has('htmlparser2'))
  assert.equal((await upserv.cli(['available'])).code, 0)
  assert.deepEqual(packages(), before)
})

describe('handing over', { concurrency: CONCURRENCY, timeout: 300_000 }, () => {
  test('a slow client finishes with the old process, all others are with the new one, none is refused', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 1000))
    await mirror.publish('2', randomTree(2, 12, 200_000))
    await mirror.startNginx()
    const upserv = await start(mirror, '', '127.0.0.1:0')
    const [, site] = /(http:\S+)/.exec(upserv.ready)!
    await mirror.assertServes(upserv, '2')
    await mirror.assertServes(upserv, '1')
    await using line = new Line(upserv)
    const slow = mirror.client(upserv, '2', ['-v', '--outbuf=L', '--bwlimit=200k'])
    await slow.client.waitForLine(/^file-1$/)
    const everything = mirror.place()
    const mirrored = mirror.client(upserv, '2', ['-v'])
    await mirrored.client.ends(0)

    // Who comes while it happens, one after the other, is served by the one or the other.
    let over = false
    let came = 0
    const stream = (async () => {
      while (!over) {
        await rsyncSucceeds(['-a', `${upserv.url}/build-1/root/`, mirror.place()])
        came++
      }
    })()
    const old = upserv.process.child.pid!
    const report = await line.handOver()
    over = true
    await stream
    assert.ok(came > 0)
    assert.notEqual(report.pid, old)
    assert.ok(report.sessions >= 1)
    assert.equal(ownersPid(mirror), report.pid)
    await rsyncSucceeds(['-aH', `${upserv.url}/build-1/root/`, everything])
    mirror.assertTree('1', everything)
    assert.equal((await fetch(`${site}/healthz`)).status, 200)

    // Whom the old process serves the new one knows, and keeps their build for them.
    await until("it knows the other process's client", async () =>
      / *"module": ?"build-2"/.test((await upserv.cli(['top', '--json'])).stdout),
    )
    const refused = await upserv.cli(['remove', '2'])
    assert.match(refused.stderr, /build 2 is in use/)
    // What the new one unlinks the old one has open.
    for (const name of readdirSync(join(mirror.data, 'packs')))
      if (name.endsWith('.pack')) renameSync(join(mirror.data, 'packs', name), mirror.path(name))
    assert.ok(slow.client.isRunning, 'the client was too quick to show anything')
    await slow.client.ends(0)
    mirror.assertTree('2', slow.place)
    assert.equal(await exitOf(upserv), 0)
    await until('the session is remembered', async () =>
      /build-2 +done/.test((await upserv.cli(['history', '--build', '2', '--limit', '1'])).stdout),
    )
    await until('nobody uses it any more', async () => (await upserv.cli(['remove', '2'])).code === 0)
  })

  test('who waits for a build goes on waiting, also one who had to prove who it is', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, 500_000))
    await mirror.startNginx('400k')
    const secrets = mirror.path('secrets')
    writeFileSync(secrets, 'ana:secret\n')
    chmodSync(secrets, 0o600)
    const upserv = await start(
      mirror,
      `[[module]]\nname = "build-1"\nauth_users = ["ana"]\nsecrets_file = "${secrets}"\n`,
    )
    await using line = new Line(upserv)
    const password = mirror.path('password')
    writeFileSync(password, 'secret\n')
    chmodSync(password, 0o600)
    const url = upserv.url.replace('//', '//ana@')
    const waiting = mirror.client({ url }, '1', [`--password-file=${password}`])
    await waiting.client.waitForLine(/downloading and unpacking: [1-9]\d? %/)
    const report = await line.handOver()
    await waiting.client.ends(0)
    mirror.assertTree('1', waiting.place)
    // In two requests, the second of which went on where the first was.
    await until('the upstream has written its log', () => mirror.requestsFor('1').length >= 2)
    assert.ok(
      mirror.requestsFor('1').some(({ status }) => status === 206),
      JSON.stringify(mirror.requestsFor('1')),
    )
    assert.equal(await exitOf(upserv), 0)
    const { stdout } = await upserv.cli(['history', '--json'])
    const records = JSON.parse(stdout) as { user: string; outcome: string }[]
    assert.deepEqual(
      records.map(({ user, outcome }) => ({ user, outcome })),
      [{ user: 'ana', outcome: 'done' }],
    )
    assert.equal(ownersPid(mirror), report.pid)
  })

  test('who stops the new process stops the old one, with the same patience', async () => {
    await using begun = await beginSlowly(400_000, '100k')
    const { upserv, line, slow } = begun
    const { pid } = await line.handOver()
    assert.ok(lives(upserv.process.child.pid!))
    process.kill(pid, 'SIGTERM')
    // It would have taken a minute more.
    assert.equal(await exitOf(upserv), 0)
    await slow.client.ended
    await until('both have ended', () => !lives(pid))
  })

  test("a new process that can't read its configuration changes nothing", async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 1000))
    await mirror.startNginx()
    const upserv = await start(mirror)
    const config = mirror.path('upserv.toml')
    const good = readFileSync(config, 'utf8')
    writeFileSync(config, 'bugdet = 1\n')
    const failed = await upserv.cli(['handover'])
    assert.equal(failed.code, 75)
    assert.match(failed.stderr, /could not take over: .*unknown key "bugdet"/)
    await mirror.assertServes(upserv, '1')
    writeFileSync(config, good)
    await using line = new Line(upserv)
    const { pid } = await line.handOver()
    assert.equal(await exitOf(upserv), 0)
    await mirror.assertServes(upserv, '1')
    // Both are remembered, the second by the process that has the history by then.
    const [done, refused] = await line.audit('handOver')
    assert.deepEqual([done?.result, refused?.result, refused?.code], ['done', 'failed', 'HANDOVER_FAILED'])
    assert.match(done!.target, new RegExp(`^pid=${pid} .* before=${upserv.process.child.pid} `))
  })

  test("a new process that can't use the data directory gives it back: whoever waited goes on", async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, 400_000))
    await mirror.publish('2', randomTree(2, 5, 1000))
    await mirror.startNginx('400k')
    const upserv = await start(mirror)
    const waiting = mirror.client(upserv, '1')
    await waiting.client.waitForLine(/downloading and unpacking: [1-9]\d? %/)
    const format = join(mirror.data, 'upserv.json')
    renameSync(format, mirror.path('format'))
    writeFileSync(format, '{"format":99}\n')
    const failed = await upserv.cli(['handover'])
    assert.equal(failed.code, 75)
    assert.match(failed.stderr, /could not take over: .* has format 99/)
    renameSync(mirror.path('format'), format)
    await waiting.client.ends(0)
    mirror.assertTree('1', waiting.place)
    await mirror.assertServes(upserv, '2')
    const { stdout } = await upserv.cli(['history'])
    assert.match(stdout, /build-2 +done/)
    await upserv.stop()
  })

  test('until the new process serves it changes nothing: one that ends before leaves all as it was', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, SLOW_BYTES / 4))
    await mirror.publish('2', randomTree(2, 5, 1000))
    await mirror.startNginx('400k')
    const config = mirror.path('upserv.toml')
    const reached = mirror.path('reached')
    writeFileSync(config, '[fetch]\nper_source = 0\n')
    const upserv = await mirror.startUpserv({
      config,
      http: '127.0.0.1:0',
      env: { NODE_OPTIONS: `--import=${NEVER_SERVES}`, REACHED: reached },
    })
    await using line = new Line(upserv)
    await mirror.assertServes(upserv, '2')
    const waiting = mirror.client(upserv, '1')
    await waiting.client.waitForLine(/downloading and unpacking: [1-9]\d? %/)
    const handing = upserv.cli(['handover'])
    await until('the new process has the data directory', () => existsSync(reached))
    const pid = ownersPid(mirror)
    line.pids.push(pid)
    const removing = upserv.cli(['remove', '2'])
    await Promise.race([removing, sleep(COMMAND_MS)])
    process.kill(pid, 'SIGKILL')
    assert.equal((await handing).code, 75)
    assert.notEqual((await removing).code, 0)
    await waiting.client.ends(0)
    mirror.assertTree('1', waiting.place)
    await mirror.assertServes(upserv, '2')
    // By the old process, before and after.
    assert.equal(fetchesOf(upserv, '1'), 2)
    assert.equal(fetchesOf(upserv, '2'), 1)
    await upserv.stop()
  })

  test('/readyz of a new process says 200 when it serves, and something at once before that', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    const reached = mirror.path('reached')
    const upserv = await mirror.startUpserv({
      http: '127.0.0.1:0',
      env: { NODE_OPTIONS: `--import=${SERVES_HTTP_ALONE}`, REACHED: reached },
    })
    await using line = new Line(upserv)
    const handing = upserv.cli(['handover'])
    await until('the new process listens', () => existsSync(reached))
    const pid = ownersPid(mirror)
    line.pids.push(pid)
    // Both listen there: the one that has to answer is the one that runs.
    const { child } = upserv.process
    child.kill('SIGSTOP')
    try {
      const { status } = await fetch(`${httpUrlOf(upserv)}/readyz`, {
        signal: AbortSignal.timeout(PATIENCE_MS / 2),
      })
      assert.equal(status, 503)
    } finally {
      process.kill(pid, 'SIGKILL')
      child.kill('SIGCONT')
    }
    assert.equal((await handing).code, 75)
    assert.equal((await fetch(`${httpUrlOf(upserv)}/readyz`)).status, 200)
    await upserv.stop()
  })

  for (const taken of [true, false])
    test(`sessions that end meanwhile are remembered ${taken ? 'by the new process' : 'where it does not take over'}`, async () => {
      await using begun = await beginSlowly(100_000, '150k')
      const { mirror, upserv, line, slow } = begun
      slow.client.freeze()
      // Whoever opens the data directory waits for what this file says.
      const path = join(mirror.data, 'upserv.json')
      const said = readFileSync(path)
      renameSync(path, mirror.path('format'))
      assert.equal((await run('mkfifo', [path])).code, 0)
      const handing = taken ? line.handOver() : upserv.cli(['handover'])
      await using fifo = await open(path, 'w')
      assert.ok(slow.client.isRunning, 'the client was too quick to show anything')
      slow.client.wake()
      await slow.client.ends(0)
      await upserv.process.waitForOutput('stderr', /"session ended"[\s\S]*"session ended"/)
      renameSync(mirror.path('format'), path)
      await fifo.writeFile(taken ? said : '{"format":99}\n')
      await fifo.close()
      await handing
      await until('both are remembered', async () => {
        const { stdout } = await upserv.cli(['history', '--build', '1', '--json'])
        return (JSON.parse(stdout) as unknown[]).length === 2
      })
    })

  test('a damaged build that is being fetched again is made whole by the new process', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, SLOW_BYTES / 4))
    await mirror.startNginx()
    const before = await start(mirror)
    await mirror.assertServes(before, '1')
    await before.stop()
    for (const name of readdirSync(join(mirror.data, 'packs'))) rmSync(join(mirror.data, 'packs', name))
    await mirror.nginx.stop()
    await mirror.startNginx('400k')
    const upserv = await start(mirror)
    await using line = new Line(upserv)
    const waiting = mirror.client(upserv, '1')
    await waiting.client.waitForLine(/downloading and unpacking: [1-9]\d? %/)
    await line.handOver()
    await waiting.client.ends(0)
    mirror.assertTree('1', waiting.place)
    assert.equal(fetchesOf(upserv, '1'), 2)
  })

  test('an import is not gone on with: a source may have another build of that id', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 1000))
    await mirror.startNginx()
    const upserv = await start(mirror)
    await using line = new Line(upserv)
    const path = mirror.path('fifo')
    assert.equal((await run('mkfifo', [path])).code, 0)
    const importing = upserv.cli(['import', path, '--as', '1'])
    await using _fifo = await open(path, 'w')
    await until('the import has begun', () => fetchesOf(upserv, '1') === 1)
    await line.handOver()
    assert.notEqual((await importing).code, 0)
    assert.deepEqual(JSON.parse((await upserv.cli(['list', '--json'])).stdout), [])
    assert.equal(fetchesOf(upserv, '1'), 1)
    // That it was tried, and what came of it, is remembered all the same.
    assert.deepEqual(
      (await line.audit('import')).map(({ result, code }) => [result, code]),
      [['failed', 'COMMAND_REFUSED']],
    )
    const fetches = JSON.parse((await upserv.cli(['history', '--fetches', '--json'])).stdout)
    assert.deepEqual(
      fetches.map(({ id, outcome }: { id: string; outcome: string }) => [id, outcome]),
      [['1', 'stopped']],
    )
  })

  test('what is tried by HTTP with the old process is remembered, also when it ends after the new one serves', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    const upserv = await start(mirror, '', '127.0.0.1:0')
    await using line = new Line(upserv)
    const login = request(`${httpUrlOf(upserv)}/api/v1/session`, {
      ...{ method: 'POST', agent: false },
      headers: { 'content-type': 'application/json', 'x-upserv': 'test' },
    })
    const answered = once(login, 'response')
    login.write('{"token":')
    // It is with the old process once that has answered what comes in by the same door.
    await fetch(`${httpUrlOf(upserv)}/healthz`)
    await line.handOver()
    login.end('"a guess"}')
    const [{ statusCode }] = await answered
    assert.equal(statusCode, 401)
    await until('it is remembered', async () => (await line.audit('login'))[0]?.result === 'refused')
    assert.equal(await exitOf(upserv), 0)
  })

  test('by TLS as well: who is at it finishes, and the doors are those that the configuration names', {
    skip: skipTls,
  }, async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 10, 300_000))
    await mirror.startNginx()
    const ours = await Authority.make(mirror.path('ours'))
    const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    const [port, another, page] = [await freePort(), await freePort(), await freePort()]
    const tls = (rsync: number): string =>
      `[tls]\ncert = "${cert}"\nkey = "${key}"\n[rsync]\ntls_listen = "127.0.0.1:${rsync}"\n[http]\ntls_listen = "127.0.0.1:${page}"\n`
    const upserv = await start(mirror, tls(port), '127.0.0.1:0')
    await mirror.assertServes(upserv, '1')
    await using line = new Line(upserv)
    const sync = async (at: number, place: string, ...args: string[]): Promise<number | null> => {
      const url = `rsync://localhost:${at}/build-1/root/`
      return (await rsyncSsl('openssl', ['-aH', ...args, url, place], { ca: ours.cert })).code
    }
    const begins = async (at: number) => {
      const place = mirror.place()
      let over = false
      const ended = sync(at, place, '--bwlimit=400k').finally(() => {
        over = true
      })
      await until('the client has begun', () => existsSync(join(place, 'file-1')))
      return {
        finishes: async () => {
          assert.ok(!over, 'the client was too quick to show anything')
          assert.equal(await ended, 0)
          mirror.assertTree('1', place)
        },
      }
    }
    const configure = (toml: string): void => {
      const path = mirror.path('upserv.toml')
      const [before] = readFileSync(path, 'utf8').split('[tls]')
      writeFileSync(path, `${before}${toml}`)
    }
    const log = (): string => upserv.process.stderr

    const first = await begins(port)
    await line.handOver()
    const place = mirror.place()
    assert.equal(await sync(port, place), 0)
    mirror.assertTree('1', place)
    await first.finishes()

    // Another port: the one before it is closed.
    configure(tls(another))
    const second = await begins(port)
    await line.handOver()
    assert.notEqual(await sync(port, mirror.place()), 0)
    assert.match(log(), new RegExp(`"address":"127.0.0.1:${port}","msg":"not listening there any more`))
    assert.equal(await sync(another, mirror.place()), 0)
    await second.finishes()

    // One that somebody else has: the new process has begun by then, and the one before goes on all the same.
    const squatter = createServer().listen(0, '127.0.0.1')
    await once(squatter, 'listening')
    configure(tls((squatter.address() as AddressInfo).port))
    const refused = await upserv.cli(['handover'])
    squatter.close()
    assert.equal(refused.code, 75)
    assert.match(refused.stderr, /cannot listen on .*: another program does\n.*ss -ltnp/)
    assert.equal(await sync(another, mirror.place()), 0)
    await mirror.assertServes(upserv, '1')

    // No TLS at all: a restart would do without, and so does this.
    configure('')
    await line.handOver()
    for (const gone of [another, page])
      assert.match(log(), new RegExp(`"address":"127.0.0.1:${gone}","msg":"not listening there any more`))
    assert.notEqual(await sync(another, mirror.place()), 0)
    await assert.rejects(fetch(`https://localhost:${page}/healthz`), (error: Error) =>
      /ECONNREFUSED/.test(String((error.cause as NodeJS.ErrnoException).code)),
    )
    await mirror.assertServes(upserv, '1')
  })
})

describe('the doors of a new process', () => {
  const own: InheritedSocket = { kind: 'rsync', fd: 3, address: '[::]:873' }
  const other: InheritedSocket = { kind: 'rsync', fd: 4, address: '127.0.0.1:0' }
  const ofSystemd: InheritedSocket = { kind: 'rsync', fd: 5 }
  const any = { host: '::', port: 873 }
  const free = { host: '127.0.0.1', port: 0 }
  for (const { name, inherited, named, take, open, close } of [
    {
      name: 'the same',
      inherited: [own, other],
      named: [free, any],
      take: [other, own],
      open: [],
      close: [],
    },
    { name: 'one more', inherited: [own], named: [any, free], take: [own], open: [free], close: [] },
    { name: 'one less', inherited: [own, other], named: [any], take: [own], open: [], close: [other] },
    { name: 'none at all', inherited: [own], named: [], take: [], open: [], close: [own] },
    { name: 'one twice', inherited: [other], named: [free, free], take: [other], open: [free], close: [] },
    { name: "systemd's", inherited: [ofSystemd], named: [any], take: [ofSystemd], open: [], close: [] },
    { name: 'nothing before', inherited: [], named: [any], take: [], open: [any], close: [] },
  ])
    test(name, () => assert.deepEqual(doorwaysOf(inherited, named), { take, open, close }))
})
