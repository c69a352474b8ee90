/** `upserv serve` as whoever runs it meets it: signals, a second server, its socket, its health. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mirror, randomTree } from '../support/mirror.ts'
import { rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { upserv as runUpserv, startUpserv } from '../support/upserv.ts'

const CONCURRENCY = 3

async function smallMirror(bytes = 1000): Promise<Mirror> {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 10, bytes))
  await mirror.startNginx()
  return mirror
}

describe('upserv serve', { concurrency: CONCURRENCY }, () => {
  test('SIGTERM while a client is at it: the client finishes, nobody else is let in, exit 0', async () => {
    await using mirror = await smallMirror(400_000)
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    const { client, place } = mirror.client(upserv, '1', ['-v', '--outbuf=L', '--bwlimit=600k'])
    await client.waitForLine(/^file-1$/)
    upserv.process.child.kill('SIGTERM')
    await upserv.process.waitForOutput('stderr', /"msg":"stopping"/)
    await rsyncEnds(10, [`${upserv.url}/`]) // connection refused
    assert.ok(client.isRunning)
    await client.ends(0)
    mirror.assertTree('1', place)
    assert.deepEqual(await upserv.process.ended, { code: 0, signal: null })
  })

  test('SIGTERM while a client sleeps: it is not waited for longer than was said', async () => {
    await using mirror = await smallMirror(400_000)
    const config = mirror.path('upserv.toml')
    writeFileSync(config, 'shutdown_timeout = 1\n')
    const upserv = await mirror.startUpserv({ config })
    await mirror.assertServes(upserv, '1')
    const { client } = mirror.client(upserv, '1', ['-v', '--outbuf=L', '--bwlimit=500k'])
    await client.waitForLine(/^file-1$/)
    client.freeze()
    // Which kills it when it does not end, long before the client would.
    await upserv.stop()
  })

  test('idle connections do not keep it from ending', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const http = Number(/http:\/\/127\.0\.0\.1:(\d+)/.exec(upserv.ready)?.[1])
    const control = { path: join(mirror.data, 'upserv.sock') }
    const sockets = await Promise.all([open({ port: http }), open(control)])
    // Which kills it when it does not end.
    await upserv.stop()
    for (const socket of sockets) socket.destroy()
  })

  test('SIGINT ends it as well', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv()
    assert.equal(await upserv.process.stop('SIGINT'), 0)
  })

  test('/healthz, and nothing else', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const [, url] = /(http:\/\/127\.0\.0\.1:\d+)/.exec(upserv.ready) ?? []
    assert.ok(url, upserv.ready)
    const health = await fetch(`${url}/healthz`)
    assert.deepEqual([health.status, await health.text()], [200, 'ok\n'])
    assert.equal((await fetch(`${url}/healthz`, { method: 'HEAD' })).status, 200)
    assert.equal((await fetch(`${url}/healthz`, { method: 'POST' })).status, 404)
    assert.equal((await fetch(`${url}/../etc/passwd`)).status, 404)
    for (const garbage of [
      'GET // HTTP/1.1\r\nHost: x\r\n\r\n',
      'GET http:// HTTP/1.1\r\nHost: x\r\n\r\n',
      '\0\xff\n\n',
    ]) {
      const socket = await open({ port: Number(new URL(url).port) })
      socket.end(garbage)
      await sleep(50)
      socket.destroy()
    }
    assert.equal((await fetch(`${url}/healthz`)).status, 200, 'garbage ended it')
    await upserv.stop()
  })

  test('a second server on the same directory says who has it', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv()
    const second = await runUpserv([
      'serve',
      '--data',
      mirror.data,
      '--rsync',
      '127.0.0.1:0',
      '--http',
      'off',
    ])
    assert.equal(second.code, 69, second.stderr)
    assert.match(second.stderr, new RegExp(`^upserv: .* is held by process ${upserv.process.child.pid} on `))
    assert.equal(second.stdout, '')
    await mirror.assertServes(upserv, '1')
    await upserv.stop()
    await (await mirror.startUpserv()).stop()
  })

  test('a data directory whose path is too long for a socket', async () => {
    await using mirror = await smallMirror()
    const data = mirror.path('deep-'.repeat(30), 'deep-'.repeat(30), 'data')
    const upserv = await startUpserv({ data, sources: [`${mirror.nginx.url}/{build}`] })
    try {
      await mirror.assertServes(upserv, '1')
      const { code, stdout, stderr } = await upserv.cli(['status', '--json'])
      assert.equal(code, 0, stderr)
      assert.equal(JSON.parse(stdout).pid, upserv.process.child.pid)
    } finally {
      await upserv.stop()
    }
    assert.equal((await upserv.cli(['list'])).code, 0)
  })

  test('what it makes is for its user, and for readers of its group', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    const modes = readdirSync(mirror.data, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isSymbolicLink())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => ({ path, mode: statSync(path).mode & 0o777 }))
    for (const { path, mode } of modes) assert.equal(mode & 0o027, 0, `${path} has mode ${mode.toString(8)}`)
    assert.equal(statSync(join(mirror.data, 'upserv.sock')).mode & 0o777, 0o600)
  })

  test('nothing is left open or running after much use', async () => {
    await using mirror = await smallMirror()
    const upserv = await mirror.startUpserv()
    await mirror.assertServes(upserv, '1')
    await upserv.cli(['status'])
    const openFiles = (): number => readdirSync(`/proc/${upserv.process.child.pid}/fd`).length
    const threads = (): number => readdirSync(`/proc/${upserv.process.child.pid}/task`).length
    const [filesBefore, threadsBefore] = [openFiles(), threads()]
    for (let i = 0; i < 10; i++) {
      await rsyncSucceeds(['-a', `${upserv.url}/build-1/root/`, mirror.place()])
      await rsyncEnds(5, [`${upserv.url}/build-none-${i}/`])
      ;(await open({ port: upserv.port })).destroy()
    }
    await sleep(200)
    assert.ok(openFiles() <= filesBefore + 3, `${filesBefore} files were open, now ${openFiles()}`)
    assert.ok(threads() <= threadsBefore + 3, `${threadsBefore} threads, now ${threads()}`)
    const children = readFileSync(
      `/proc/${upserv.process.child.pid}/task/${upserv.process.child.pid}/children`,
      'utf8',
    )
    assert.equal(children, '')
    await upserv.stop()
  })
})

function open(where: { port: number } | { path: string }): Promise<Socket> {
  const socket = connect('port' in where ? { ...where, host: '127.0.0.1' } : where)
  socket.on('error', () => {})
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket))
    socket.once('error', reject)
  })
}
