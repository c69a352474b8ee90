/**
 * What can be wrong with an upstream, a row each, and every kind of source, a column each. In each field a
 * stock rsync client waits for the build (or a person for an import), with nothing in between but the real
 * server, and with real servers at the other end: nginx, Swift, a registry, another upserv. Each time
 *
 * - who waits is told what is wrong, in one line;
 * - the log has the same, with the build's id;
 * - builds and packs are byte for byte what they were;
 * - nothing is left in incoming/, except for what a later request can go on from.
 *
 * A row that makes no sense for a kind has a text in its place that says why.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, test } from 'node:test'
import { STICK_DIRECTORY } from '../../src/build/stick.ts'
import { findProgram } from '../../src/lib/find-program.ts'
import { makeCertificate } from '../support/certificates.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { type Nginx, startNginx } from '../support/nginx.ts'
import { freePort, run, ServerProcess, waitForPort } from '../support/processes.ts'
import { minisigner } from '../support/signing.ts'
import { noSwift, startSwift } from '../support/swift.ts'
import { tarHeader } from '../support/tar-builder.ts'
import { UPSERV, type Upserv } from '../support/upserv.ts'
import { endless, type Fault, Front, type FrontOptions, send } from './bad-input-front.ts'

/** Of what is wrong, mostly waiting: two kinds fit into one processor. */
const CONCURRENCY = 2
/** Where a download is cut off: at each tenth with UPSERV_LONG. */
const TENTHS = process.env.UPSERV_LONG ? [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] : [0, 3, 6, 9]
/** Tenths at which a bit is wrong: in what tells the form, in the middle, near the end. */
const FLIPPED_TENTHS = [0, 4, 9] as const

// ---------------------------------------------------------------------------------------------------
// The rows.

const STATIC_ROWS = [
  'absent',
  'forbidden',
  'failing',
  'redirects',
  'shorter',
  'longer',
  'changing',
  'wrong key',
  'expired',
  'endless',
  'slow',
  'silent',
] as const
type Row = (typeof STATIC_ROWS)[number] | `truncated ${number}` | `flipped ${number}`
const ROWS: readonly Row[] = [
  ...STATIC_ROWS,
  ...TENTHS.map((tenth) => `truncated ${tenth}` as const),
  ...FLIPPED_TENTHS.map((tenth) => `flipped ${tenth}` as const),
]

/** What is told of it, where a kind has no words of its own. */
const TOLD: Record<string, RegExp> = {
  absent: /is not published by/,
  forbidden: /answers 403: access denied/,
  failing: /answers 503 \(2 attempts\)/,
  redirects: /redirects in a circle/,
  shorter: /\(2 attempts\)/,
  // What is under way when a connection ends may be lost, and with it the announced length.
  longer:
    /sends more bytes than the \d+ that it announced|sends more than the \d+ bytes|gzip data is damaged/,
  changing: /changed while it was being downloaded/,
  'wrong key': /not one of the source's keys/,
  expired: /certificate that is not accepted \(CERT_HAS_EXPIRED\)/,
  endless: /needs at least|budget|room/,
  slow: /nothing came for [13] s \(2 attempts\)/,
  silent: /no answer within [13] s \(2 attempts\)/,
  truncated:
    /ends early|cut short|is empty|has sha256|has md5|ends (?:in the middle|without)|truncated|unexpected end|incomplete/,
  flipped: /has sha256|has md5|has sha1|damaged|not an archive|no archive/,
}

