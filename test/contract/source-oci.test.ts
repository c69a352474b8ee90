/** Images of a real registry, whose layers one tool makes and another pushes; flattened as umoci unpacks them. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
import { gunzipSync } from 'node:zlib'
import { findProgram } from '../../src/lib/find-program.ts'
import { createSource } from '../../src/source/create.ts'
import type { Source } from '../../src/source/source.ts'
import { buildsOnDisk, bytesOnDisk, Mirror } from '../support/mirror.ts'
import { type Nginx, type NginxOptions, startNginx } from '../support/nginx.ts'
import { freePort, run, ServerProcess, waitForPort } from '../support/processes.ts'
import { isRoot } from '../support/scratch.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { makeTree, randomBytes, SpecWriter, type TreeSpec } from '../support/tree.ts'
import { startUpserv, type Upserv } from '../support/upserv.ts'
import { content, download, file, quickSource, startUpstream, status } from './source-upstream.ts'

const tools = await Promise.all(
  ['docker-registry', 'skopeo', 'umoci', 'tar', 'nginx'].map((tool) => findProgram(tool)),
)
const skip = tools.includes(undefined)
  ? 'needs docker-registry, skopeo, umoci and nginx'
  : !isRoot && 'needs root'
const MTIME = 1_700_000_000

function layer(make: (tree: SpecWriter) => void): TreeSpec {
  const tree = new SpecWriter()
  tree.directory('', { mtime: MTIME })
  make(tree)
  return tree.spec
}

const file3 = (text: string): Buffer => Buffer.from(text)
/** From the lowest up. Names that begin with `.wh.` take away, as layers have it. */
const LAYERS = [
  layer((tree) => {
    for (const name of ['etc', 'etc/site', 'bin', 'gone', 'opaque', 'opaque/sub', 'becomes-file'])
      tree.directory(name, { mtime: MTIME, mode: 0o755 })
    tree.file('etc/issue', file3('one\n'), { mtime: MTIME })
    tree.file('etc/passwd', file3('root:x:0:0\nolpc:x:500:500\n'), { mtime: MTIME })
    tree.file('etc/site/key', file3('secret'), { mtime: MTIME, uid: 500 })
    tree.file('bin/sh', randomBytes(1, 300_000), { mtime: MTIME, mode: 0o4755 })
    tree.hardlink('bin/ash', 'bin/sh')
    tree.file('gone/file', file3('x'), { mtime: MTIME })
    tree.file('opaque/old', file3('old'), { mtime: MTIME })
    tree.file('opaque/sub/old', file3('old'), { mtime: MTIME })
    tree.file('becomes-file/inside', file3('x'), { mtime: MTIME })
    tree.file('becomes-directory', file3('x'), { mtime: MTIME })
    tree.symlink('link', 'etc/issue', { mtime: MTIME })
  }),
  layer((tree) => {
    tree.directory('etc', { mtime: MTIME + 5, mode: 0o750 })
    tree.file('etc/issue', file3('two\n'), { mtime: MTIME + 5 })
    tree.file('etc/.wh.site', file3(''), { mtime: MTIME })
    tree.file('.wh.gone', file3(''), { mtime: MTIME })
    tree.directory('opaque', { mtime: MTIME + 5 })
    tree.file('opaque/.wh..wh..opq', file3(''), { mtime: MTIME })
    tree.file('opaque/new', file3('new'), { mtime: MTIME })
    tree.file('becomes-file', file3('now a file'), { mtime: MTIME })
    tree.directory('becomes-directory', { mtime: MTIME })
    tree.file('becomes-directory/inside', file3('x'), { mtime: MTIME })
    tree.file('.wh.link', file3(''), { mtime: MTIME })
    tree.directory('bin', { mtime: MTIME })
    tree.file('bin/sh', randomBytes(2, 200_000), { mtime: MTIME })
  }),
  layer((tree) => {
    tree.directory('gone', { mtime: MTIME + 9 })
    tree.file('gone/back', file3('again'), { mtime: MTIME })
    tree.file('link', file3('a file of that name'), { mtime: MTIME })
  }),
]

