/** Every command, with a server that owns the data directory and without one: they do and say the same. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { makeCertificate } from '../support/certificates.ts'
import { buildsOnDisk, bytesOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import type { RunResult } from '../support/processes.ts'
import { upserv as runUpserv, startUpserv, type Upserv } from '../support/upserv.ts'

for (const kind of ['with a server', 'without a server'] as const) {
  describe(`commands, ${kind}`, () => {
    let mirror: Mirror
    let upserv: Upserv | undefined
    let config: string

    before(async () => {
      mirror = new Mirror()
      await mirror.publish('1', randomTree(1, 5, 20_000), { sha256: true })
      await mirror.publish('2', randomTree(1, 8, 20_000), { suffix: 'tar.zst' }) // holds all that 1 holds
      await mirror.publish('9', randomTree(9, 3, 400_000))
      await mirror.startNginx()
      config = mirror.path('upserv.toml')
      writeFileSync(config, `[[source]]\nname = "mirror"\nurl = "${mirror.nginx.url}/{build}"\n`)
      if (kind === 'with a server') upserv = await mirror.startUpserv({ config, sources: [] })
    })
    after(async () => {
      await upserv?.stop()
      await mirror?.[Symbol.asyncDispose]()
    })

    const cli = (...args: string[]): Promise<RunResult> =>
      runUpserv([...args, '--data', mirror.data, '--config', config])
    async function cliEnds(code: number, ...args: string[]): Promise<RunResult> {
      const result = await cli(...args)
      assert.equal(result.code, code, `${result.command}\n${result.stdout}${result.stderr}`)
      // Whatever happens, nobody is shown where in the program it happened.
      assert.doesNotMatch(result.stderr, /\n\s+at |undefined|internal error/)
      return result
    }
    const list = async (): Promise<Record<string, unknown>[]> =>
      JSON.parse((await cliEnds(0, 'list', '--json')).stdout)

    test('list: nothing', async () => {
      assert.deepEqual(await list(), [])
      assert.match((await cliEnds(0, 'list')).stdout, /^No builds/)
    })

    test('fetch tells how it goes on stderr, and what came of it on stdout', async () => {
      const { stdout, stderr } = await cliEnds(0, 'fetch', '1')
      assert.equal(stdout, 'build 1 is fetched\n')
      assert.match(
        stderr,
        /^build-1 is not here yet.*\n(?:build-1: looking for it.*\n)*build-1: found http.*\n/,
      )
      assert.equal((await cliEnds(0, 'fetch', '1')).stdout, 'build 1 is held already\n')
      await cliEnds(0, 'fetch', '2')
    })

    test('fetch of what is not published, and of what is no id', async () => {
      assert.match(
        (await cliEnds(1, 'fetch', '404')).stderr,
        /(^|\n)upserv: build-404 is not published by mirror/,
      )
      assert.match(
        (await cliEnds(1, 'fetch', '../1')).stderr,
        /^upserv: "\.\.\/1" is no build id\n {8}An id has/,
      )
    })

    test('list --json has what scripts rely on', async () => {
      const [first, second, ...more] = await list()
      assert.deepEqual(more, [])
      const { accessed, fetched, bytes, storedBytes, url, ...rest } = second!
      assert.match(url as string, /^http:.*\/2$/)
      assert.deepEqual(rest, {
        id: '2',
        files: 8 + 1,
        entries: 12,
        sticky: false,
        inUse: false,
        source: 'mirror',
        vouchers: [],
        checkedBy: '',
        channels: [],
        damaged: null,
      })
      assert.equal(bytes, 160_000)
      for (const time of [accessed, fetched]) {
        assert.equal(new Date(time as string).toISOString(), time)
        assert.ok(Math.abs(Date.parse(time as string) - Date.now()) < 600_000)
      }
      // All of 1 is also in 2: removing it frees its own manifest and the like, removing 2 frees three files.
      assert.equal(first!.bytes, 100_000)
      assert.ok((first!.storedBytes as number) < 5_000, `${first!.storedBytes}`)
      assert.ok((storedBytes as number) > 60_000 && (storedBytes as number) < 70_000, `${storedBytes}`)
      assert.match((await cliEnds(0, 'list')).stdout, /^BUILD .*\n1 .*\n2 .*mirror\n$/)
    })

    test('available: what sources tell, and which of them do not', async () => {
      const stick = mirror.path('stick')
      mkdirSync(stick)
      for (const name of ['os10.tar', 'os9.tar', 'os9.tar.md5']) writeFileSync(join(stick, name), '')
      utimesSync(join(stick, 'os9.tar'), 86_400, 86_400)
      const stickConfig = mirror.path('stick.toml')
      const source = `[[source]]\nname = "stick"\nurl = "file://${stick}/os{build}.tar"\n`
      writeFileSync(stickConfig, readFileSync(config, 'utf8') + source)
      const withStick = ['--data', mirror.path('other'), '--config', stickConfig]
      const other = upserv && (await startUpserv({ data: mirror.path('other'), config: stickConfig }))
      const { builds, gaps } = JSON.parse((await runUpserv(['available', '--json', ...withStick])).stdout)
      assert.deepEqual(gaps, [{ source: 'mirror', reason: 'cannot be listed' }])
      assert.deepEqual(
        builds.map(({ id }: { id: string }) => id),
        ['9', '10'],
      )
      assert.deepEqual(builds[0], {
        id: '9',
        source: 'stick',
        url: `file://${stick}/os9.tar`,
        published: '1970-01-02T00:00:00.000Z',
      })
      const { stdout } = await runUpserv(['available', ...withStick])
      assert.match(
        stdout,
        /^BUILD {2}SOURCE .*\n9 .* 1970-01-02 00:00 {2}file:.*os9\.tar\n10 .*\nThere may be more: mirror cannot be listed\.\n$/,
      )
      await other?.stop()
      assert.match(
        (await cliEnds(0, 'available')).stdout,
        /^No source tells of any build\.\nThere may be more: mirror/,
      )
    })

    test('status', async () => {
      const status = JSON.parse((await cliEnds(0, 'status', '--json')).stdout)
      assert.equal(status.builds, 2)
      assert.equal(status.dataDir, mirror.data)
      assert.equal(status.budgetBytes, 16e9)
      assert.deepEqual(status.fetches, [])
      const onDisk = bytesOnDisk(mirror.data)
      // What files take on a disk beyond their length counts as well (test/fault/gc.test.ts).
      const more = status.usedBytes - onDisk
      assert.ok(more >= 0 && more < 150_000, `says ${status.usedBytes}, takes ${onDisk}`)
      assert.deepEqual(status.damaged, [])
      if (upserv) assert.deepEqual(status.listening, [`127.0.0.1:${upserv.port}`])
      const { stdout } = await cliEnds(0, 'status')
      assert.match(stdout, upserv ? new RegExp(`rsync://127.0.0.1:${upserv.port}`) : /listening +no/)
      assert.match(stdout, /of 16 GB, 2 builds/)
    })

    test('pin and unpin are touch and rm of the sticky file', async () => {
      const sticky = join(mirror.data, 'builds', '1', 'sticky')
      await cliEnds(0, 'pin', '1')
      assert.ok(existsSync(sticky))
      assert.equal((await list())[0]!.sticky, true)
      assert.match(
        (await cliEnds(1, 'remove', '1')).stderr,
        /^upserv: build 1 is sticky\n {8}First: upserv unpin 1\n/,
      )
      await cliEnds(0, 'unpin', '1')
      assert.ok(!existsSync(sticky))
      writeFileSync(sticky, '')
      assert.equal((await list())[0]!.sticky, true)
      rmSync(sticky)
      assert.equal((await list())[0]!.sticky, false)
      assert.match((await cliEnds(1, 'pin', '404')).stderr, /^upserv: build 404 is not held\n/)
    })

    test('import makes a build of a file', async () => {
      const file = mirror.archive('9')
      assert.equal(
        (await cliEnds(0, 'import', file, '--as', 'by-hand')).stdout,
        'build by-hand is imported\n',
      )
      const imported = (await list()).find(({ id }) => id === 'by-hand')!
      assert.equal(imported.source, 'import')
      assert.equal(imported.bytes, 1_200_000)
      assert.match((await cliEnds(1, 'import', file, '--as', '1')).stderr, /^upserv: build 1 is held already/)
      assert.match((await cliEnds(1, 'import', '/no/such/file', '--as', '5')).stderr, /\/no\/such\/file/)
      assert.match((await cliEnds(1, 'import', file, '--as', 'a/b')).stderr, /"a\/b" is no build id/)
      assert.ok(statSync(file).size > 0, "the file is the operator's, and stays")
      const junk = mirror.path('junk')
      writeFileSync(junk, 'This is no archive.\n')
      assert.match((await cliEnds(1, 'import', junk, '--as', '5')).stderr, /junk: .*archive/)
      assert.deepEqual(mirror.incoming(), [])
    })

    test('remove', async () => {
      if (upserv) await mirror.sync(upserv, 'by-hand')
      await cliEnds(0, 'remove', 'by-hand')
      assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])
      assert.match((await cliEnds(1, 'remove', 'by-hand')).stderr, /^upserv: build by-hand is not held/)
    })

    test('remove is refused while a client is at it', { skip: kind === 'without a server' }, async () => {
      await cliEnds(0, 'fetch', '9')
      const { client } = mirror.client(upserv!, '9', ['-v', '--outbuf=L', '--bwlimit=200k'])
      await client.waitForLine(/^file-1$/)
      client.freeze()
      assert.equal((await list()).find(({ id }) => id === '9')!.inUse, true)
      assert.match((await cliEnds(1, 'remove', '9')).stderr, /^upserv: build 9 is in use\n/)
      assert.equal(JSON.parse((await cliEnds(0, 'status', '--json')).stdout).sessions, 1)
      client.kill()
      await client.ended
      for (let tries = 0; (await cli('remove', '9')).code !== 0; tries++)
        assert.ok(tries < 20, 'is never let go')
    })

    test('--json: what was done, as one object', { skip: kind === 'without a server' }, async () => {
      const done = async (...args: string[]) => JSON.parse((await cliEnds(0, ...args, '--json')).stdout)
      assert.deepEqual(await done('fetch', '1'), { id: '1', fetched: false })
      assert.deepEqual(await done('unpin', '1'), { id: '1', sticky: false })
      const file = mirror.path('2.upserv')
      const { bytes, ...exported } = await done('export', '2', file, '--have', '1')
      assert.deepEqual(exported, { id: '2', file, have: ['1'] })
      assert.equal(bytes, statSync(file).size)
      assert.match(
        (await cliEnds(1, 'export', '2', '-', '--json')).stderr,
        /^upserv: --json would be written/,
      )
      assert.deepEqual(await done('remove', '2'), { id: '2', removed: true })
      assert.deepEqual(await done('import', file), { imported: ['2'] })
      assert.deepEqual(await done('reload'), { restart: [] })
    })

    test('gc', async () => {
      const dry = JSON.parse((await cliEnds(0, 'gc', '--dry-run', '--json')).stdout)
      assert.deepEqual([dry.dryRun, dry.evicted], [true, []])
      const report = JSON.parse((await cliEnds(0, 'gc', '--json')).stdout)
      assert.deepEqual([report.dryRun, report.evicted, report.deadBytes], [false, [], 0])
      assert.match((await cliEnds(0, 'gc')).stdout, /of 16 GB are used\.\n0 builds were evicted; 0 B/)
      assert.deepEqual(buildsOnDisk(mirror.data), ['1', '2'])
    })
  })
}

test('without a server, no command opens a port that the configuration names', async () => {
  await using mirror = new Mirror()
  await mirror.publish('1', randomTree(1, 3, 1000))
  await makeCertificate(mirror.path())
  // Whoever tries to listen there finds it taken.
  const taken = createServer().listen(0, '127.0.0.1')
  await once(taken, 'listening')
  try {
    const at = `"127.0.0.1:${(taken.address() as AddressInfo).port}"`
    const listeners = ['rsync', 'http'].map((table) => `[${table}]\nlisten = ${at}\ntls_listen = ${at}\n`)
    const tls = `[tls]\ncert = "${mirror.path('cert.pem')}"\nkey = "${mirror.path('key.pem')}"\n`
    const source = `[[source]]\nname = "mirror"\nurl = "file://${mirror.path('www')}/{build}"\n`
    const config = mirror.path('upserv.toml')
    writeFileSync(config, [...listeners, tls, source].join(''))
    const own = ['--data', mirror.data, '--config', config]
    const fetched = await runUpserv(['fetch', '1', ...own])
    assert.equal(fetched.code, 0, fetched.stderr)
    const verified = await runUpserv(['verify', ...own])
    assert.equal(verified.code, 0, verified.stderr)
  } finally {
    taken.close()
  }
})

test('LOG_LEVEL is taken in any case, and what is no level is told', async () => {
  await using mirror = new Mirror()
  const listed = (level: string) =>
    runUpserv(['list', '--data', mirror.data], { env: { ...process.env, LOG_LEVEL: level } })
  assert.equal((await listed('INFO')).code, 0)
  const { code, stderr } = await listed('warning')
  assert.equal(code, 78)
  assert.match(stderr, /^upserv: LOG_LEVEL: there is no level "warning"\n +It is one of .*info, warn, error/)
})