/** What each row does to a server of HTTP. */
const FAULTS: Partial<Record<string, Fault>> = {
  absent: { at: 'first', reply: (_, __, response) => void response.writeHead(404).end() },
  forbidden: { at: 'first', reply: (_, __, response) => void response.writeHead(403).end() },
  failing: { at: 'first', reply: (_, __, response) => void response.writeHead(503).end() },
  redirects: {
    at: 'first',
    reply: (_, { url = '' }, response) => void response.writeHead(307, { location: url }).end(),
  },
  shorter: {
    at: 'bytes',
    reply: (honest, request, response) =>
      send(honest, request, response, { etag: '"1"', upTo: honest.length >> 1 }),
  },
  longer: {
    at: 'bytes',
    reply: (honest, request, response, count) =>
      send(honest, request, response, {
        etag: '"1"',
        ...(count === 0 ? { upTo: honest.length >> 1 } : { extra: Buffer.from('too much') }),
      }),
  },
  changing: {
    at: 'bytes',
    reply: (honest, request, response, count) => {
      send(honest, request, response, { etag: `"${count}"`, upTo: honest.length >> 1 })
    },
  },
  endless: {
    at: 'bytes',
    reply: (_, __, response) => {
      response.write(ENDLESS_HEADER)
      endless(response, NOISE)
    },
  },
  slow: {
    at: 'bytes',
    reply: (honest, _, response) => {
      response.setHeader('etag', '"1"')
      response.setHeader('content-length', honest.length)
      let at = 0
      const next = (): void => void response.write(honest.subarray(at, ++at))
      next()
      const timer = setInterval(next, 60_000)
      response.on('close', () => clearInterval(timer))
    },
  },
  silent: { at: 'first', reply: () => undefined },
}
/** Of a layer whose length is known beforehand. */
const ENDLESS_LAYER: Fault = {
  at: 'bytes',
  reply: (honest, _, response) => {
    response.write(honest)
    endless(response, NOISE)
  },
}
/** Of a server that has no archives: what it says while it gets the build. */
const ENDLESS_TALK: Fault = {
  at: 'first',
  reply: (_, __, response) => endless(response, Buffer.from('{"say":"build-1: wait ..."}\n'.repeat(1000))),
}
const NOISE = createHash('shake256', { outputLength: 1 << 20 })
  .update('noise')
  .digest()
/** Of a file of 8 GB. */
const ENDLESS_HEADER = tarHeader({ name: 'file', size: 8e9 })

/** The row without the number of its tenth. */
function wordOf(row: Row): string {
  return row.replace(/ \d$/, '')
}

function idOf(row: Row): string {
  return row.replaceAll(' ', '-')
}

/** The file as that row has it, where that is a matter of its bytes. */
function spoilt(row: Row, honest: Buffer): Buffer | undefined {
  const [word, tenth] = row.split(' ')
  const at = Math.floor((honest.length * Number(tenth)) / 10)
  if (word === 'truncated') return honest.subarray(0, at)
  if (word !== 'flipped') return undefined
  const copy = Buffer.from(honest)
  copy[at]! ^= 1
  return copy
}

function faultOf(row: Row, own: Network['faults'] = {}): Fault | undefined {
  const fixed = own[row] ?? FAULTS[row]
  if (fixed) return fixed
  if (!/\d$/.test(row)) return undefined
  const reply: Fault['reply'] = (honest, request, response) =>
    send(spoilt(row, honest)!, request, response, { etag: '"spoilt"' })
  return { at: 'bytes', reply }
}

// ---------------------------------------------------------------------------------------------------
// The columns.

interface Told {
  code: number | null
  output: string
  /** Those lines that say what is wrong. */
  lines: string[]
}

interface Column {
  upserv: Upserv
  /** Asks for a build in which that is wrong. */
  attempt(row: Row): Promise<Told>
  /** Asks for one in which nothing is wrong, before and after all of the rows. */
  begin(): Promise<void>
  end(): Promise<void>
  stop?(): Promise<void>
}

interface Kind {
  name: string
  skip?: string | false
  /** Rows that make no sense here, and why. */
  without: Partial<Record<string, string>>
  /** What is told, where other words fit better. */
  told?: Partial<Record<string, RegExp>>
  start(mirror: Mirror): Promise<Column>
}

const BUDGET = '30MB'
/** What a build of a row consists of; the other one is held before. */
const [HELD, ROW_TREE] = [randomTree(1, 6, 20_000), randomTree(2, 12, 20_000)]

/** The archives of both, as `good` and `rows`, below www/. */
async function publish(mirror: Mirror): Promise<Buffer> {
  await mirror.publish('good', HELD, { sha256: true })
  await mirror.publish('rows', ROW_TREE, { sha256: true })
  return readFileSync(mirror.archive('rows'))
}