describe('images of a registry', { skip }, () => {
  const mirror = new Mirror()
  let registry: ServerProcess
  let origin = ''
  let upserv: Upserv
  let config = ''

  const succeeds = async (program: string, ...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(program, args, { timeoutMs: 60_000 })
    assert.equal(code, 0, `${program} ${args.join(' ')}\n${stderr}`)
    return stdout
  }

  before(async () => {
    const port = await freePort()
    origin = `127.0.0.1:${port}`
    writeFileSync(
      mirror.path('registry.yml'),
      `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${mirror.path('registry')}}}\nhttp: {addr: '${origin}'}\n`,
    )
    registry = new ServerProcess('docker-registry', ['serve', mirror.path('registry.yml')])
    await waitForPort(port, registry)
    const layout = mirror.path('layout')
    await succeeds('umoci', 'init', '--layout', layout)
    await succeeds('umoci', 'new', '--image', `${layout}:801`)
    for (const [i, spec] of LAYERS.entries()) {
      const tree = mirror.path('trees', `layer-${i}`)
      makeTree(tree, spec)
      const tar = mirror.path(`layer-${i}.tar`)
      await succeeds('tar', '--sort=name', '--numeric-owner', '-C', tree, '-cf', tar, '.')
      await succeeds('umoci', 'raw', 'add-layer', '--image', `${layout}:801`, tar)
    }
    await succeeds('umoci', 'unpack', '--image', `${layout}:801`, mirror.path('bundle'))
    await succeeds(
      'skopeo',
      'copy',
      '--dest-tls-verify=false',
      `oci:${layout}:801`,
      `docker://${origin}/os/root:801`,
    )
    config = mirror.path('upserv.toml')
    writeFileSync(
      config,
      `[[source]]\nname = "registry"\nbuilds = "^[0-9]+$"\nurl = "oci+http://${origin}/os/root:{build}"\n`,
    )
    upserv = await startUpserv({ data: mirror.data, config, sources: [] })
  })
  after(async () => {
    await upserv?.process.stop('SIGKILL')
    await registry?.stop('SIGKILL')
    await mirror[Symbol.asyncDispose]()
  })

  test('layers on each other, with whiteouts', async () => {
    const { place } = await mirror.sync(upserv, '801')
    const expected = new Map(snapshot(mirror.path('bundle', 'rootfs')))
    // umoci changes the times of directories that it puts something into later.
    const actual = snapshot(place)
    for (const [path, entry] of expected)
      if (entry.type === 'directory')
        expected.set(path, {
          ...entry,
          mtime: actual.get(path)?.mtime ?? entry.mtime,
          mtimeNsec: actual.get(path)?.mtimeNsec ?? 0,
        } as typeof entry)
    assertSameTree(expected, actual)
    const [build] = JSON.parse((await upserv.cli(['list', '--json'])).stdout)
    assert.match(build.vouchers.join(), /^oci digest sha256:[0-9a-f]{64}$/)
  })

  test('by digest, and what is available', async () => {
    const digest = JSON.parse(
      await succeeds('skopeo', 'inspect', '--tls-verify=false', `docker://${origin}/os/root:801`),
    ).Digest as string
    const source = quickSource(undefined, { builds: '^x$', url: `oci+http://${origin}/os/root@${digest}` })
    await using found = await source.locate('x', { signal: new AbortController().signal, onEvent: () => {} })
    assert.equal(found.layers?.length, 3)
    const { stdout } = await upserv.cli(['available', '--json', '--config', config])
    assert.deepEqual(
      JSON.parse(stdout).builds.map(({ id }: { id: string }) => id),
      ['801'],
    )
  })

  test('an index: the image of our platform, or of the one that is wanted', async () => {
    await using other = new Mirror()
    const layout = other.path('layout')
    await succeeds('umoci', 'init', '--layout', layout)
    const manifests = []
    for (const architecture of ['amd64', 'arm64']) {
      const image = `${layout}:${architecture}`
      await succeeds('umoci', 'new', '--image', image)
      const tree = other.path('trees', architecture)
      const spec = layer((made) => made.file('issue', file3(`${architecture}\n`), { mtime: MTIME }))
      makeTree(tree, spec)
      const tar = other.path(`${architecture}.tar`)
      await succeeds('tar', '--numeric-owner', '-C', tree, '-cf', tar, '.')
      await succeeds('umoci', 'raw', 'add-layer', '--image', image, tar)
      await succeeds('umoci', 'config', '--architecture', architecture, '--image', image)
      const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8'))
      const found = index.manifests.find(
        (one: { annotations: Record<string, string> }) =>
          one.annotations['org.opencontainers.image.ref.name'] === architecture,
      )
      manifests.push({ ...found, platform: { os: 'linux', architecture } })
      await succeeds(
        ...(['skopeo', 'copy', '--dest-tls-verify=false'] as const),
        ...[`oci:${image}`, `docker://${origin}/os/multi:${architecture}`],
      )
    }
    const type = 'application/vnd.oci.image.index.v1+json'
    const put = await fetch(`http://${origin}/v2/os/multi/manifests/801`, {
      method: 'PUT',
      headers: { 'content-type': type },
      body: JSON.stringify({ schemaVersion: 2, mediaType: type, manifests }),
    })
    assert.equal(put.status, 201, await put.text())
    const url = `oci+http://${origin}/os/multi:{build}`
    const found = async (platform: string | undefined) => {
      const source = quickSource(undefined, { url, platform }, { headersMs: 30_000 })
      const located = await source.locate('801', { signal: new AbortController().signal, onEvent: () => {} })
      const bytes = gunzipSync(Buffer.concat(await Array.fromAsync(located.layers![0]!.bytes())))
      return { bytes, vouchers: located.vouchers }
    }
    for (const [at, platform] of ['linux/amd64', 'linux/arm64'].entries()) {
      const { bytes, vouchers } = await found(platform)
      assert.ok(bytes.includes(`${platform.slice('linux/'.length)}\n`), platform)
      assert.deepEqual(vouchers, [`oci digest ${manifests[at].digest}`])
    }
    const ours = { x64: 'amd64', arm64: 'arm64' }[process.arch as string]
    if (ours) assert.ok((await found(undefined)).bytes.includes(`${ours}\n`))
    await assert.rejects(found('linux/riscv64'), {
      message: /has no image for linux\/riscv64, but for linux\/amd64, linux\/arm64$/,
    })
  })

  test('we are killed within a layer: the next one goes on in it', async () => {
    await using mine = new Mirror()
    await using slow = await SlowRegistry.start(mine, origin)
    const file = mine.path('upserv.toml')
    writeFileSync(
      file,
      `[[source]]\nname = "registry"\nbuilds = "^[0-9]+$"\nurl = "oci+http://${slow.host}/os/root:{build}"\n`,
    )
    const first = await mine.startUpserv({ config: file, sources: [] })
    const { client } = mine.client(first, '801')
    while (bytesOnDisk(join(mine.data, 'incoming')) < 50_000) {
      assert.ok(client.isRunning, client.output)
      await setTimeout(20)
    }
    await first.kill9()
    client.kill()
    await slow.quicken()
    const second = await mine.startUpserv({ config: file, sources: [] })
    const { stdout } = await mine.sync(second, '801')
    assert.match(stdout, /going on at/)
    assert.ok(
      slow.ranges().some((range) => /^bytes=[1-9]\d*-$/.test(range)),
      'from the middle',
    )
  })

  test('a tag that there is not', async () => {
    const refused = await mirror.sync(upserv, '999', 5)
    assert.match(refused.stderr + refused.stdout, /@ERROR: build-999 is not published by registry/)
  })

  test('a layer that is not what its digest says: nothing of it', async () => {
    const blobs = readdirSync(mirror.path('registry'), { recursive: true, encoding: 'utf8' }).filter((path) =>
      /blobs\/sha256\/.*\/data$/.test(path),
    )
    const largest = blobs
      .map((path) => join(mirror.path('registry'), path))
      .sort((a, b) => statSync(b).size - statSync(a).size)[0]!
    const bytes = readFileSync(largest)
    bytes[bytes.length - 5]! ^= 1 // gzip's own checksum, which names none of the files
    writeFileSync(largest, bytes)
    await upserv.cli(['remove', '801'])
    const refused = await mirror.sync(upserv, '801', 5)
    assert.match(refused.stderr + refused.stdout, /@ERROR: .*(?:gzip data is damaged|has sha256)/)
    truncateSync(largest, 1000)
    const short = await mirror.sync(upserv, '801', 5)
    assert.match(short.stderr + short.stdout, /@ERROR: /)
    assert.deepEqual(buildsOnDisk(mirror.data), [])
  })
})

