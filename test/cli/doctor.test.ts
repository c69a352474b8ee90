/** `upserv doctor`: each thing that can be wrong, and what it says to type. */
import assert from 'node:assert/strict'
import { chmodSync, chownSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { describe, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import type { Finding } from '../../src/lib/finding.ts'
import { whereabouts } from '../../src/source/create.ts'
import { sourceFromUrl } from '../../src/source/source.ts'
import { Authority, type Pair } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { freePort } from '../support/processes.ts'
import { missing, tlsPort } from '../support/rsync-ssl.ts'
import { isRoot } from '../support/scratch.ts'
import { upserv } from '../support/upserv.ts'

/** For tests of something else: nothing listens, and nothing is to be found out about ports. */
const NO_PORTS = 'rsync.listen = []\nhttp.listen = []\n'

const skipTls = await missing('openssl')

interface Examined {
  code: number | null
  all: Finding[]
  of: (about: string) => Finding
  /** A finding in one line. */
  told: (about: string) => string
}

async function examine(mirror: Mirror, toml: string, env: NodeJS.ProcessEnv = {}): Promise<Examined> {
  const config = mirror.path('doctor.toml')
  writeFileSync(config, toml)
  const args = ['doctor', '--json', '--data', mirror.data, '--config', config]
  const { code, stdout, stderr } = await upserv(args, { env: { ...process.env, ...env } })
  assert.notEqual(stdout, '', stderr)
  const all = JSON.parse(stdout) as Finding[]
  const of = (about: string): Finding => {
    const found = all.find((finding) => finding.about === about)
    assert.ok(found, `nothing is said about ${about}: ${stdout}`)
    return found
  }
  const told = (about: string): string => {
    const { verdict, says, hint } = of(about)
    return `${verdict}: ${says}: ${hint}`
  }
  return { code, all, of, told }
}

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

describe('upserv doctor', { concurrency: 2 }, () => {
  test('all is well', async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 3, 1000))
    await mirror.startNginx()
    const server = await mirror.startUpserv({ http: '127.0.0.1:0' })
    const httpPort = new URL(server.process.stdout.match(/http:\S+/)![0]).port
    const secrets = mirror.path('secrets')
    writeFileSync(secrets, 'alice:x\n', { mode: 0o600 })
    const toml = `budget = "1MB"
[[source]]
name = "m"
url = "${mirror.nginx.url}/{build}"
[[source]]
name = "parent"
url = "upserv://127.0.0.1:${httpPort}"
[[source]]
name = "bucket"
url = "s3://builds/{build}.tar"
endpoint = "${mirror.nginx.url}"
[[source]]
name = "registry"
url = "oci+http://${new URL(mirror.nginx.url).host}/os:{build}"
[[module]]
name = "build-staff"
auth_users = ["alice"]
secrets_file = "${secrets}"
`
    const { code, all } = await examine(mirror, toml)
    assert.deepEqual(
      all.filter(({ verdict }) => verdict !== 'ok'),
      [],
    )
    assert.equal(code, 0)
    const abouts = [
      'configuration',
      'secrets',
      'token',
      'clock',
      'data directory',
      'disk',
      'server',
      'budget',
    ]
    const sources = ['m', 'parent', 'bucket', 'registry'].map((name) => `source ${name}`)
    const ports = [`rsync port ${server.port}`, `HTTP port ${httpPort}`]
    assert.deepEqual(
      all.map(({ about }) => about),
      [
        ...abouts,
        ...ports,
        ...sources,
        'flock',
        'lbzip2',
        'xz',
        'lz4',
        'lzip',
        'bsdtar',
        'sqfs2tar',
        'gpgv',
        'confinement',
      ],
    )
    const text = await upserv(['doctor', '--data', mirror.data, '--config', mirror.path('doctor.toml')])
    assert.match(text.stdout, /^ok {7}configuration /m)
    assert.match(text.stdout, /^ok {7}server +version /m)
    // Who looks disturbs nobody: the server has nothing to complain of, but that root may run the tests.
    assert.doesNotMatch(server.process.stderr, /"level":[45]0(?!.*"msg":"root runs this)/)
  })

  test('certificates, and the ports that speak TLS', { skip: skipTls }, async () => {
    await using mirror = new Mirror()
    const ours = await Authority.make(mirror.path('ours'))
    const good = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    const toml = ({ cert, key }: Pair, more = ''): string =>
      `rsync.tls_listen = "127.0.0.1:0"\nhttp.tls_listen = "127.0.0.1:0"\n${more}[tls]\ncert = "${cert}"\nkey = "${key}"\n`
    const config = mirror.path('upserv.toml')
    writeFileSync(config, toml(good))
    const server = await mirror.startUpserv({ config })
    const https = Number(/https:\/\/\S+:(\d+)/.exec(server.ready)![1])
    const well = await examine(mirror, toml(good))
    for (const about of [`rsync over TLS port ${tlsPort(server)}`, `HTTPS port ${https}`])
      assert.equal(well.of(about).verdict, 'ok', well.told(about))
    // It ends in two days.
    assert.match(well.told('certificate'), /^warning: \S+ expires in .*: Renew it/)
    const old = await examine(mirror, toml(await ours.issue({ cn: 'x', san: 'DNS:x', expired: true })))
    assert.match(old.told('certificate'), /^problem: \S+ expired on 2011-01-01: Renew it/)
    assert.equal(old.code, 1)
    const open = await ours.issue({ cn: 'upserv', san: 'DNS:localhost' })
    chmodSync(open.key, 0o644)
    const read = await examine(mirror, toml(open))
    assert.match(
      read.told('certificate'),
      /^problem: the key \S+ cannot be used: others may read .*chmod 600/,
    )
    const mixed = await examine(mirror, toml({ cert: good.cert, key: (await ours.issue({ cn: 'y' })).key }))
    assert.match(mixed.told('certificate'), /^problem: \S+ is not the key of \S+/)
    await server.stop()
  })

  test('nothing is set up', async () => {
    await using mirror = new Mirror()
    const [rsync, http] = [await freePort(), await freePort()]
    const { code, of, told } = await examine(
      mirror,
      `[rsync]\nlisten = "127.0.0.1:${rsync}"\n[http]\nlisten = "127.0.0.1:${http}"\n`,
    )
    assert.equal(code, 0, 'nothing of this is wrong')
    assert.match(
      told('server'),
      /^warning: none runs .*systemctl restart upserv\.socket upserv, or upserv serve/,
    )
    assert.match(told('sources'), /^warning: .*\[\[source\]\]/)
    assert.match(told(`rsync port ${rsync}`), /^warning: nobody listens .*upserv\.socket/)
    assert.match(told(`HTTP port ${http}`), /^ok: .* is free/)
    assert.equal(of('token').verdict, 'ok')
    // Where it was put, root alone writes if root runs the tests; what others do is seen below.
    assert.match(of('data directory').says, isRoot ? /root alone can make it/ : /will be made/)
    assert.ok(!existsSync(mirror.data), 'it changes nothing')
  })

  test('a configuration that is wrong', async () => {
    await using mirror = new Mirror()
    const { code, of } = await examine(mirror, 'bugdet = "1GB"\n')
    assert.equal(code, 1)
    assert.match(of('configuration').says, /did you mean "budget"/)
  })

  test('secrets that others may read, and a token that is none', async () => {
    await using mirror = new Mirror()
    const [secrets, token] = [mirror.path('secrets'), mirror.path('token')]
    writeFileSync(secrets, 'alice:x\n', { mode: 0o644 })
    writeFileSync(token, 'short\n', { mode: 0o600 })
    const { code, told } = await examine(
      mirror,
      `rsync.listen = []
http = { listen = "127.0.0.1:${await freePort()}", token_file = "${token}" }
[[module]]
name = "*"
auth_users = ["alice"]
secrets_file = "${secrets}"
`,
    )
    assert.equal(code, 1)
    assert.match(told('secrets'), /^problem: .*secrets.*: chmod 600/)
    assert.match(told('token'), /^problem: .*holds no token.*: chmod 600/)
    // By HTTPS alone it is asked for as well.
    const https = `rsync.listen = []\nhttp = { listen = [], tls_listen = "127.0.0.1:0", token_file = "${token}" }`
    const tls = `[tls]\ncert = "${mirror.path('none.pem')}"\nkey = "${mirror.path('none.pem')}"`
    assert.match((await examine(mirror, `${https}\n${tls}\n`)).told('token'), /^problem: .*holds no token/)
  })

  test('somebody else has the ports', async () => {
    await using mirror = new Mirror()
    const web = createHttpServer((_, response) => response.end('another'))
    const http = await listen(web)
    for (const [says, expected] of [
      ['@RSYNCD: 31.0 sha512\n', /^warning: something that speaks rsync .*systemctl disable --now rsync/],
      ['220 ready\r\n', /^problem: .* is taken by another program/],
    ] as const) {
      const other = createServer((socket) => socket.on('error', () => {}).end(says))
      const rsync = await listen(other)
      const { told } = await examine(
        mirror,
        `rsync.listen = "127.0.0.1:${rsync}"\nhttp.listen = "127.0.0.1:${http}"\n`,
      )
      assert.match(told(`rsync port ${rsync}`), expected)
      assert.match(told(`HTTP port ${http}`), /^problem: .* is taken by another program/)
      for (const about of [`rsync port ${rsync}`, `HTTP port ${http}`])
        assert.ok(told(about).includes(`ss -ltnp 'sport = :${about.split(' ').at(-1)}'`), told(about))
      other.close()
    }
    web.close()
  })

  test('an address that this machine does not have', async () => {
    await using mirror = new Mirror()
    const { code, told } = await examine(mirror, 'rsync.listen = "192.0.2.1:8873"\nhttp.listen = []\n')
    assert.equal(code, 1)
    assert.match(told('rsync port 8873'), /^problem: .*EADDRNOTAVAIL.*ip addr/)
  })

  test('a budget that the disk has no room for', async () => {
    await using mirror = new Mirror()
    const { code, told } = await examine(mirror, `budget = "900TB"\n${NO_PORTS}`)
    assert.equal(code, 0)
    assert.match(told('disk'), /^warning: .* are free, and 900 TB of the budget .*budget = "\d+GB"/)
  })

  test('upstreams that are not there, one that fails, one that refuses, and one that is a directory', async () => {
    await using mirror = new Mirror()
    await mirror.startNginx()
    const port = await freePort()
    const broken = createHttpServer((_, response) => response.writeHead(503).end())
    const sources = {
      gone: `http://127.0.0.1:${port}/os/{build}.tar`,
      broken: `http://127.0.0.1:${await listen(broken)}/{build}.tar`,
      'no-dir': `file://${mirror.path('nothing')}/{build}.tar`,
      dir: `file://${mirror.path('www')}/{build}.tar`,
      empty: `${mirror.nginx.url}/os/{build}/os{build}.tar`,
      secret: `http://user:geheim@127.0.0.1:${port}/os/{build}`,
    }
    const toml = Object.entries(sources).map(
      ([name, url]) => `[[source]]\nname = "${name}"\nurl = "${url}"\n`,
    )
    // Keys that can't be read, and a file that holds none.
    writeFileSync(mirror.path('no.pub'), 'none\n')
    const keys = ['gone.pub', 'no.pub'].map(
      (file) => `[[source]]\nname = "${file}"\nurl = "${sources.empty}"\nkeys = ["${mirror.path(file)}"]\n`,
    )
    const mirrors = `[[source]]\nname = "mirrors"\nurl = ["${sources.empty}", "${sources.gone}"]\n`
    const { code, of, told, all } = await examine(
      mirror,
      `${NO_PORTS}${toml.join('')}${keys.join('')}${mirrors}`,
    )
    broken.close()
    assert.match(told('source mirrors'), /^warning: .*ECONNREFUSED.*; http:\S+ answers.*curl -I/)
    assert.equal(code, 1)
    assert.match(told('source gone'), /^problem: .*ECONNREFUSED.*: .*curl -I http:\/\/127\.0\.0\.1:\d+\/os\//)
    assert.match(told('source gone.pub'), /^problem: .*key file \S+gone\.pub cannot be read: ENOENT/)
    assert.match(told('source no.pub'), /^problem: .*no\.pub holds no keys: A key file is that of minisign/)
    assert.match(told('source broken'), /^problem: .* answers with 503/)
    assert.match(told('source no-dir'), /^problem: ENOENT.*is it mounted\?/)
    assert.equal(of('source dir').verdict, 'ok')
    assert.equal(of('source empty').verdict, 'ok', 'a 404 is an answer')
    assert.doesNotMatch(JSON.stringify(all), /geheim/)
  })

  test('a clock that is not that of the upstream', async () => {
    await using mirror = new Mirror()
    const late = createHttpServer((_, response) => {
      response.setHeader('date', new Date(Date.now() - 3_600_000).toUTCString())
      response.end()
    })
    const url = `http://127.0.0.1:${await listen(late)}/{build}`
    const { code, of, told } = await examine(mirror, `${NO_PORTS}[[source]]\nname = "late"\nurl = "${url}"\n`)
    late.close()
    assert.equal(code, 1)
    assert.match(told('clock'), /^problem: .*, 1 h ahead of that of a source: .*timedatectl set-ntp true/)
    assert.equal(of('source late').verdict, 'ok')
  })

  test('programs that are not installed', async () => {
    await using mirror = new Mirror()
    mkdirSync(mirror.path('empty'))
    // What bin/upserv itself takes in a checkout.
    for (const name of ['dirname', 'readlink'])
      symlinkSync((await findProgram(name))!, mirror.path('empty', name))
    const { code, of } = await examine(mirror, NO_PORTS, { PATH: `${mirror.path('empty')}` })
    assert.deepEqual([of('flock').verdict, of('flock').hint], ['problem', 'apt-get install util-linux'])
    assert.deepEqual(
      [of('confinement').verdict, of('confinement').hint],
      ['warning', 'apt-get install bubblewrap'],
    )
    for (const [name, debianPackage] of [
      ['xz', 'xz-utils'],
      ['lz4', 'lz4'],
      ['lzip', 'lzip'],
    ] as const)
      assert.deepEqual([of(name).verdict, of(name).hint], ['warning', `apt-get install ${debianPackage}`])
    assert.equal(code, 1)
  })

  test('what is no directory', async () => {
    await using mirror = new Mirror()
    writeFileSync(mirror.data, '')
    const { code, told } = await examine(mirror, NO_PORTS)
    assert.equal(code, 1)
    assert.match(told('data directory'), /^problem: .* is no directory.*data_dir/)
  })

  test('a directory that is not there, as root sees it', { skip: !isRoot && 'needs root' }, async () => {
    await using mirror = new Mirror()
    const { code, told } = await examine(mirror, NO_PORTS)
    assert.equal(code, 0)
    assert.match(
      told('data directory'),
      /^warning: .* does not exist, and in .* root alone can make it: .*install -d -o upserv -g upserv -m 750 /,
    )
    chownSync(mirror.path(), 1, 1)
    assert.match((await examine(mirror, NO_PORTS)).told('data directory'), /^ok: .* will be made/)
  })

  test('a directory that may not be written', { skip: isRoot && 'root may write anywhere' }, async () => {
    await using mirror = new Mirror()
    mkdirSync(mirror.data, { mode: 0o500 })
    const { code, of } = await examine(mirror, NO_PORTS)
    assert.deepEqual([code, of('data directory').verdict], [1, 'problem'])
  })
})

for (const [url, place] of [
  ['http://h/os/{build}/os{build}.tar', 'http://h/os/'],
  ['https://h:1/{build}', 'https://h:1/'],
  ['https://{build}.example.org/os.tar', 'https://build.example.org/'],
  ['file:///srv/builds/{build}.tar.gz', 'file:///srv/builds/'],
  ['http://h/a/os-{build}.tar', 'http://h/a/'],
  ['http://h/{build}/*-tree.tar', 'http://h/'],
  ['upserv://h:8730', 'http://h:8730/'],
  ['oci://h/os:{build}', 'https://h/'],
] as const) {
  test(`where all of ${url} lie`, () => assert.equal(whereabouts(sourceFromUrl(url)).href, place))
}
