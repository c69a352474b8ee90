/**
 * The modules beside those of builds, as real clients see them: channels and how a device polls them, all
 * builds at once, and what could be fetched.
 */
import assert from 'node:assert/strict'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { WaitingClient } from '../support/client.ts'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import { parseStats, rsync, rsyncEnds, rsyncSucceeds } from '../support/rsync.ts'
import { assertSameTree, beneath, carriedBy, snapshot } from '../support/snapshot.ts'
import { firstBuild, secondBuild } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const PROTOCOLS = [27, 29, 30, 31, 32]
/** What a poll that finds nothing new may cost on the wire, in both directions together. */
const MAX_POLL_BYTES = 1000

/** A mirror whose builds are files in a directory, and a configuration with channels. */
class Channelled extends Mirror {
  readonly config = this.path('upserv.toml')

  configure(channels: Readonly<Record<string, string>>): void {
    const lines = Object.entries(channels).map(([name, id]) => `${name} = "${id}"`)
    const source = `name = "stick"\nbuilds = "^[0-9]+$"\nurl = "file://${this.path('www')}/{build}"`
    writeFileSync(this.config, `[channels]\n${lines.join('\n')}\n[[source]]\n${source}\n`)
  }

  start(): Promise<Upserv> {
    return this.startUpserv({ config: this.config })
  }
}