/** The registry behind a slow line, until it is made quick. */
class SlowRegistry implements AsyncDisposable {
  readonly #options: NginxOptions
  #nginx: Nginx

  private constructor(options: NginxOptions, nginx: Nginx) {
    this.#options = options
    this.#nginx = nginx
  }

  static async start(mirror: Mirror, origin: string): Promise<SlowRegistry> {
    const options = { root: mirror.path('www'), scratch: mirror.path('nginx'), passTo: `http://${origin}` }
    return new SlowRegistry(options, await startNginx({ ...options, limitRate: '100k' }))
  }

  get host(): string {
    return `127.0.0.1:${this.#nginx.port}`
  }

  async quicken(): Promise<void> {
    await this.#nginx.kill()
    this.#nginx = await startNginx({ ...this.#options, port: this.#nginx.port })
  }

  /** What was asked for of blobs, but for those from the start. */
  ranges(): string[] {
    const blobs = this.#nginx.requests().filter(({ path }) => path.includes('/blobs/'))
    return blobs.map(({ range }) => range).filter((range) => range !== '')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#nginx.kill()
  }
}

/** An image of one layer. */
function imageOf(layer: Buffer): { digest: string; manifest: Buffer } {
  const digest = `sha256:${createHash('sha256').update(layer).digest('hex')}`
  const layers = [{ mediaType: 'x', digest, size: layer.length }]
  return { digest, manifest: Buffer.from(JSON.stringify({ schemaVersion: 2, layers })) }
}

