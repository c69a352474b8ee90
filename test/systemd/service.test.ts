/**
 * What systemd and upserv say to each other, without systemd as the machine's first process: sockets come from
 * systemd's own activator, and messages go to a socket of our own. test/packaging has the whole machine.
 */
import assert from 'node:assert/strict'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { Authority } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort, ServerProcess } from '../support/processes.ts'
import { rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { rsyncSsl } from '../support/rsync-ssl.ts'
import { UPSERV } from '../support/upserv.ts'

const CONCURRENCY = 2
/** O_CLOEXEC, 02000000. */
const CLOSE_ON_EXEC = /[2367]\d{6}$/
const skipActivation =
  (await findProgram('systemd-socket-activate')) === undefined &&
  'needs systemd-socket-activate: apt-get install systemd'
const skipNotify =
  (await findProgram('systemd-notify')) === undefined && 'needs systemd-notify: apt-get install systemd'

/** Prints what datagrams say. Node can't read from such a socket; perl is on every Debian. */
const READ_DATAGRAMS = `$| = 1; my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die $!;
while (defined $socket->recv(my $text, 4096)) { print "$text\n" }`

async function smallMirror(): Promise<Mirror> {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 5, 1000))
  await mirror.startNginx()
  return mirror
}

describe('socket activation', { concurrency: CONCURRENCY, skip: skipActivation }, () => {
  const activate = (args: readonly string[], port: number, data: string, config?: string): ServerProcess =>
    new ServerProcess('systemd-socket-activate', [
      ...['--listen', `127.0.0.1:${port}`, ...args, UPSERV, 'serve', '--data', data, '--http', 'off'],
      ...(config === undefined ? [] : ['--config', config]),
    ])

  test('the first client starts the server, on the socket that was opened for it', async () => {
    await using mirror = await smallMirror()
    const port = await freePort()
    const config = mirror.path('upserv.toml')
    // The default of rsync.listen is port 873, which it must not want.
    writeFileSync(config, `[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n`)
    const server = activate(['--fdname', 'rsync'], port, mirror.data, config)
    try {
      await server.waitForOutput('stderr', /Listening on/)
      const { client, place } = mirror.client({ url: `rsync://127.0.0.1:${port}` }, '1')
      await client.ends(0)
      mirror.assertTree('1', place)
      assert.match(server.stdout, new RegExp(`^listening rsync://127\\.0\\.0\\.1:${port}$`, 'm'))
      // A program that it starts, such as flock for the store's lock, must not hold the port open.
      assert.match(flagsOf(server.child.pid!, 3), CLOSE_ON_EXEC)
      assert.equal(await server.stop(), 0)
    } finally {
      await server.stop('SIGKILL')
    }
  })

  test('a socket for TLS is known by its name, and needs a certificate', async () => {
    await using mirror = await smallMirror()
    const ours = await Authority.make(mirror.path('ours'))
    const { cert, key } = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    const config = mirror.path('upserv.toml')
    const source = `[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n`
    const start = async (toml: string) => {
      writeFileSync(config, toml)
      const ports = [await freePort(), await freePort()] as const
      const args = ['--listen', `127.0.0.1:${ports[1]}`, '--fdname', 'rsync:rsync-tls']
      const server = activate(args, ports[0], mirror.data, config)
      await server.waitForOutput('stderr', new RegExp(`Listening on \\S+:${ports[1]}`))
      return { server, ports }
    }
    const { server, ports } = await start(`[tls]\ncert = "${cert}"\nkey = "${key}"\n${source}`)
    try {
      const place = mirror.place()
      const url = `rsync://localhost:${ports[1]}/build-1/root/`
      const { code, stderr } = await rsyncSsl('openssl', ['-aH', url, place], { ca: ours.cert })
      assert.equal(code, 0, stderr)
      mirror.assertTree('1', place)
      await rsyncSucceeds([`rsync://127.0.0.1:${ports[0]}/`])
      assert.match(
        server.stdout,
        new RegExp(`^listening rsync://\\S+:${ports[0]} rsync-ssl://\\S+:${ports[1]}$`, 'm'),
      )
      assert.equal(await server.stop(), 0)
    } finally {
      await server.stop('SIGKILL')
    }
    const bare = await start(source)
    await rsyncEnds(12, [`rsync://127.0.0.1:${bare.ports[0]}/`])
    assert.equal((await bare.server.ended).code, 78)
    assert.match(bare.server.stderr, /socket for TLS, and there is no certificate[\s\S]*upserv-tls\.socket/)
  })

  test('a socket for something else is refused by its name', async () => {
    await using mirror = await smallMirror()
    const port = await freePort()
    const server = activate(['--fdname', 'gopher'], port, mirror.data)
    await server.waitForOutput('stderr', /Listening on/)
    await rsyncEnds(12, [`rsync://127.0.0.1:${port}/`])
    assert.equal((await server.ended).code, 78)
    assert.match(server.stderr, /socket named "gopher"[\s\S]*FileDescriptorName=rsync/)
  })

  test('sockets that were meant for another process are left alone', async () => {
    await using mirror = await smallMirror()
    const env = { LISTEN_PID: '1', LISTEN_FDS: '1', LISTEN_FDNAMES: 'rsync' }
    const upserv = await mirror.startUpserv({ env })
    await rsyncSucceeds([`${upserv.url}/`])
    await upserv.stop()
  })
})

