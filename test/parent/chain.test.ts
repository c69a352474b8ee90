/** Servers that have each other as their source: a country's, a region's, a school's. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmodSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { ParentSource } from '../../src/source/parent.ts'
import { Spool } from '../../src/source/spool.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { freePort } from '../support/processes.ts'
import { Relay } from '../support/relay.ts'
import { rsyncEnds } from '../support/rsync.ts'
import { SleepClock } from '../support/sleep-clock.ts'
import { randomBytes, repetitiveText, SpecWriter, splice, type TreeSpec } from '../support/tree.ts'
import type { Upserv, UpservOptions } from '../support/upserv.ts'

/** Mostly waiting, so several fit into one processor. */
const CONCURRENCY = 2

/** A system, and a later one of which some files have changed here and there, as those of builds do. */
function systems(): [TreeSpec, TreeSpec] {
  const make = (later: boolean): TreeSpec => {
    const tree = new SpecWriter()
    tree.directory('')
    tree.directory('bin')
    tree.directory('etc')
    for (let n = 0; n < 40; n++) {
      const content = randomBytes(500 + n, 60_000)
      const edited = splice(content, 20_000, 40, Buffer.from(`compiled again ${n}`))
      tree.file(`bin/program-${n}`, later && n % 4 === 0 ? edited : content)
    }
    const large = randomBytes(7, 9_000_000)
    tree.file('bin/large', later ? splice(large, 5_000_000, 0, Buffer.from('inserted')) : large)
    tree.file('etc/text', repetitiveText(later ? 900 : 800))
    if (later) tree.file('etc/new', repetitiveText(50))
    tree.hardlink('bin/other-name', 'bin/program-1')
    tree.symlink('bin/sh', 'program-2')
    return tree.spec
  }
  return [make(false), make(true)]
}

const httpPort = (upserv: Upserv): number => Number(/ http:\/\/\S+:(\d+)/.exec(upserv.ready)![1])
const sealOf = (data: string, id: string): string =>
  readFileSync(join(data, 'builds', id, 'manifest'))
    .subarray(-32)
    .toString('hex')

/** The first file of a `randomTree(1, …, 1000)`. */
const FIRST = randomBytes(10_000, 1000)

/** A server whose source is another's HTTP port. */
async function startChild(
  mirror: Mirror,
  name: string,
  parentPort: number,
  options: Partial<UpservOptions> = {},
): Promise<{ upserv: Upserv; data: string }> {
  const data = mirror.path(name)
  const sources = [`upserv://127.0.0.1:${parentPort}`]
  return { data, upserv: await mirror.startUpserv({ data, sources, http: '127.0.0.1:0', ...options }) }
}