test('a registry that wants a token: it is asked for where that says, and used', async (t) => {
  const blob = content(1000)
  const { digest, manifest } = imageOf(blob)
  const guarded =
    (reply: ReturnType<typeof file>): ReturnType<typeof file> =>
    (request, response, progress) => {
      if (request.headers.authorization === 'Bearer good') reply(request, response, progress)
      else
        status(401, {
          'www-authenticate': `Bearer realm="http://${request.headers.host}/token",service="here"`,
        })(request, response, progress)
    }
  const upstream = await startUpstream(t, {
    '/v2/': [guarded(status(200))],
    '/v2/os/manifests/801': [guarded(file(manifest))],
    [`/v2/os/blobs/${digest}`]: [guarded(file(blob))],
    '/token?service=here&scope=repository%3Aos%3Apull': [
      file(Buffer.from('{"token": "good", "expires_in": 300}')),
    ],
  })
  const source = quickSource(undefined, {
    url: `${upstream.url.replace('http', 'oci+http').replace('//', '//me:secret@')}/os:{build}`,
  })
  await using found = await source.locate('801', { signal: new AbortController().signal, onEvent: () => {} })
  assert.ok(Buffer.concat(await Array.fromAsync(found.layers![0]!.bytes())).equals(blob))
  assert.equal(upstream.requests.filter((request) => request.includes('/token')).length, 1)
  const token = upstream.headers[upstream.requests.findIndex((request) => request.includes('/token'))]
  assert.match(token!.authorization!, /^Basic /)
})