describe('modules', () => {
  let mirror: Channelled
  let upserv: Upserv
  before(async () => {
    mirror = new Channelled()
    const first = firstBuild()
    await mirror.publish('1', first)
    await mirror.publish('2', secondBuild(first))
    await mirror.publish('3', randomTree(3, 2, 1000))
    mirror.configure({ stable: '1', testing: '2', far: '404' })
    upserv = await mirror.start()
    for (const id of ['1', '2']) await mirror.assertServes(upserv, id)
  })
  after(() => mirror?.[Symbol.asyncDispose]())

  for (const protocol of PROTOCOLS) {
    describe(`protocol ${protocol}`, { concurrency: 3 }, () => {
      const tolerance = carriedBy(protocol)

      test(`protocol ${protocol}: the list of modules`, async () => {
        const { stdout } = await rsyncSucceeds([`${upserv.url}/`], { protocol })
        const names = stdout
          .trimEnd()
          .split('\n')
          .map((line) => line.split(/\s/)[0])
        const channels = ['channel-far', 'channel-stable', 'channel-testing']
        assert.deepEqual(
          names.filter((name) => name !== 'build-3'),
          ['build-1', 'build-2', ...channels, 'channels', 'builds', 'available'],
        )
        assert.match(stdout, /^channel-stable +\tbuild 1$/m)
      })

      test(`protocol ${protocol}: a channel is its build`, async () => {
        const device = mirror.place()
        const full = await rsyncSucceeds(['-aH', `${upserv.url}/channel-stable/root/`, device], { protocol })
        assert.equal(full.stdout, '', 'a channel says nothing')
        assertSameTree(mirror.snapshotOf('1'), snapshot(device), tolerance)
        const update = ['-aHc', '--delete', '--stats', `${upserv.url}/channel-testing/root/`, device]
        const stats = parseStats((await rsyncSucceeds(update, { protocol })).stdout)
        assertSameTree(mirror.snapshotOf('2'), snapshot(device), tolerance)
        assert.ok(stats.matched > 4_000_000)
        const [ours, theirs] = ['channel-stable', 'build-1'].map((module) =>
          rsyncSucceeds(['-r', '--list-only', `${upserv.url}/${module}/`], { protocol }),
        )
        assert.equal((await ours)!.stdout, (await theirs)!.stdout)
      })

      test(`protocol ${protocol}: the list of builds opens none`, async () => {
        const { stdout } = await rsyncSucceeds([`${upserv.url}/builds/`], { protocol })
        const lines = stdout
          .trimEnd()
          .split('\n')
          .filter((line) => !line.endsWith(' 3'))
        assert.equal(lines.length, 3, stdout)
        for (const [i, name] of ['.', '1', '2'].entries()) {
          assert.match(
            lines[i]!,
            new RegExp(`^drwxr-xr-x +[\\d,]+ 20\\d\\d/\\S+ [\\d:]+ ${name.replace('.', '\\.')}$`),
          )
        }
      })

      test(`protocol ${protocol}: one of the builds`, async () => {
        const device = mirror.place()
        await rsyncSucceeds(['-aH', `${upserv.url}/builds/1/root/`, device], { protocol })
        assertSameTree(mirror.snapshotOf('1'), snapshot(device), tolerance)
        const { stdout } = await rsyncSucceeds(['-aHi', `${upserv.url}/build-1/root/`, device], { protocol })
        assert.equal(stdout, '', 'as from the module of the build')
      })

      test(`protocol ${protocol}: all builds, and again without one`, async () => {
        const device = mirror.place()
        mkdirSync(join(device, '77/root'), { recursive: true })
        const args = ['-aH', '--delete', '--exclude=/3', `${upserv.url}/builds/`, device]
        await rsyncSucceeds(args, { protocol })
        assert.deepEqual(readdirSync(device).sort(), ['1', '2'])
        const whole = snapshot(device)
        for (const id of ['1', '2']) {
          assertSameTree(
            mirror.snapshotOf(id),
            atItsOwn(beneath(whole, `${id}/root`), `${id}/root/`),
            tolerance,
          )
        }
        const { stdout } = await rsyncSucceeds(['-i', ...args], { protocol })
        assert.equal(stdout, '')
        await rsyncSucceeds(['-c', ...args], { protocol })
        assertSameTree(whole, snapshot(device))
      })

      test(`protocol ${protocol}: contents of every build, by a pattern`, async () => {
        const device = mirror.place()
        mkdirSync(device)
        await rsyncSucceeds(['-aR', `${upserv.url}/builds/[12]/contents`, device], { protocol })
        for (const id of ['1', '2'])
          assert.match(readFileSync(join(device, id, 'contents'), 'utf8'), /^#mtree/)
      })

      test(`protocol ${protocol}: what could be fetched`, async () => {
        const { stdout } = await rsyncSucceeds([`${upserv.url}/available/`], { protocol })
        const names = stdout
          .trimEnd()
          .split('\n')
          .map((line) => line.split(/\s+/).at(-1))
        assert.deepEqual(names, ['.', '1', '2', '3'])
        const device = mirror.place()
        await rsyncSucceeds(['-a', `${upserv.url}/available/3`, device], { protocol })
        assert.equal(readFileSync(device, 'utf8'), 'from stick\n')
        const published = statSync(mirror.archive('3')).mtimeMs
        assert.equal(statSync(device).mtimeMs, Math.floor(published / 1000) * 1000)
      })

      for (const options of [
        ['--append'],
        ['--append-verify'],
        ['-z', '--no-W'],
        ['-c'],
        ['--inplace', '-I'],
      ]) {
        test(`protocol ${protocol}: a channel's file with ${options.join(' ')}`, async () => {
          const device = mirror.place()
          writeFileSync(device, '1') // the beginning of what is there
          await rsyncSucceeds(['-a', ...options, `${upserv.url}/channels/stable`, device], { protocol })
          assert.equal(readFileSync(device, 'utf8'), '1\n')
        })
      }

      test(`protocol ${protocol}: a large file in place of a channel's is no trouble`, async () => {
        const device = mirror.place()
        writeFileSync(device, Buffer.alloc(3_000_000, 'x'))
        await rsyncSucceeds(['-a', '-B700', `${upserv.url}/channels/stable`, device], { protocol })
        assert.equal(readFileSync(device, 'utf8'), '1\n')
      })

      test(`protocol ${protocol}: nothing can be written to any of them`, async () => {
        for (const module of ['channels', 'builds', 'available', 'channel-stable']) {
          const { code } = await rsync(['-a', mirror.config, `${upserv.url}/${module}/`], { protocol })
          assert.notEqual(code, 0, module)
        }
      })
    })
  }

  test('a channel whose build is not held has it fetched', async () => {
    const { stdout, code, stderr } = await rsync(['-a', `${upserv.url}/channel-far/root/`, mirror.place()])
    assert.equal(code, 5, stdout)
    assert.match(stderr, /^@ERROR: build-404 is not published by stick/)
  })

  test('names that are none: the nearest are told', async () => {
    const asked = async (module: string) => (await rsyncEnds(5, [`${upserv.url}/${module}/`])).stderr
    assert.match(
      await asked('channel-stabel'),
      /^@ERROR: no such channel: channel-stabel; there is channel-stable\n/,
    )
    assert.match(await asked('channel-x'), /there is channel-far, channel-stable, channel-testing\n/)
    assert.match(await asked('channel-'), /^@ERROR: Unknown module 'channel-'/)
    assert.match(await asked('build'), /^@ERROR: Unknown module 'build'/)
    const gone = await rsyncEnds(23, [`${upserv.url}/builds/9/root/`])
    assert.match(gone.stderr, /"builds\/9\/root" failed: No such file/)
  })
})

test('a poll costs a kilobyte, and sees another build although its id is as long', async () => {
  await using mirror = new Channelled()
  await mirror.publish('802', randomTree(802, 1, 100))
  const device = mirror.place()
  const file = join(device, 'stable')
  const poll = async (upserv: Upserv, ...args: string[]) => {
    await using relay = await startRelay(upserv.port)
    const { stdout } = await rsyncSucceeds(['-ai', ...args, `${relay.url}/channels/`, device])
    return { stdout, bytes: relay.bytes }
  }
  const serving = async (channels: Record<string, string>, work: (upserv: Upserv) => Promise<void>) => {
    mirror.configure(channels)
    const upserv = await mirror.start()
    await work(upserv)
    await upserv.stop()
  }

  const times: number[] = []
  for (const id of ['802', '803', '802']) {
    await serving({ stable: id, testing: '900' }, async (upserv) => {
      const { stdout, bytes } = await poll(upserv)
      assert.match(stdout, /^>f\S+ stable$/m)
      assert.ok(bytes < 2 * MAX_POLL_BYTES, `${bytes} bytes for news`)
      assert.equal(readFileSync(file, 'utf8'), `${id}\n`)
      if (times.length > 0) assert.doesNotMatch(stdout, /testing/, 'its build is the same')
      const again = await poll(upserv)
      assert.equal(again.stdout, '')
      assert.ok(again.bytes < MAX_POLL_BYTES, `${again.bytes} bytes for no news`)
    })
    times.push(statSync(file).mtimeMs)
  }
  assert.deepEqual(
    times,
    [...new Set(times)].sort((a, b) => a - b),
    'times go forward',
  )
  assert.ok(times.every((time) => Math.abs(time - Date.now()) < 600_000))

  // After a restart nothing is new, nor after one with a file that the clock seems to be behind.
  await serving({ stable: '802', testing: '900' }, async (upserv) => {
    assert.equal((await poll(upserv)).stdout, '')
    const { bytes } = await poll(upserv, '-q', '--exclude=testing')
    assert.ok(bytes < MAX_POLL_BYTES)
  })
  // The channel goes, and comes back.
  await serving({ testing: '900' }, async (upserv) => {
    assert.match((await poll(upserv, '--delete')).stdout, /^\*deleting +stable$/m)
  })
  await serving({ stable: '802', testing: '900' }, async (upserv) => {
    await poll(upserv)
    assert.equal(statSync(file).mtimeMs, times.at(-1))
  })
})

test('a build in use through `builds` stays; one that is only listed may go', async () => {
  await using mirror = new Channelled()
  for (const id of ['1', '2']) await mirror.publish(id, randomTree(Number(id), 3, 400_000))
  mirror.configure({})
  const upserv = await mirror.start()
  for (const id of ['1', '2']) await mirror.sync(upserv, id)
  // Both before the client asks, so that the order of their last accesses is the other way round.
  for (const [id, at] of [
    ['1', 1000],
    ['2', 2000],
  ] as const)
    utimesSync(join(mirror.data, 'builds', id, 'accessed'), at, at)

  const client = new WaitingClient([
    '-aH',
    '-v',
    '--outbuf=L',
    '--bwlimit=200k',
    `${upserv.url}/builds/1/`,
    mirror.place(),
  ])
  await client.waitForLine(/^root\/file-1$/)
  client.freeze()
  const listing = connect(upserv.port, '127.0.0.1')
  listing.write('@RSYNCD: 31.0 md5\nbuilds\n')
  await sees(listing, /@RSYNCD: OK\n/)

  const inUse = async () => {
    const builds = JSON.parse((await upserv.cli(['list', '--json'])).stdout) as {
      id: string
      inUse: boolean
    }[]
    return builds.filter((build) => build.inUse).map(({ id }) => id)
  }
  assert.deepEqual(await inUse(), ['1'])
  assert.match((await upserv.cli(['remove', '1'])).stderr, /build 1 is in use/)
  assert.equal((await upserv.cli(['remove', '2'])).code, 0)
  assert.deepEqual(buildsOnDisk(mirror.data), ['1'])
  listing.destroy()
  client.kill()
  await client.ended
  for (let tries = 0; (await upserv.cli(['remove', '1'])).code !== 0; tries++)
    assert.ok(tries < 20, 'is never let go')
  await upserv.stop()
})

test('without channels and sources there are no such modules, and they say so', async () => {
  await using mirror = new Mirror()
  const upserv = await mirror.startUpserv()
  const { stdout } = await rsyncSucceeds([`${upserv.url}/`])
  assert.match(stdout, /^builds\s+\t[^\n]+\n$/)
  assert.match(
    (await rsyncEnds(5, [`${upserv.url}/channels/`])).stderr,
    /^@ERROR: no channels are configured/,
  )
  assert.match((await rsyncEnds(5, [`${upserv.url}/available/`])).stderr, /^@ERROR: no source is configured/)
  assert.equal((await rsyncSucceeds([`${upserv.url}/builds/`])).stdout.trim().split('\n').length, 1)
  assert.ok(!existsSync(join(mirror.data, 'channels.json')))
  await upserv.stop()
})

test('sources that can not tell what they have are named', async () => {
  await using mirror = new Mirror()
  await mirror.publish('5', randomTree(5, 1, 10))
  const sources = [
    `file://${mirror.path('www')}/{build}`,
    'http://127.0.0.1:9/{build}.tar',
    `file://${mirror.path('unplugged')}/{build}.tar`,
  ]
  const upserv = await mirror.startUpserv({ sources })
  const { stdout } = await rsyncSucceeds([`${upserv.url}/available/`])
  assert.match(
    stdout,
    /^there may be more: 127.0.0.1:9 cannot be listed; file-2 \S+unplugged cannot be read \(ENOENT\)\n/,
  )
  assert.match(stdout, / 5\n$/)
  await upserv.stop()
})

/** What is beneath a directory, where names of linked files are relative to it, too. */
function atItsOwn(tree: ReturnType<typeof snapshot>, prefix: string): ReturnType<typeof snapshot> {
  const cut = (link: string) => (link.startsWith(prefix) ? link.slice(prefix.length) : `outside: ${link}`)
  return new Map([...tree].map(([path, entry]) => [path, { ...entry, links: entry.links.map(cut) as never }]))
}

async function sees(socket: Socket, pattern: RegExp): Promise<void> {
  let seen = ''
  for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
    seen += chunk
    if (pattern.test(seen)) return
  }
  assert.fail(`only saw ${seen}`)
}

/** Hands bytes on and counts them. */
async function startRelay(port: number) {
  const sockets = new Set<Socket>()
  const relay = {
    url: '',
    bytes: 0,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  const server = createServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from)
      from.on('data', (chunk) => {
        relay.bytes += chunk.length
      })
      from.on('error', () => to.destroy())
      from.pipe(to)
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  relay.url = `rsync://127.0.0.1:${(server.address() as { port: number }).port}`
  return relay
}
