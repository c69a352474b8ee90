/** `upserv doctor`: each thing that can be wrong, and what it says to type. */
import assert from 'node:assert/strict'
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { describe, test } from 'node:test'
import type { Finding } from '../../src/cli/doctor.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { commonPlace } from '../../src/source/reach.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort } from '../support/processes.ts'
import { isRoot } from '../support/scratch.ts'
import { upserv } from '../support/upserv.ts'

async function examine(
  mirror: Mirror,
  toml: string,
  env: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; of: (about: string) => Finding; all: Finding[] }> {
  const config = mirror.path('doctor.toml')
  writeFileSync(config, toml)
  const { code, stdout, stderr } = await upserv(
    ['doctor', '--json', '--data', mirror.data, '--config', config],
    {
      env: { ...process.env, ...env },
    },
  )
  assert.notEqual(stdout, '', stderr)
  const all = JSON.parse(stdout) as Finding[]
  const of = (about: string): Finding => {
    const found = all.find((finding) => finding.about === about)
    assert.ok(found, `nothing is said about ${about}: ${stdout}`)
    return found
  }
  return { code, of, all }
}

describe('upserv doctor', { concurrency: 2 }, () => {
  test('all is well', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 3, 1000))
    await mirror.startNginx()
    const server = await mirror.startUpserv()
    const toml = `budget = "1MB"\n[[source]]\nname = "m"\nurl = "${mirror.nginx.url}/{build}"\n`
    const { code, of, all } = await examine(mirror, toml)
    assert.equal(code, 0)
    for (const about of [
      'configuration',
      'clock',
      'data directory',
      'disk',
      'server',
      `port ${server.port}`,
      'source m',
      'flock',
    ])
      assert.equal(of(about).verdict, 'ok', JSON.stringify(of(about)))
    assert.deepEqual(
      all.filter(({ verdict }) => verdict !== 'ok'),
      [],
    )
    const text = await upserv(['doctor', '--data', mirror.data, '--config', mirror.path('doctor.toml')])
    assert.match(text.stdout, /^ok {7}configuration /m)
    // Who looks disturbs nobody: the server has nothing to complain of.
    assert.doesNotMatch(server.process.stderr, /"level":[45]0/)
  })

  test('nothing is set up', async () => {
    await using mirror = new Mirror()
    const port = await freePort()
    const { code, of } = await examine(mirror, `[rsync]\nlisten = "127.0.0.1:${port}"\n`)
    assert.equal(code, 0, 'nothing of this is wrong')
    assert.match(of('server').hint!, /^Start it: systemctl restart upserv\.socket upserv/)
    assert.match(of('sources').hint!, /\[\[source\]\]/)
    assert.deepEqual(
      [of(`port ${port}`).verdict, /nobody listens/.test(of(`port ${port}`).says)],
      ['warning', true],
    )
    assert.match(of('data directory').says, /will be made/)
  })

  test('a configuration that is wrong', async () => {
    await using mirror = new Mirror()
    const { code, of } = await examine(mirror, 'bugdet = "1GB"\n')
    assert.equal(code, 1)
    assert.match(of('configuration').says, /did you mean "budget"/)
  })

  test('secrets that others may read', async () => {
    await using mirror = new Mirror()
    writeFileSync(mirror.path('secrets'), 'alice:x\n', { mode: 0o644 })
    const { code, of } = await examine(
      mirror,
      `[rsync]\nlisten = []\n[[module]]\nname = "*"\nauth_users = ["alice"]\nsecrets_file = "${mirror.path('secrets')}"\n`,
    )
    assert.deepEqual([code, of('secrets').verdict], [1, 'problem'])
    assert.match(of('secrets').says, /secrets/)
  })

  test('somebody else has the port', async () => {
    await using mirror = new Mirror()
    for (const [says, verdict] of [
      ['@RSYNCD: 31.0 sha512\n', 'warning'],
      ['220 ready\r\n', 'problem'],
    ] as const) {
      const other = createServer((socket) => socket.on('error', () => {}).end(says))
      await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
      const { port } = other.address() as { port: number }
      const { of } = await examine(mirror, `[rsync]\nlisten = "127.0.0.1:${port}"\n`)
      assert.equal(of(`port ${port}`).verdict, verdict)
      assert.ok(of(`port ${port}`).hint!.includes(`ss -ltnp 'sport = :${port}'`))
      other.close()
    }
  })

  test('upstreams that are not there, one that refuses everything, and one that is a directory', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    const port = await freePort()
    const sources = {
      gone: `http://127.0.0.1:${port}/os/{build}.tar`,
      'no-dir': `file://${mirror.path('nothing')}/{build}.tar`,
      dir: `file://${mirror.path('www')}/{build}.tar`,
      empty: `${mirror.nginx.url}/os/{build}/os{build}.tar`,
      secret: `http://user:geheim@127.0.0.1:${port}/{build}`,
    }
    const toml = Object.entries(sources).map(
      ([name, url]) => `[[source]]\nname = "${name}"\nurl = "${url}"\n`,
    )
    const { code, of } = await examine(mirror, `[rsync]\nlisten = []\n${toml.join('')}`)
    assert.equal(code, 1)
    assert.match(of('source gone').says, /ECONNREFUSED/)
    assert.match(of('source no-dir').says, /ENOENT/)
    assert.equal(of('source dir').verdict, 'ok')
    assert.equal(of('source empty').verdict, 'ok', 'a 404 is an answer')
    assert.doesNotMatch(JSON.stringify(of('source secret')), /geheim/)
  })

  test('programs that are not installed', async () => {
    await using mirror = new Mirror()
    mkdirSync(mirror.path('empty'))
    // What bin/upserv itself takes in a checkout.
    for (const name of ['dirname', 'readlink'])
      symlinkSync((await findProgram(name))!, mirror.path('empty', name))
    const { code, of } = await examine(mirror, '[rsync]\nlisten = []\n', { PATH: `${mirror.path('empty')}` })
    assert.deepEqual([of('flock').verdict, of('flock').hint], ['problem', 'apt-get install util-linux'])
    assert.deepEqual([of('xz').verdict, of('xz').hint], ['warning', 'apt-get install xz-utils'])
    assert.equal(code, 1)
  })

  test('a directory that may not be written', { skip: isRoot && 'root may write anywhere' }, async () => {
    await using mirror = new Mirror()
    mkdirSync(mirror.data, { mode: 0o500 })
    const { code, of } = await examine(mirror, '[rsync]\nlisten = []\n')
    assert.deepEqual([code, of('data directory').verdict], [1, 'problem'])
  })
})

for (const [url, place] of [
  ['http://h/os/{build}/os{build}.tar', 'http://h/os/'],
  ['https://h:1/{build}', 'https://h:1/'],
  ['file:///srv/builds/{build}.tar.gz', 'file:///srv/builds/'],
  ['http://h/a/os-{build}.tar', 'http://h/a/'],
] as const) {
  test(`where all of ${url} lie`, () => assert.equal(commonPlace({ url }).href, place))
}
