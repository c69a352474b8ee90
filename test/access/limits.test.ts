/** Limits and rates in the running program, met by the real client. Figures are compared with each other, not with a clock. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, test } from 'node:test'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { RawClient } from '../support/raw-client.ts'
import { rsync, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import type { Upserv } from '../support/upserv.ts'

async function setUp(config: string, http = 'off') {
  const mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 4, 500_000))
  await mirror.publish('2', randomTree(2, 1, 1000))
  await mirror.publish('3', randomTree(3, 1, 1000))
  await mirror.startNginx()
  writeFileSync(mirror.path('secrets'), 'alice:sesame\nbob:other\n', { mode: 0o600 })
  const file = mirror.path('upserv.toml')
  writeFileSync(file, config.replaceAll('SECRETS', mirror.path('secrets')))
  const upserv = await mirror.startUpserv({ config: file, http })
  return { mirror, upserv, file }
}

async function until<T>(look: () => Promise<T | undefined | false>): Promise<T> {
  const deadline = performance.now() + 60_000
  for (;;) {
    const found = await look()
    if (found) return found
    assert.ok(performance.now() < deadline, 'it did not come to that')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

describe('rates', { concurrency: 2 }, () => {
  test('two sessions share a rate equally, whatever else they do', async () => {
    const { mirror: owned, upserv } = await setUp('[limits]\nrate = "1MB"\n')
    await using mirror = owned
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
    const clients = ['-W', '-c'].map((option) => mirror.client(upserv, '1', [option, '-v', '--outbuf=L']))
    const sent = async (): Promise<number[]> => {
      const { stdout } = await upserv.cli(['top', '--json'])
      const { sessions } = JSON.parse(stdout) as { sessions: { id: number; bytesOut: number }[] }
      return sessions.sort((a, b) => a.id - b.id).map(({ bytesOut }) => bytesOut)
    }
    const [one, two] = await until(async () => {
      const all = await sent()
      return all.length === 2 && Math.min(...all) > 800_000 && (all as [number, number])
    })
    assert.ok(one / two < 1.5 && two / one < 1.5, `${one} and ${two}`)
    for (const { client } of clients) await client.ends(0)
    for (const { place } of clients) mirror.assertTree('1', place)
  })

  test('a rate for each session holds for rsync and for http, and none does not slow anything down', async () => {
    const { mirror: owned, upserv, file } = await setUp('[limits]\nrate_per_session = "2MB"\n', '127.0.0.1:0')
    await using mirror = owned
    const base = httpUrlOf(upserv)
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
    const timed = async (work: () => Promise<unknown>): Promise<number> => {
      const began = performance.now()
      await work()
      return performance.now() - began
    }
    const byRsync = () => mirror.assertServes(upserv, '1')
    const byHttp = async () => {
      assert.equal((await (await fetch(`${base}/builds/1/root/file-0`)).arrayBuffer()).byteLength, 500_000)
    }
    // 2 MB and 0.5 MB at 2 MB a second, of which an eighth of a second is there at the beginning.
    const slow = [await timed(byRsync), await timed(byHttp)]
    assert.ok(slow[0]! > 700, `rsync took ${slow[0]} ms`)
    assert.ok(slow[1]! > 100, `http took ${slow[1]} ms`)
    writeFileSync(file, '')
    assert.equal((await upserv.cli(['reload', '--config', file])).code, 0)
    const quick = await timed(byRsync)
    assert.ok(quick < slow[0]!, `without a rate ${quick} ms, with one ${slow[0]} ms`)
  })

  test('who is kept back by a rate is not taken for one who stalls', async () => {
    const { mirror: owned, upserv } = await setUp('[limits]\nrate = "60kB"\n[rsync]\nidle_timeout = 2\n')
    await using mirror = owned
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
    // Two of 500 kB take longer than the timeout for any piece that is not cut.
    const client = mirror.client(upserv, '1', ['--include=/file-0', '--exclude=*'])
    await client.client.ends(0)
  })
})

describe('limits of those who come', { concurrency: 2 }, () => {
  test('transfers of one user wait in line; others pass', async () => {
    const { mirror: owned, upserv } = await setUp(`
[limits]
transfers_per_user = 1
rate_per_session = "300kB"
[[module]]
name = "build-*"
auth_users = ["alice", "bob"]
secrets_file = "SECRETS"
`)
    await using mirror = owned
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
    const get = (user: string, password: string, id: string, args: string[] = []) =>
      rsync(['-a', ...args, `rsync://${user}@127.0.0.1:${upserv.port}/build-${id}/root/`, mirror.place()], {
        env: { RSYNC_PASSWORD: password },
      })
    const first = get('alice', 'sesame', '1')
    await until(async () => (await upserv.cli(['top', '--json'])).stdout.includes('"state": "transfer"'))
    const second = get('alice', 'sesame', '2')
    const other = await get('bob', 'other', '3')
    assert.equal(other.code, 0)
    assert.doesNotMatch(other.stdout, /in line/)
    const done = await Promise.all([first, second])
    assert.deepEqual(
      done.map(({ code }) => code),
      [0, 0],
    )
    assert.match(
      done[1]!.stdout,
      /please wait: the one place of this user is taken; you are number 1 in line/,
    )
  })

  test('places in line of one address and network', async () => {
    const { mirror: owned, upserv } = await setUp(`
[rsync]
max_connections = 1
[limits]
waiting_per_source = 1
waiting_per_network = 2
rate_per_session = "300kB"
`)
    await using mirror = owned
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
    const first = mirror.client(upserv, '1')
    await until(async () => (await upserv.cli(['top', '--json'])).stdout.includes('"state": "transfer"'))
    const second = mirror.client(upserv, '1')
    await second.client.waitForLine(/number 1 in line/)
    const { stderr } = await rsyncEnds(5, ['-a', `${upserv.url}/build-1/`, mirror.place()])
    assert.match(
      stderr,
      /^@ERROR: max connections \(1\) reached -- try again later \(waiting in line, of this address\)$/m,
    )
    const third = mirror.client(upserv, '1', ['--address=127.0.0.2'])
    await third.client.waitForLine(/number 2 in line/)
    const fourth = await rsyncEnds(5, ['-a', '--address=127.0.0.3', `${upserv.url}/build-1/`, mirror.place()])
    assert.match(fourth.stderr, /\(waiting in line, of this network\)$/m)
    for (const { client } of [first, second, third]) client.kill()
  })

  test('handshakes of one address and network: the oldest goes', async () => {
    const { mirror: owned, upserv } = await setUp(
      '[limits]\nhandshakes_per_source = 2\nhandshakes_per_network = 4\n',
    )
    await using _ = owned
    const clients = []
    for (let i = 0; i < 3; i++) clients.push(await RawClient.open(upserv.port))
    await upserv.process.waitForOutput('stderr', /too many handshakes: 2 were from this address/)
    for (const last of [2, 2, 3]) clients.push(await RawClient.open(upserv.port, `127.0.0.${last}`))
    await upserv.process.waitForOutput('stderr', /too many handshakes: of 4 in this network, 2 were from/)
    await rsyncSucceeds([`${upserv.url}/`])
    for (const client of clients) client[Symbol.dispose]()
  })

  test('connections of one network are counted: one more is turned away, and comes in when one has gone', async () => {
    const { mirror: owned, upserv } = await setUp('[limits]\nper_network = 4\n')
    await using _ = owned
    const clients = []
    for (const last of [1, 1, 2, 3]) clients.push(await RawClient.open(upserv.port, `127.0.0.${last}`))
    const { stderr } = await rsyncEnds(5, [`--address=127.0.0.4`, `${upserv.url}/`])
    assert.match(stderr, /^@ERROR: max connections \(4\) reached -- try again later \(from your network\)$/m)
    await upserv.process.waitForOutput('stderr', /turned away: too many connections from this network/)
    // Another /24.
    await rsyncSucceeds(['--address=127.0.1.1', `${upserv.url}/`])
    clients[0]![Symbol.dispose]()
    await until(async () => (await rsync(['--address=127.0.0.4', `${upserv.url}/`])).code === 0)
    for (const client of clients) client[Symbol.dispose]()
  })

  test('connections by http of one address', async () => {
    const { mirror: owned, upserv } = await setUp('[limits]\nhttp_per_source = 2\n', '127.0.0.1:0')
    await using _ = owned
    const { port } = new URL(httpUrlOf(upserv))
    const open = () =>
      new Promise<'closed' | { end: () => void }>((resolve) => {
        const socket = connect(Number(port), '127.0.0.1')
        socket.once('close', () => resolve('closed'))
        socket.on('error', () => {})
        socket.write('GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n')
        socket.once('data', () => resolve({ end: () => socket.destroy() }))
      })
    const [one, two] = [await open(), await open()]
    assert.ok(one !== 'closed' && two !== 'closed')
    assert.equal(await open(), 'closed')
    one.end()
    await until(async () => (await open()) !== 'closed')
    two.end()
  })
})

describe('what is fetched for strangers', { concurrency: 2 }, () => {
  const asks = (upserv: Upserv, id: string, place: string) =>
    rsync(['-a', `${upserv.url}/build-${id}/root/`, place])

  test('reading is one right, fetching another', async () => {
    const { mirror: owned, upserv } = await setUp(
      '[fetch]\nallow = ["10.0.0.0/8"]\n[[module]]\nname = "build-2"\nfetch_allow = ["127.0.0.1"]\n',
      '127.0.0.1:0',
    )
    await using mirror = owned
    const refused = await asks(upserv, '1', mirror.place())
    assert.match(refused.stderr, /^@ERROR: build-1 is not held here, and it is not fetched for you/m)
    const response = await fetch(`${httpUrlOf(upserv)}/builds/1.tar`)
    assert.equal(response.status, 403)
    assert.equal(
      (await fetch(`${httpUrlOf(upserv)}/parent/v1/builds/1`, { method: 'POST', body: '{"seals":[]}' }))
        .status,
      403,
    )
    assert.deepEqual(mirror.requestsFor('1'), [], 'nothing was asked of the upstream')
    assert.equal((await asks(upserv, '2', mirror.place())).code, 0, 'this table says otherwise')
    assert.equal((await upserv.cli(['fetch', '1'])).code, 0, 'who runs the server may')
    await mirror.assertServes(upserv, '1')
  })

  test('so many builds an hour: more are refused, what is held is served, what is joined is free', async () => {
    const { mirror: owned, upserv } = await setUp('[fetch]\nper_source = 2\n', '127.0.0.1:0')
    await using mirror = owned
    const both = await Promise.all([asks(upserv, '1', mirror.place()), asks(upserv, '1', mirror.place())])
    assert.deepEqual(
      both.map(({ code }) => code),
      [0, 0],
    )
    assert.equal((await asks(upserv, '2', mirror.place())).code, 0)
    const { code, stderr } = await asks(upserv, '3', mirror.place())
    assert.equal(code, 5)
    assert.match(
      stderr,
      /^@ERROR: this build is not held here, and as much was fetched for your address as may be in an hour: try again in 30 minutes \(Builds that are held/m,
    )
    const response = await fetch(`${httpUrlOf(upserv)}/builds/3.tar`)
    assert.equal(response.status, 429)
    assert.ok(Number(response.headers.get('retry-after')) > 1000)
    assert.deepEqual(mirror.requestsFor('3'), [])
    await mirror.assertServes(upserv, '1')
  })

  test('bytes count when they have come', async () => {
    const { mirror: owned, upserv } = await setUp('[fetch]\nbytes_per_source = 1000000\n')
    await using mirror = owned
    assert.equal((await asks(upserv, '1', mirror.place())).code, 0)
    assert.match((await asks(upserv, '2', mirror.place())).stderr, /as much was fetched for your address/)
    assert.deepEqual(mirror.requestsFor('2'), [])
  })
})

describe('logins', { concurrency: 2 }, () => {
  const module = '[[module]]\nname = "*"\nauth_users = ["alice"]\nsecrets_file = "SECRETS"\n'
  const login = (upserv: Upserv, password: string) =>
    rsync([`rsync://alice@127.0.0.1:${upserv.port}/build-2/`], { env: { RSYNC_PASSWORD: password } })

  test('those that fail are slowed, then refused unlooked at; others behind the address are not', async () => {
    const { mirror: owned, upserv } = await setUp(module)
    await using _ = owned
    assert.equal((await upserv.cli(['fetch', '2'])).code, 0)
    for (let i = 0; i < 5; i++)
      assert.match((await login(upserv, 'wrong')).stderr, /auth failed on module build-2/)
    const crowd = await Promise.all(Array.from({ length: 12 }, () => login(upserv, 'wrong')))
    const slowed = crowd.filter(({ stderr }) =>
      /too many logins from your address have failed: try again in \d+ seconds/.test(stderr),
    )
    const looked = crowd.filter(({ stderr }) => /auth failed on module build-2/.test(stderr))
    assert.equal(slowed.length + looked.length, 12)
    assert.ok(slowed.length >= 4, `${slowed.length} were refused`)
    assert.ok(looked.length <= 8, `${looked.length} were looked at`)
    const other = await rsync([`rsync://mallory@127.0.0.1:${upserv.port}/build-2/`], {
      env: { RSYNC_PASSWORD: 'x' },
    })
    assert.match(other.stderr, /auth failed/)
  })

  test('the weakest digest that is taken', async () => {
    const { mirror: owned, upserv } = await setUp(`[rsync]\nauth_digest_min = "sha256"\n${module}`)
    await using _ = owned
    assert.equal((await upserv.cli(['fetch', '2'])).code, 0)
    assert.equal((await login(upserv, 'sesame')).code, 0, 'a client of today has sha512')
    using client = await RawClient.open(upserv.port)
    client.send('@RSYNCD: 31.0\nbuild-2\n')
    assert.match(
      await client.line(),
      /^@ERROR: .*proves passwords by md5 alone, which is too weak here: use rsync 3\.2\.7 or later, which has sha512 sha256$/,
    )
    using listed = await RawClient.open(upserv.port)
    listed.send('@RSYNCD: 32.0 md5 sha1 sha256\nbuild-2\n')
    assert.match(await listed.line(), /^@RSYNCD: AUTHREQD /)
    using weak = await RawClient.open(upserv.port)
    weak.send('@RSYNCD: 32.0 md5 md4\nbuild-2\n')
    assert.match(await weak.line(), /^@ERROR: .*daemon-auth checksums: sha512 sha256$/)
  })
})