describe('SIGHUP', { concurrency: CONCURRENCY }, () => {
  const READ = /"msg":"configuration read again"/
  const toml = (mirror: Mirror, more = ''): string =>
    `budget = "1GB"\n[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n${more}`

  test('sources, channels, rules, limits and the budget are taken over; a session goes on', async () => {
    await using mirror = await smallMirror()
    await mirror.publish('2', randomTree(2, 10, 300_000))
    const config = mirror.path('upserv.toml')
    writeFileSync(config, `[[source]]\nname = "m"\nbuilds = "^2$"\nurl = "${mirror.nginx.url}/{build}"\n`)
    const upserv = await mirror.startUpserv({ sources: [], config })
    assert.match((await rsyncEnds(5, [`${upserv.url}/build-1/`])).stderr, /no such build/)
    const slow = mirror.client(upserv, '2', ['-v', '--outbuf=L', '--bwlimit=1500k'])
    await slow.client.waitForLine(/^file-1$/)

    writeFileSync(
      config,
      toml(
        mirror,
        '[channels]\nstable = "1"\n[rsync]\nmotd = "changed"\n[[module]]\nname = "build-2"\nhosts_deny = ["127.0.0.1"]\n',
      ),
    )
    upserv.process.child.kill('SIGHUP')
    await upserv.process.waitForOutput('stderr', READ)
    const { stdout } = await rsyncSucceeds([`${upserv.url}/`])
    assert.match(stdout, /^changed$/m)
    assert.match(stdout, /^channel-stable/m)
    assert.doesNotMatch(stdout, /^build-2/m)
    await rsyncSucceeds(['-a', `${upserv.url}/channel-stable/root/`, mirror.place()])
    assert.match((await rsyncEnds(5, [`${upserv.url}/build-2/`])).stderr, /access denied/)
    const status = JSON.parse((await upserv.cli(['status', '--json'])).stdout) as { budgetBytes: number }
    assert.equal(status.budgetBytes, 1e9)
    await slow.client.ends(0)
    mirror.assertTree('2', slow.place)
    await upserv.stop()
  })

  test('a configuration that is wrong is not used, and who asks is told why', async () => {
    await using mirror = await smallMirror()
    const config = mirror.path('upserv.toml')
    writeFileSync(config, toml(mirror))
    const upserv = await mirror.startUpserv({ sources: [], config })
    for (const [wrong, why] of [
      ['bugdet = "1GB"\n', /unknown key \\"bugdet\\"; did you mean \\"budget\\"/],
      ['[[source]]\nname = "m"\nurl = "gopher://h/{build}"\n', /has the scheme \\"gopher\\"/],
    ] as const) {
      writeFileSync(config, wrong)
      upserv.process.child.kill('SIGHUP')
      await upserv.process.waitForOutput('stderr', why)
      const reload = await upserv.cli(['reload', '--config', config])
      assert.equal(reload.code, 78)
      assert.match(reload.stderr, /unknown key "bugdet"|has the scheme "gopher"/)
      const { client, place } = mirror.client(upserv, '1')
      await client.ends(0)
      mirror.assertTree('1', place)
    }
    writeFileSync(config, toml(mirror, '[http]\nlisten = ["127.0.0.1:1"]\n[channels]\nnew = "1"\n'))
    const reload = await upserv.cli(['reload', '--config', config])
    assert.match(reload.stdout, /^the configuration was read again/)
    // It holds when the command returns.
    assert.match((await rsyncSucceeds([`${upserv.url}/`])).stdout, /^channel-new/m)
    await upserv.stop()
  })

  test('a budget that is lowered evicts at once', async () => {
    await using mirror = await smallMirror()
    await mirror.publish('2', randomTree(2, 10, 200_000))
    const config = mirror.path('upserv.toml')
    writeFileSync(config, toml(mirror))
    const upserv = await mirror.startUpserv({ sources: [], config })
    await mirror.assertServes(upserv, '2')
    await mirror.assertServes(upserv, '1')
    writeFileSync(config, toml(mirror).replace('1GB', '1MB'))
    upserv.process.child.kill('SIGHUP')
    await upserv.process.waitForOutput('stderr', /"build":"2","msg":"build evicted"/)
    await upserv.stop()
  })
})

describe('what systemd is told', { skip: skipNotify }, () => {
  test('ready, alive, reloading, ready again, stopping', async () => {
    await using mirror = await smallMirror()
    const path = mirror.path('notify')
    const systemd = new ServerProcess('perl', ['-MIO::Socket::UNIX', '-e', READ_DATAGRAMS, path])
    try {
      while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 10))
      const config = mirror.path('upserv.toml')
      writeFileSync(config, 'shutdown_timeout = 7\n')
      const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: '600000' }
      const upserv = await mirror.startUpserv({ sources: [], config, env })
      await systemd.waitForOutput('stdout', /READY=1\nSTATUS=serving rsync:\/\/127\.0\.0\.1:\d+/)
      await systemd.waitForOutput('stdout', /WATCHDOG=1[\s\S]*WATCHDOG=1/)
      upserv.process.child.kill('SIGHUP')
      await systemd.waitForOutput('stdout', /RELOADING=1[\s\S]*READY=1/)
      await upserv.stop()
      await systemd.waitForOutput('stdout', /STOPPING=1\nEXTEND_TIMEOUT_USEC=22000000\n/)
    } finally {
      await systemd.stop()
    }
  })
})

/** As open(2) has them, in octal. */
function flagsOf(pid: number, fd: number): string {
  return /^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))![1]!
}
