/**
 * Whose turn it is, in the running program: clients that wait in line, sources with too many connections,
 * and handshakes that nobody finishes.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { longestGap } from '../support/client.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { RawClient } from '../support/raw-client.ts'
import { PROTOCOLS, rsync, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

async function school(config: string, ...builds: string[]): Promise<{ mirror: Mirror; upserv: Upserv }> {
  const mirror = new Mirror()
  for (const [i, id] of ['1', ...builds].entries()) await mirror.publish(id, randomTree(i, 3, 10_000))
  await mirror.startNginx()
  writeFileSync(mirror.path('upserv.toml'), config)
  const upserv = await mirror.startUpserv({ config: mirror.path('upserv.toml') })
  await mirror.assertServes(upserv, '1')
  return { mirror, upserv }
}

describe('the line', { concurrency: 3 }, () => {
  test('who comes later hears its place until it is its turn, and is served in order', async () => {
    const { mirror: owned, upserv } = await school('[rsync]\nmax_connections = 1\n')
    await using mirror = owned
    using holder = await RawClient.inTransfer(upserv.port, 'build-1')
    const first = mirror.client(upserv, '1', ['-v', '--outbuf=L', '--timeout=5'])
    await first.client.waitForLine(
      /^please wait: the one place is taken; you are number 1 in line, (no estimate yet|your turn comes in about \d+ seconds)$/,
    )
    const second = mirror.client(upserv, '1', ['--outbuf=L'])
    await second.client.waitForLine(/you are number 2 in line/)
    await sleep(6500) // longer than the client's --timeout
    assert.ok(first.client.isRunning)
    const lines = first.client.lines.filter(({ text }) => text.startsWith('please wait'))
    assert.ok(lines.length >= 4, first.client.output)
    assert.ok(longestGap(lines) < 3000, `${longestGap(lines)} ms between two lines`)
    holder[Symbol.dispose]()
    await first.client.ends(0)
    await second.client.ends(0)
    mirror.assertTree('1', first.place)
    mirror.assertTree('1', second.place)
    const log = upserv.process.stderr.split('\n').filter((line) => line.includes('"outcome":"done"'))
    const waited = log.map((line) => (JSON.parse(line) as { waitedMs: { line: number } }).waitedMs.line)
    assert.ok(waited.at(-1)! >= 5000, waited.join(' '))
    await upserv.stop()
  })

  for (const protocol of PROTOCOLS) {
    test(`protocol ${protocol}: through the line`, async () => {
      const { mirror: owned, upserv } = await school('[rsync]\nmax_connections = 1\n')
      await using mirror = owned
      using holder = await RawClient.inTransfer(upserv.port, 'build-1')
      const { client, place } = mirror.client(upserv, '1', ['--outbuf=L', `--protocol=${protocol}`])
      await client.waitForLine(/number 1 in line/)
      holder[Symbol.dispose]()
      await client.ends(0)
      mirror.assertTree('1', place)
      await upserv.stop()
    })
  }

  test('past the end of the line one is turned away; who leaves makes room at once', async () => {
    const { mirror: owned, upserv } = await school('[rsync]\nmax_connections = 1\nwaiting_line = 1\n')
    await using mirror = owned
    using holder = await RawClient.inTransfer(upserv.port, 'build-1')
    const waiting = await RawClient.open(upserv.port)
    waiting.send('@RSYNCD: 31.0\nbuild-1\n')
    assert.match(await waiting.line(), /number 1 in line/)
    assert.match((await upserv.cli(['status'])).stdout, /^sessions {4}2, of them 1 in line$/m)
    assert.equal(JSON.parse((await upserv.cli(['status', '--json'])).stdout).inLine, 1)
    const { stderr } = await rsyncEnds(5, ['-r', `${upserv.url}/build-1/root/`, mirror.place()])
    assert.match(stderr, /^@ERROR: max connections \(1\) reached -- try again later$/m)
    waiting[Symbol.dispose]()
    await upserv.process.waitForOutput('stderr', /the client left while it waited/)
    const next = mirror.client(upserv, '1', ['--outbuf=L'])
    await next.client.waitForLine(/number 1 in line/)
    holder[Symbol.dispose]()
    await next.client.ends(0)
    await upserv.stop()
  })

  test('waiting for a fetch, and asking what there is, takes no place', async () => {
    const { mirror: owned, upserv } = await school('[rsync]\nmax_connections = 1\nwaiting_line = 0\n')
    await using mirror = owned
    await mirror.publish('2', randomTree(2, 4, 500_000))
    await mirror.nginx.kill()
    await mirror.startNginx('200k')
    const slow = mirror.client(upserv, '2', ['--outbuf=L'])
    await slow.client.waitForLine(/is being fetched/)
    await mirror.assertServes(upserv, '1')
    using holder = await RawClient.inTransfer(upserv.port, 'build-1')
    await rsyncSucceeds([`${upserv.url}/`])
    holder[Symbol.dispose]()
    await slow.client.ends(0)
    mirror.assertTree('2', slow.place)
    await upserv.stop()
  })

  test('modules with a limit of their own', async () => {
    const config = '[[module]]\nname = "build-1"\nmax_connections = 1\n'
    const { mirror: owned, upserv } = await school(config, 'other')
    await using mirror = owned
    using holder = await RawClient.inTransfer(upserv.port, 'build-1')
    const waiting = mirror.client(upserv, '1', ['--outbuf=L'])
    await waiting.client.waitForLine(/the one place is taken; you are number 1 in line/)
    await mirror.assertServes(upserv, 'other')
    assert.ok(waiting.client.isRunning)
    holder[Symbol.dispose]()
    await waiting.client.ends(0)
    await upserv.stop()
  })

  test('a stalled transfer gives its place back when it was idle too long', async () => {
    const config = '[rsync]\nmax_connections = 1\n[[module]]\nname = "build-*"\ntimeout = 3\n'
    const { mirror: owned, upserv } = await school(config)
    await using mirror = owned
    using holder = await RawClient.inTransfer(upserv.port, 'build-1')
    const { client, place } = mirror.client(upserv, '1', ['--outbuf=L'])
    await client.waitForLine(/number 1 in line/)
    await client.ends(0)
    mirror.assertTree('1', place)
    await upserv.process.waitForOutput('stderr', /"reason":"the client stalled"/)
    await upserv.stop()
    void holder
  })
})

describe('connections', { concurrency: 2 }, () => {
  test('too many from one address', async () => {
    const { mirror: owned, upserv } = await school('[rsync]\nmax_per_source = 3\n')
    await using mirror = owned
    const clients = [await RawClient.open(upserv.port), await RawClient.open(upserv.port)]
    clients.push(await RawClient.open(upserv.port))
    const { code, stderr } = await rsync([`${upserv.url}/`])
    assert.equal(code, 5)
    assert.match(stderr, /^@ERROR: max connections \(3\) reached -- try again later \(from your address\)$/m)
    await upserv.process.waitForOutput('stderr', /turned away: too many connections from this address/)
    clients.pop()![Symbol.dispose]()
    await upserv.process.waitForOutput('stderr', /"outcome":"lost"/)
    await mirror.assertServes(upserv, '1')
    for (const client of clients) client[Symbol.dispose]()
    await upserv.stop()
  })

  for (const { name, says } of [
    { name: 'nothing', says: '' },
    { name: 'a module', says: '@RSYNCD: 31.0\nbuild-1\n' },
    {
      name: 'all but the filters',
      says: '@RSYNCD: 29\nbuild-1\n--server\n--sender\n-r\n.\nbuild-1/\n\n',
    },
  ]) {
    test(`half a handshake holding a slot: 1100 clients that say ${name}, a hundred slots, one that syncs`, async () => {
      const config =
        '[rsync]\nmax_connections = 100\nmax_handshakes = 2000\nwaiting_line = 2000\nhandshake_timeout = 600\n'
      const { mirror: owned, upserv } = await school(config)
      await using mirror = owned
      const crowd: RawClient[] = []
      try {
        for (let i = 0; i < 22; i++) {
          crowd.push(...(await Promise.all(Array.from({ length: 50 }, () => RawClient.open(upserv.port)))))
        }
        for (const client of crowd) client.send(says)
        // Held until their handshakes run out, the slots would come free after ten minutes: no client waits so long.
        await mirror.assertServes(upserv, '1')
        assert.match((await upserv.cli(['status', '--json'])).stdout, /"sessions":\s*1100/)
      } finally {
        for (const client of crowd) client[Symbol.dispose]()
      }
      await upserv.stop()
    })
  }
})