test('a token that runs out within a layer: another is asked for before going on', async (t) => {
  const blob = content(100_000)
  const { digest, manifest } = imageOf(blob)
  let [now, issued] = [0, 0]
  const guarded =
    (reply: ReturnType<typeof file>): ReturnType<typeof file> =>
    (request, response, progress) => {
      if (request.headers.authorization === `Bearer ${issued}`) reply(request, response, progress)
      else
        status(401, { 'www-authenticate': `Bearer realm="http://${request.headers.host}/token"` })(
          request,
          response,
          progress,
        )
    }
  const upstream = await startUpstream(t, {
    '/v2/': [guarded(status(200))],
    '/v2/os/manifests/801': [guarded(file(manifest))],
    [`/v2/os/blobs/${digest}`]: [guarded(file(blob, { cutAt: 50_000 })), guarded(file(blob))],
    '/token?scope=repository%3Aos%3Apull': [
      (_, response) => void response.end(JSON.stringify({ token: `${++issued}`, expires_in: 300 })),
    ],
  })
  const url = `${upstream.url.replace('http', 'oci+http')}/os:{build}`
  const source = createSource(
    { name: 'test', builds: '.', url, checksum: undefined, contents: undefined },
    { clock: { now: () => now, random: () => 0, sleep: async () => {} } },
  ) as Source
  await using found = await source.locate('801', { signal: new AbortController().signal, onEvent: () => {} })
  const chunks: Uint8Array[] = []
  let count = 0
  for await (const chunk of found.layers![0]!.bytes()) {
    chunks.push(chunk)
    count += chunk.length
    if (now === 0 && count === 50_000) {
      now = 400_000
      issued++ // The registry has forgotten the first one.
    }
    upstream.progress.reached(count)
  }
  assert.ok(Buffer.concat(chunks).equals(blob))
  assert.equal(upstream.requests.filter((request) => request.includes('/token')).length, 2)
})

const WRONG = ['oci://h/UPPER:{build}', 'oci://h/os@sha256:12', 'oci://h/a b:{build}']
for (const url of WRONG)
  test(`no name of an image: ${url}`, async () => {
    const { error } = await download({ config: { url } })
    assert.match(error.message, /is no name of an image|unknown/)
  })

test('tags that come in pages, as registries with many have them', async (t) => {
  const page = (tags: string[], next?: string) =>
    status(
      200,
      next === undefined ? {} : { link: `<${next}>; rel="next"` },
      JSON.stringify({ name: 'os', tags }),
    )
  const list = '/v2/os/tags/list'
  const upstream = await startUpstream(t, {
    '/v2/': [status(200)],
    [`${list}?n=10000`]: [page(['801', '802'], `${list}?n=2&last=802`)],
    [`${list}?n=2&last=802`]: [page(['803'], 'http://127.0.0.1:1/v2/os/tags/list')],
    '/v2/endless/tags/list?n=10000': [page(['1'], '/v2/endless/tags/list?n=10000')],
  })
  const origin = upstream.url.replace('http', 'oci+http')
  const { signal } = new AbortController()
  const listed = await quickSource(undefined, { url: `${origin}/os:{build}` }).list!(signal)
  // Another server is not asked, whatever is said there.
  assert.deepEqual([listed!.builds.map(({ id }) => id), listed!.complete], [['801', '802', '803'], true])
  const endless = await quickSource(undefined, { url: `${origin}/endless:{build}` }).list!(signal)
  assert.deepEqual([endless!.builds.map(({ id }) => id), endless!.complete], [['1'], false])
})