describe('servers in a row', { concurrency: CONCURRENCY }, () => {
  test('a chain of three: lines pass through, trees are the same, and an update costs what it costs a device', async () => {
    await using mirror = new Mirror()
    const [first, second] = systems()
    await mirror.publish('801', first, { sha256: true })
    await mirror.publish('803', second)
    await mirror.startNginx('2m')
    const country = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const region = await startChild(mirror, 'region', httpPort(country))
    await using link = await Relay.to(httpPort(region.upserv))
    const school = await startChild(mirror, 'school', link.port)

    // Nobody has it: the school waits for the region, which waits for the country.
    const { client, place } = mirror.client(school.upserv, '801')
    await client.waitForLine(/127\.0\.0\.1:\d+ says: 127\.0\.0\.1:\d+ says: downloading and unpacking: \d+ %/)
    await client.ends(0)
    mirror.assertTree('801', place)
    const { stdout: listed } = await rsyncEnds(0, [`${school.upserv.url}/`])
    assert.match(listed, /build-801 .*checked by sha256 \(says 127\.\S+\) \(says 127\.\S+\)\n/)

    const archive = statSync(mirror.archive('803')).size
    const before = link.received + link.sent
    await mirror.assertServes(school.upserv, '803')
    const cost = link.received + link.sent - before
    const stats = await rsyncEnds(0, ['-aHz', '--stats', `${school.upserv.url}/build-803/root/`, place])
    const device = Number(/Total bytes received: ([\d,]+)/.exec(stats.stdout)![1]!.replaceAll(',', ''))
    assert.ok(cost < archive / 20, `${cost} bytes came for an archive of ${archive}`)
    assert.ok(cost < device * 1.5 + 20_000, `${cost} bytes came, a device's update takes ${device}`)

    for (const id of ['801', '803']) {
      const seals = [mirror.data, region.data, school.data].map((data) => sealOf(data, id))
      assert.equal(new Set(seals).size, 1, 'the manifest is the same everywhere')
      const contents = [mirror.data, school.data].map((data) =>
        readFileSync(join(data, 'builds', id, 'contents')),
      )
      assert.ok(contents[0]!.equals(contents[1]!))
    }

    const available = await rsyncEnds(0, [`${school.upserv.url}/available/`])
    assert.match(available.stdout, / 801\n.* 803\n/s)

    // The uplink is gone: what is held is served, what is not is told of.
    await region.upserv.kill9()
    await mirror.assertServes(school.upserv, '801')
  })

  test("upstream's own contents file passes through, and is compressed on the link", async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, 1000))
    const lines = Array.from(
      { length: 20_000 },
      (_, n) => `/usr/share/some/path/${n % 100} 644 0:0 ${n * 7919}\n`,
    )
    const contents = Buffer.from(lines.join(''))
    writeFileSync(`${mirror.archive('1')}.contents`, contents)
    await mirror.startNginx()
    const config = mirror.path('country.toml')
    writeFileSync(
      config,
      `[[source]]\nname = "nginx"\nurl = "${mirror.nginx.url}/{build}"\ncontents = "{url}.contents"\n`,
    )
    const country = await mirror.startUpserv({ config, sources: [], http: '127.0.0.1:0' })
    await using link = await Relay.to(httpPort(country))
    const school = await startChild(mirror, 'school', link.port)
    await mirror.assertServes(school.upserv, '1')
    assert.ok(readFileSync(join(school.data, 'builds', '1', 'contents')).equals(contents))
    assert.ok(link.received < contents.length / 4, `${link.received} bytes came for ${contents.length}`)
  })

  test('a rate holds for all that a parent sends: manifest, contents and blobs', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 4, 1000))
    await mirror.startNginx()
    const parent = await mirror.startUpserv({ http: '127.0.0.1:0' })
    await mirror.assertServes(parent, '1')
    const clock = new SleepClock()
    const source = new ParentSource(
      {
        ...{ name: 'parent', builds: '.', checksum: undefined, contents: undefined },
        url: `upserv://127.0.0.1:${httpPort(parent)}`,
        rates: [{ from: 8 * 60, to: 18 * 60, bytesPerSecond: 1 }],
      },
      { clock },
    )
    const spool = new Spool(mirror.path('spool'))
    const [signal, onEvent] = [new AbortController().signal, () => {}]
    /** Slow until six o'clock, which any of them takes longer than. */
    const minutes = async <T>(work: () => Promise<T>): Promise<T> => {
      clock.set(17, 59)
      const result = await work()
      assert.ok(clock.slept >= 60_000, `${work} took ${clock.slept} ms`)
      return result
    }
    const offer = await minutes(() => source.offer('1', { signal, onEvent, held: [] }))
    await minutes(() => offer.contents())
    const wanted = [
      { digest: createHash('sha256').update(FIRST).digest(), size: FIRST.length, base: undefined },
    ]
    const readBase = async () => undefined
    const chunks = await minutes(() => Array.fromAsync(offer.blobs(wanted, { spool, readBase })))
    assert.ok(Buffer.concat(chunks).equals(FIRST))
    await spool.discard()
  })

  test('a link that breaks again and again: each byte comes about once', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 40, 400_000))
    await mirror.startNginx()
    const parent = await mirror.startUpserv({ http: '127.0.0.1:0' })
    await mirror.assertServes(parent, '1')
    await using link = await Relay.to(httpPort(parent))
    const { upserv, data } = await startChild(mirror, 'child', link.port)
    link.cutAfter = 5_500_000
    const { client, place } = mirror.client(upserv, '1')
    await client.waitForLine(/going on at/)
    link.cutAfter = 6_000_000
    await client.ends(0)
    mirror.assertTree('1', place)
    assert.ok(link.received < 16_000_000 + 2 * 5_000_000, `${link.received} bytes came for 16 MB`)
    assert.deepEqual(buildsOnDisk(data), ['1'])
  })

  test('either side is killed in the middle: a child goes on where it was', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 60, 400_000))
    await mirror.startNginx()
    const http = `127.0.0.1:${await freePort()}`
    let parent = await mirror.startUpserv({ http })
    await mirror.assertServes(parent, '1')
    await using link = await Relay.to(httpPort(parent))
    const child = await startChild(mirror, 'child', link.port)

    link.cutAfter = 12_000_000
    const waiting = mirror.client(child.upserv, '1')
    await waiting.client.waitForLine(/trying again|going on at/)
    await parent.kill9()
    link.down = true
    await child.upserv.kill9()
    const had = link.received

    link.down = false
    parent = await mirror.startUpserv({ http })
    const again = await startChild(mirror, 'child', link.port)
    const { client, place } = mirror.client(again.upserv, '1')
    const line = await client.waitForLine(/going on at/)
    assert.match(line.text, /going on at (?:[4-9]|1\d)\.?\d* MB/)
    await client.ends(0)
    mirror.assertTree('1', place)
    assert.ok(link.received - had < 21_000_000, `${link.received - had} bytes more for 24 MB`)
  })

  test('a build that the parent cannot have, a parent that is not there, one that is no upserv', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 2, 1000))
    await mirror.startNginx()
    const parent = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const child = await startChild(mirror, 'child', httpPort(parent))
    const absent = await mirror.sync(child.upserv, '999', 5)
    assert.match(absent.stderr + absent.stdout, /@ERROR: build-999 is not published by 127\.0\.0\.1:\d+/)
    const web = await startChild(mirror, 'web', mirror.nginx.port)
    const none = await mirror.sync(web.upserv, '1', 5)
    assert.match(none.stderr + none.stdout, /@ERROR: .*(?:405|404|is not published)/)
    assert.deepEqual(buildsOnDisk(web.data), [])
  })

  test('rules of a module hold for children: addresses, passwords, hidden files', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 2, 1000))
    await mirror.publish('2', randomTree(2, 2, 1000))
    await mirror.publish('3', randomTree(3, 2, 1000))
    await mirror.startNginx()
    const [secrets, config] = [mirror.path('secrets'), mirror.path('upserv.toml')]
    writeFileSync(secrets, 'school:wisdom\n')
    chmodSync(secrets, 0o600)
    writeFileSync(
      config,
      `[[module]]
      name = "build-1"
      hosts_deny = ["127.0.0.1"]
      [[module]]
      name = "build-2"
      auth_users = ["school"]
      secrets_file = "${secrets}"
      [[module]]
      name = "build-3"
      exclude = ["file-0"]
    `,
    )
    const parent = await mirror.startUpserv({ http: '127.0.0.1:0', config })
    const child = await startChild(mirror, 'child', httpPort(parent))
    for (const id of ['1', '2', '3']) {
      const refused = await mirror.sync(child.upserv, id, 5)
      assert.match(refused.stderr + refused.stdout, /answers 403: access denied/)
    }
    const known = await mirror.startUpserv({
      data: mirror.path('known'),
      sources: [`upserv://school:wisdom@127.0.0.1:${httpPort(parent)}`],
    })
    await mirror.assertServes(known, '2')
  })
})