function rsyncTold({ code, stdout, stderr }: Awaited<ReturnType<typeof run>>): Told {
  const lines = stderr.split('\n').filter((line) => line.startsWith('@ERROR'))
  return { code, output: stdout + stderr, lines }
}

function cliTold({ code, stdout, stderr }: Awaited<ReturnType<typeof run>>): Told {
  const lines = stderr.split('\n').filter((line) => line.startsWith('upserv: '))
  return { code, output: stdout + stderr, lines }
}

/** A device that asks for builds. */
function device(mirror: Mirror, upserv: Upserv, prepare: (row: Row) => void): Column {
  return {
    upserv,
    begin: async () => void (await mirror.assertServes(upserv, 'good')),
    attempt: async (row) => {
      prepare(row)
      return rsyncTold(await mirror.sync(upserv, idOf(row), 5))
    },
    end: async () => void (await mirror.assertServes(upserv, 'good')),
  }
}

interface Network {
  /** The real server, and which requests are for what. */
  front: FrontOptions
  /** The key `url`, and what else such a source needs, for an upstream at that address. */
  source(origin: string): string
  /** In place of the usual ones. */
  faults?: Partial<Record<string, Fault>>
  /** Whether there is a build `wrong-key`, signed by another than whose key this is. */
  key?: string
  stop?(): Promise<void>
}

