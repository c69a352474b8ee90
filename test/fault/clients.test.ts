/**
 * Clients that misbehave, against the running program: frozen in mid-transfer, too many, asking for too
 * much; and blobs that rot on disk. Each hurts itself at most.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Mirror, randomTree } from '../support/mirror.ts'
import { rsync } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

const MB = 1e6

async function mirrorWith(files: number, bytes: number): Promise<Mirror> {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, files, bytes / files), { suffix: 'tar' })
  await mirror.startNginx()
  return mirror
}

async function sessionsOf(upserv: Upserv): Promise<number> {
  const { stdout } = await upserv.cli(['status', '--json'])
  return (JSON.parse(stdout) as { sessions: number }).sessions
}

describe('clients that misbehave', { concurrency: 2 }, () => {
  test('a client frozen for longer than the keep-alives goes on when it wakes', async () => {
    await using mirror = await mirrorWith(4, 60 * MB)
    // Half of this without a sign of life and the server sends an empty frame, beside the write that waits.
    const config = mirror.path('upserv.toml')
    writeFileSync(config, '[rsync]\nidle_timeout = 8\n')
    const upserv = await mirror.startUpserv({ config })
    await mirror.assertServes(upserv, '1')
    const { client, place } = mirror.client(upserv, '1', ['-v', '--outbuf=L'])
    await client.waitForLine(/file|receiving/)
    client.freeze()
    await sleep(5500)
    client.wake()
    await client.ends(0)
    mirror.assertTree('1', place)
    assert.equal(await sessionsOf(upserv), 0)
    await upserv.stop()
  })

  test('a client that stays frozen is given up, and its build can be removed', async () => {
    await using mirror = await mirrorWith(4, 60 * MB)
    const config = mirror.path('upserv.toml')
    writeFileSync(config, '[rsync]\nidle_timeout = 3\n')
    const upserv = await mirror.startUpserv({ config })
    await mirror.assertServes(upserv, '1')
    const { client } = mirror.client(upserv, '1', ['-v', '--outbuf=L'])
    await client.waitForLine(/file|receiving/)
    client.freeze()
    for (let tries = 0; (await sessionsOf(upserv)) > 0; tries++) {
      assert.ok(tries < 200, 'it is never given up')
      await sleep(250)
    }
    const removed = await upserv.cli(['remove', '1'])
    assert.equal(removed.code, 0, removed.stderr)
    client.wake()
    await client.ended
    await upserv.stop()
  })

  test('handshakes that nobody finishes, more than permitted: the oldest of the address with the most go', async () => {
    await using mirror = await mirrorWith(4, 1 * MB)
    const config = mirror.path('upserv.toml')
    writeFileSync(config, '[rsync]\nmax_handshakes = 3\n')
    const upserv = await mirror.startUpserv({ config })
    const idle: Socket[] = []
    const closed: number[] = []
    // The first of all is from elsewhere, where nobody else is.
    for (const [i, localAddress] of ['127.0.0.2', '127.0.0.1', '127.0.0.1'].entries()) {
      const socket = connect({ port: upserv.port, host: '127.0.0.1', localAddress })
      socket.once('close', () => closed.push(i)).on('error', () => {})
      await once(socket, 'data')
      idle.push(socket)
    }
    const { code, stdout } = await rsync([`${upserv.url}/`])
    assert.equal(code, 0)
    assert.match(stdout, /^builds\s/m)
    if (closed.length === 0) await once(idle[1]!, 'close')
    assert.deepEqual(closed, [1])
    await upserv.process.waitForOutput(
      'stderr',
      /"reason":"too many handshakes: of 3, 2 were from this address"/,
    )
    // Those who are left are served.
    for (const i of [0, 2]) {
      idle[i]!.write('@RSYNCD: 31.0\n#list\n')
      assert.match(String(await once(idle[i]!, 'data')), /builds/)
    }
    await mirror.assertServes(upserv, '1')
    for (const socket of idle) socket.destroy()
    await upserv.stop()
  })

  test('idle connections keep nobody out, however many come', async () => {
    await using mirror = await mirrorWith(4, 1 * MB)
    const config = mirror.path('upserv.toml')
    writeFileSync(config, '[rsync]\nmax_handshakes = 5\n')
    const upserv = await mirror.startUpserv({ config })
    const idle: Socket[] = []
    for (let i = 0; i < 50; i++) {
      idle.push(
        connect({ port: upserv.port, host: '127.0.0.1', localAddress: '127.0.0.2' }).on('error', () => {}),
      )
      if (i % 10 === 9) await mirror.assertServes(upserv, '1')
    }
    for (const socket of idle) socket.destroy()
    await upserv.stop()
  })

  test('a crowd that asks for builds that are not there costs three fetches at a time', async () => {
    await using mirror = await mirrorWith(4, 1 * MB)
    // An upstream that takes connections and never answers.
    const { createServer } = await import('node:net')
    const silent = createServer(() => {}).listen(0, '127.0.0.1')
    await new Promise((resolve) => silent.once('listening', resolve))
    const { port } = silent.address() as { port: number }
    const upserv = await mirror.startUpserv({ sources: [`http://127.0.0.1:${port}/{build}`] })
    const crowd = Array.from({ length: 30 }, (_, i) => mirror.client(upserv, `absent-${i}`))
    await crowd[29]!.client.waitForLine(/fetches are ahead of it/)
    const { stdout } = await upserv.cli(['status', '--json'])
    const { fetches } = JSON.parse(stdout) as { fetches: { phase: string }[] }
    assert.equal(fetches.filter(({ phase }) => !phase.includes('ahead of it')).length, 3)
    for (const { client } of crowd) client.kill()
    await upserv.stop()
    silent.close()
  })

  test('blocks of one byte get the file whole, not a delta that takes all memory', async () => {
    await using mirror = await mirrorWith(1, 20 * MB)
    const upserv = await mirror.startUpserv()
    const { place } = await mirror.sync(upserv, '1')
    const small = mirror.place()
    mkdirSync(small)
    writeFileSync(join(small, 'file-0'), readFileSync(join(place, 'file-0')).subarray(0, 256))
    const result = await rsync(['-aH', '-B1', '--stats', `${upserv.url}/build-1/root/`, small], {
      timeoutMs: 60_000,
    })
    assert.equal(result.code, 0, result.stderr)
    assert.match(result.stdout, /Matched data: 0 bytes/)
    mirror.assertTree('1', small)
    await upserv.stop()
  })

  for (const args of [[], ['--protocol=29'], ['--protocol=29', '-c'], ['-z']]) {
    const how = args.join(' ')

    test(`a blob that rots on disk: the client notices, gets all else, and nothing wrong: ${how}`, async () => {
      await using mirror = await mirrorWith(3, 3 * MB)
      const before = await mirror.startUpserv()
      const { place } = await mirror.sync(before, '1')
      // A new process: what the old one has in memory is as it was.
      await before.stop()
      const packs = join(mirror.data, 'packs')
      const pack = openSync(join(packs, readdirSync(packs)[0]!), 'r+')
      writeSync(pack, Buffer.from('rotten'), 0, 6, 1000) // within the first blob
      closeSync(pack)
      const upserv = await mirror.startUpserv()
      const filesIn = (directory: string) => readdirSync(directory).filter((name) => name.startsWith('file-'))
      assert.equal(filesIn(place).length, 3)
      const target = mirror.place()
      const result = await rsync(['-aH', ...args, `${upserv.url}/build-1/root/`, target], {
        timeoutMs: 60_000,
      })
      assert.equal(result.code, 23, result.stderr)
      const came = filesIn(target)
      assert.equal(came.length, 2, came.join(' '))
      for (const name of came)
        assert.deepEqual(readFileSync(join(target, name)), readFileSync(join(place, name)))
      await upserv.stop()
    })
  }
})