/** A source that asks over a network: through a front that spoils, with TLS and without. */
async function network(mirror: Mirror, real: Network): Promise<Column> {
  const front = await Front.to(real.front)
  const origin = `http://127.0.0.1:${front.port}`
  const tls: Nginx[] = []
  const stop = async (): Promise<void> => {
    for (const one of tls) await one.kill()
    await front[Symbol.asyncDispose]()
    await real.stop?.()
  }
  try {
    let config = sourceEntry('plain', '^(?!expired$|trusted$|wrong-key$)', real.source(origin))
    if (real.key !== undefined)
      config += sourceEntry('signed', '^wrong-key$', `${real.source(origin)}\nkeys = ["${real.key}"]`)
    for (const [id, isExpired] of [
      ['expired', true],
      ['trusted', false],
    ] as const) {
      const scratch = mirror.path(`tls-${id}`)
      mkdirSync(scratch)
      await makeCertificate(scratch, isExpired)
      const [certificate, key] = [join(scratch, 'cert.pem'), join(scratch, 'key.pem')]
      const nginx = await startNginx({
        ...{ root: scratch, scratch, passTo: origin },
        tls: { certificate, key },
      })
      tls.push(nginx)
      config += sourceEntry(id, `^${id}$`, `${real.source(nginx.url)}\nca = "${certificate}"`)
    }
    const path = mirror.path('upserv.toml')
    writeFileSync(path, config)
    const upserv = await mirror.startUpserv({ config: path, sources: [], budget: BUDGET })
    const column = device(mirror, upserv, (row) => {
      front.fault = faultOf(row, real.faults)
    })
    return {
      ...column,
      end: async () => {
        front.fault = undefined
        const { place } = await mirror.sync(upserv, 'trusted')
        mirror.assertTree('rows', place)
        await column.end()
      },
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

function sourceEntry(name: string, builds: string, rest: string): string {
  return `[[source]]\nname = "${name}"\nbuilds = '${builds}'\nstall = 1\nattempts = 2\n${rest}\n`
}

/** Where the build of a row really lies. */
function rowsInstead(path: string): string {
  return path.replace(
    /(?<=[/])(?!good|rows|wrong-key|v1|builds|blobs|contents)[a-z]+(?:-\d)?(?=$|\/blobs$|\/contents$|\.)/,
    'rows',
  )
}

/** Signs an archive with another key than the one that is returned. */
async function signByAnother(mirror: Mirror, archive: string): Promise<{ signature: Buffer; key: string }> {
  const [honest, thief] = [
    await minisigner(mirror.path(), 'honest'),
    await minisigner(mirror.path(), 'thief'),
  ]
  return { signature: await thief.sign(archive), key: honest.key }
}

const NO_PROTOCOL = 'a file has no protocol that could say so'
const NO_LENGTH = 'a file is as long as it is: nobody has announced it'
const NO_SIGNATURES = 'has no signatures: what names it is its digest'
const ROOT_READS_ALL = 'tests run as root, who may read everything: source.test.ts stops being root for it'
const BY_HAND = 'what comes by hand is checked by its digest or by nothing, and asks for no key'
const AT_SOURCE = 'needs a file to change between two reads: source.test.ts does so'

const KINDS: Kind[] = [
  {
    name: 'http',
    without: {},
    start: async (mirror) => {
      await publish(mirror)
      const signed = mirror.archive('wrong-key')
      copyFileSync(mirror.archive('rows'), signed)
      const { signature, key } = await signByAnother(mirror, signed)
      writeFileSync(`${signed}.minisig`, signature)
      await mirror.startNginx()
      const matches = /^GET \/[a-z0-9-]+$/
      return await network(mirror, {
        front: { port: mirror.nginx.port, first: matches, bytes: matches, rewrite: rowsInstead },
        source: (origin) => `url = "${origin}/{build}"`,
        key,
      })
    },
  },
  {
    name: 's3',
    skip: noSwift,
    without: {},
    start: async (mirror) => {
      const archive = await publish(mirror)
      const { signature, key } = await signByAnother(mirror, mirror.archive('rows'))
      const scratch = mirror.path('swift')
      mkdirSync(scratch)
      const swift = await startSwift(scratch)
      await swift.makeBucket('builds')
      const sum = createHash('sha256').update(archive).digest()
      // Requests are signed: each row has an object of its own.
      await swift.put('builds', 'good', readFileSync(mirror.archive('good')))
      for (const id of [...ROWS.map(idOf), 'trusted']) {
        await swift.put('builds', id, archive)
        await swift.put('builds', `${id}.sha256`, Buffer.from(sum.toString('hex')))
      }
      await swift.put('builds', 'wrong-key.minisig', signature)
      const { accessKeyId, secretAccessKey } = swift.credentials
      const credentials = mirror.path('credentials')
      writeFileSync(
        credentials,
        `[default]\naws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`,
      )
      const matches = /^GET \/builds\/[a-z0-9-]+$/
      return await network(mirror, {
        front: { port: swift.port, first: matches, bytes: matches },
        source: (origin) =>
          `url = "s3://builds/{build}"\nendpoint = "${origin}"\ncredentials_file = "${credentials}"`,
        key,
        stop: swift.stop,
      })
    },
  },
  {
    name: 'oci',
    skip: (await findProgram('docker-registry')) === undefined && 'needs docker-registry',
    without: { 'wrong key': NO_SIGNATURES },
    told: {
      truncated: /has \d+ bytes in place of \d+/,
      endless: /sends more than the \d+ bytes/,
    },
    start: async (mirror) => {
      await publish(mirror)
      const port = await freePort()
      const conf = mirror.path('registry.yml')
      writeFileSync(
        conf,
        `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${mirror.path('registry')}}}\nhttp: {addr: '127.0.0.1:${port}'}\n`,
      )
      const registry = new ServerProcess('docker-registry', ['serve', conf])
      await waitForPort(port, registry)
      for (const id of ['good', 'rows'])
        await pushImage(`http://127.0.0.1:${port}/v2/os`, id, readFileSync(mirror.archive(id)))
      return await network(mirror, {
        front: {
          port,
          first: /^GET \/v2\/os\/manifests\//,
          bytes: /^GET \/v2\/os\/blobs\//,
          rewrite: (path) => path.replace(/(?<=\/manifests\/)(?!good|sha256:).*/, 'rows'),
        },
        faults: { endless: ENDLESS_LAYER },
        source: (origin) =>
          `url = "${origin.replace(/^https/, 'oci').replace(/^http/, 'oci+http')}/os:{build}"`,
        stop: async () => void (await registry.stop('SIGKILL')),
      })
    },
  },
  {
    name: 'upserv',
    without: {
      'wrong key':
        'has no signatures: each blob is checked by its digest, and the parent has checked the archive',
      longer: 'what follows the last blob that was asked for is not read',
      changing: 'blobs are named by their digests: others are "flipped"',
    },
    told: {
      truncated: /the answer broke off \(2 attempts\)/,
      shorter: /\(2 attempts\)/,
      flipped: /what came as content|in a way that is not understood/,
      endless: /keeps us waiting|says more/,
    },
    start: async (mirror) => {
      await publish(mirror)
      const parent = await mirror.startUpserv({
        data: mirror.path('parent'),
        sources: [`file://${mirror.path('www')}/{build}`],
        http: '127.0.0.1:0',
      })
      return await network(mirror, {
        front: {
          port: Number(/ http:\/\/\S+:(\d+)/.exec(parent.ready)![1]),
          first: /^POST \/parent\/v1\/builds\/[^/]+$/,
          bytes: /^POST .*\/blobs$/,
          rewrite: rowsInstead,
        },
        faults: { endless: ENDLESS_TALK },
        source: (origin) => `url = "${origin.replace(/^https/, 'upservs').replace(/^http:/, 'upserv:')}"`,
      })
    },
  },
  {
    name: 'file',
    without: {
      forbidden: ROOT_READS_ALL,
      failing: NO_PROTOCOL,
      shorter: NO_LENGTH,
      longer: NO_LENGTH,
      changing: AT_SOURCE,
      expired: NO_PROTOCOL,
      silent: 'the same as "slow": a FIFO that nobody writes into',
    },
    told: { redirects: /ELOOP/, endless: /needs at least 1 TB/, slow: /is a special file/ },
    start: async (mirror) => {
      const honest = await publish(mirror)
      const { signature, key } = await signByAnother(mirror, mirror.archive('rows'))
      const config = mirror.path('upserv.toml')
      const source = `url = "file://${mirror.path('www')}/{build}"`
      writeFileSync(
        config,
        sourceEntry('plain', '^(?!wrong-key$)', source) +
          sourceEntry('signed', '^wrong-key$', `${source}\nkeys = ["${key}"]`),
      )
      const upserv = await mirror.startUpserv({ config, sources: [], budget: BUDGET })
      await makeFifo(mirror.archive('slow'))
      return device(mirror, upserv, (row) => {
        const path = mirror.archive(idOf(row))
        spoilFile(row, path, honest, false)
        if (row === 'wrong key') writeFileSync(`${path}.minisig`, signature)
        else copyFileSync(`${mirror.archive('rows')}.sha256`, `${path}.sha256`)
      })
    },
  },
  {
    name: 'import of an archive',
    without: withoutProtocol('a FIFO is read as a pipe: see "import -"'),
    told: {
      absent: /is no file/,
      redirects: /is no file/,
      endless: /needs at least 1 TB/,
      flipped: /damaged|not an archive|no archive|ends/,
    },
    start: (mirror) => byHand(mirror, { command: (path, id) => ['import', path, '--as', id] }),
  },
  {
    name: 'import of an export',
    without: {
      ...withoutProtocol('a FIFO is read as a pipe: see "import -"'),
      endless: 'is read only as far as it says itself',
    },
    told: {
      absent: /is no file/,
      redirects: /is no file/,
      truncated: /ends early|is empty|unexpected end of file/,
      flipped: /damaged|not an archive|no archive|ends early|what came as content/,
    },
    start: (mirror) => {
      const make = async (): Promise<Buffer> => {
        const sources = [`file://${mirror.path('www')}/{build}`]
        const from = await mirror.startUpserv({ data: mirror.path('from'), sources })
        await mirror.assertServes(from, 'rows')
        const path = mirror.path('rows.export')
        const { code, stderr } = await from.cli(['export', 'rows', path])
        assert.equal(code, 0, stderr)
        return readFileSync(path)
      }
      return byHand(mirror, { command: (path, id) => ['import', path, '--as', id], make })
    },
  },
  {
    name: 'import of a stick',
    without: withoutProtocol('a FIFO is no file of a stick'),
    told: {
      absent: /but no os-tree\.tar/,
      redirects: /ELOOP/,
      endless: /needs at least 1 TB/,
    },
    start: (mirror) => {
      const command = (path: string, id: string): string[] => {
        const place = join(path, STICK_DIRECTORY)
        const digest = createHash('md5')
          .update(readFileSync(mirror.archive('rows')))
          .digest('hex')
        writeFileSync(join(place, 'os-tree.tar.gz.md5'), `${digest}  os.img\n`)
        writeFileSync(join(place, 'os.name'), id)
        return ['import', path]
      }
      const fileIn = (path: string): string => {
        mkdirSync(join(path, STICK_DIRECTORY), { recursive: true })
        return join(path, STICK_DIRECTORY, 'os-tree.tar.gz')
      }
      return byHand(mirror, { command, fileIn })
    },
  },
  {
    name: 'import -',
    without: {
      ...withoutProtocol('whoever types a command that says nothing can stop it'),
      absent: 'the shell says so',
      redirects: 'the shell says so',
    },
    told: {
      endless: /budget|room/,
      truncated: /ends early|standard input is empty/,
      flipped: /damaged|not an archive|no archive|ends/,
    },
    start: (mirror) => {
      const command = (path: string, id: string): string => {
        const more = id === 'endless' ? '; cat /dev/urandom' : ''
        const upserv = `'${UPSERV}' import - --as ${id} --data '${mirror.data}'`
        return `{ cat '${path}'${more}; } | ${upserv}`
      }
      return byHand(mirror, { command })
    },
  },
]

function withoutProtocol(slow: string): Partial<Record<string, string>> {
  return {
    forbidden: ROOT_READS_ALL,
    failing: NO_PROTOCOL,
    shorter: NO_LENGTH,
    longer: NO_LENGTH,
    changing: AT_SOURCE,
    'wrong key': BY_HAND,
    expired: NO_PROTOCOL,
    slow,
    silent: slow,
  }
}

interface ByHand {
  /** What is typed behind `upserv`, or with `shell` all of it. */
  command(path: string, id: string): string[] | string
  /** What is imported; the archive, unless told otherwise. */
  make?: () => Promise<Buffer>
  /** Where in what is named there the file lies. */
  fileIn?: (path: string) => string
}

/** A person who imports what lies in a file. */
async function byHand(mirror: Mirror, { command, make, fileIn = (path) => path }: ByHand): Promise<Column> {
  const archive = await publish(mirror)
  const honest = (await make?.()) ?? archive
  const upserv = await mirror.startUpserv({ sources: [], budget: BUDGET })
  const importOf = async (id: string, row?: Row): Promise<Told> => {
    const path = mirror.path(`import-${id}`)
    const file = fileIn(path)
    const typed = command(path, id)
    const isPiped = typeof typed === 'string'
    if (row) spoilFile(row, file, honest, isPiped)
    else writeFileSync(file, honest)
    const options = { timeoutMs: 60_000 }
    return cliTold(await (isPiped ? run('sh', ['-c', typed], options) : upserv.cli(typed, options)))
  }
  return {
    upserv,
    begin: async () => {
      const { code, stderr } = await upserv.cli(['import', mirror.archive('good'), '--as', 'good'])
      assert.equal(code, 0, stderr)
    },
    attempt: (row) => importOf(idOf(row), row),
    end: async () => {
      const { code, output } = await importOf('trusted')
      assert.equal(code, 0, output)
      mirror.assertTree('rows', (await mirror.sync(upserv, 'trusted')).place)
      await mirror.assertServes(upserv, 'good')
    },
  }
}

/** Puts a file as that row has it where the path says, in place of what is there. */
function spoilFile(row: Row, path: string, honest: Buffer, isPiped: boolean): void {
  if (row === 'slow') return
  rmSync(path, { force: true })
  if (row === 'redirects') symlinkSync(path, path)
  else if (row === 'endless') {
    writeFileSync(path, ENDLESS_HEADER)
    if (!isPiped) truncateSync(path, 1e12)
  } else if (row !== 'absent') writeFileSync(path, spoilt(row, honest) ?? honest)
}

async function makeFifo(path: string): Promise<void> {
  assert.equal((await run('mkfifo', [path])).code, 0)
}

/** An image of one layer, as the registry's API takes it. */
async function pushImage(repository: string, tag: string, layer: Buffer): Promise<void> {
  const put = async (bytes: Buffer): Promise<{ digest: string; size: number }> => {
    const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
    const begun = await fetch(`${repository}/blobs/uploads/`, { method: 'POST' })
    const place = new URL(begun.headers.get('location')!, repository)
    place.searchParams.set('digest', digest)
    const answer = await fetch(place, { method: 'PUT', body: Uint8Array.from(bytes) })
    assert.equal(answer.status, 201)
    return { digest, size: bytes.length }
  }
  const [config, blob] = [await put(Buffer.from('{}')), await put(layer)]
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const manifest = {
    ...{ schemaVersion: 2, mediaType: type },
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip', ...blob }],
  }
  const answer = await fetch(`${repository}/manifests/${tag}`, {
    ...{ method: 'PUT', body: JSON.stringify(manifest) },
    headers: { 'content-type': type },
  })
  assert.equal(answer.status, 201, await answer.text())
}

// ---------------------------------------------------------------------------------------------------
// The fields.

/** All bytes of builds and packs, by path. */
function storeOf(data: string): string[] {
  return ['builds', 'packs'].flatMap((name) =>
    readdirSync(join(data, name), { recursive: true, encoding: 'utf8' })
      .map((path) => join(name, path))
      .filter((path) => statSync(join(data, path)).isFile())
      .sort()
      .map(
        (path) =>
          `${path} ${createHash('sha256')
            .update(readFileSync(join(data, path)))
            .digest('hex')}`,
      ),
  )
}

/** Warnings and errors of the log that name a build. */
function logged(upserv: Upserv, id: string): { reason?: string; msg?: string }[] {
  return upserv.process.stderr
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { level: number; build?: string; reason?: string; msg?: string })
    .filter(({ level, build }) => level >= 40 && build === id)
}

/** What ends so is asked for again later, from where it was. */
const MAY_GO_ON = / \(2 attempts\)/

describe('what can be wrong', { concurrency: CONCURRENCY }, () => {
  for (const { name, skip = false, without, told: ownWords = {}, start } of KINDS)
    test(name, { skip }, async (t) => {
      await using mirror = new Mirror()
      const column = await start(mirror)
      try {
        await t.test('nothing', () => column.begin())
        const before = storeOf(mirror.data)
        assert.ok(before.length > 3, 'a build is held')
        /** What a later request can go on from. */
        const kept = new Set<string>()
        for (const row of ROWS) {
          const word = wordOf(row)
          const reason = without[word]
          if (reason !== undefined) {
            if (!/[1-9]$/.test(row)) t.diagnostic(`${wordOf(row)}: ${reason}`)
            continue
          }
          await t.test(row, async () => {
            const told = await column.attempt(row)
            assert.notEqual(told.code, 0, told.output)
            assert.equal(told.lines.length, 1, told.output)
            const [line = ''] = told.lines
            assert.match(line, ownWords[word] ?? TOLD[word]!)
            assert.ok(line.length < 1000 && !/undefined|\[object/.test(line), line)
            assert.deepEqual(storeOf(mirror.data), before)
            if (MAY_GO_ON.test(line)) kept.add(`${idOf(row)}.spool`)
            const left = mirror.incoming().filter((path) => !kept.has(path.replace(/\/.*/, '')))
            assert.deepEqual(left, [], 'left behind')
            const log = logged(column.upserv, idOf(row))
            if (/is no file|but no os-tree|input is empty/.test(line))
              assert.deepEqual(log, [], 'no fetch began')
            else
              assert.ok(
                log.some(({ reason = '' }) => reason !== '' && line.includes(reason)),
                `not in the log: ${line}`,
              )
          })
        }
        await t.test('nothing, at last', () => column.end())
      } finally {
        await column.stop?.()
      }
    })
})
