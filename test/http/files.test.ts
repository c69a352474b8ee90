/** Builds by plain HTTP: whole, in ranges, as archives; and the rules of modules hold here as well. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { zstdDecompressSync } from 'node:zlib'
import { httpUrlOf } from '../support/http.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { run } from '../support/processes.ts'
import { assertSameTree, snapshot } from '../support/snapshot.ts'
import { randomBytes, SpecWriter } from '../support/tree.ts'
import type { Upserv } from '../support/upserv.ts'

const SECRET = 'a secret that nobody may read'

describe('builds by http', () => {
  let mirror: Mirror
  let upserv: Upserv
  let base: string
  const get = (path: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Response> =>
    fetch(`${base}${path}`, { headers, method, redirect: 'manual' })
  const bytesOf = async (response: Response): Promise<Buffer> => Buffer.from(await response.arrayBuffer())

  before(async () => {
    mirror = new Mirror()
    const tree = new SpecWriter()
    tree.directory('')
    tree.directory('etc')
    tree.file('etc/passwd', Buffer.from('root:x:0:0\n'))
    tree.file('etc/empty', Buffer.from(''))
    tree.symlink('etc/link', '../big')
    tree.symlink('etc/absolute', '/etc/passwd')
    tree.symlink('etc/outside', '../../../../../../etc/passwd')
    tree.symlink('etc/loop', 'loop')
    tree.symlink('etc/dir', '/etc')
    tree.file('big', randomBytes(7, 1_000_000))
    tree.hardlink('big-too', 'big')
    tree.file(`${'long-'.repeat(30)}name`, Buffer.from('long\n'))
    tree.symlink('long-link', 'x/'.repeat(120))
    tree.file('page.html', Buffer.from('<script>alert(1)</script>'))
    tree.file('100%&<b>"', Buffer.from('odd\n'))
    await mirror.publish('1', tree.spec)
    const secret = new SpecWriter()
    secret.directory('')
    secret.directory('keys')
    secret.file('keys/secret', Buffer.from(SECRET))
    secret.file('open', Buffer.from('open\n'))
    for (const id of ['hidden', 'locked', 'barred']) await mirror.publish(id, secret.spec)
    await mirror.publish('slow', randomTree(9, 4, 1_000_000))
    await mirror.startNginx()
    writeFileSync(mirror.path('secrets'), 'alice:wonderland\n', { mode: 0o600 })
    writeFileSync(
      mirror.path('upserv.toml'),
      `
        [[module]]
        name = "build-hidden"
        exclude = ["/root/keys", "/contents"]
        [[module]]
        name = "build-locked"
        auth_users = ["alice"]
        secrets_file = "${mirror.path('secrets')}"
        [[module]]
        name = "build-barred"
        hosts_deny = ["127.0.0.0/8"]
      `,
    )
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config: mirror.path('upserv.toml') })
    base = httpUrlOf(upserv)
    for (const id of ['1', 'hidden', 'locked', 'barred'])
      assert.equal((await upserv.cli(['fetch', id])).code, 0)
  })
  after(async () => {
    await upserv?.stop()
    await mirror?.[Symbol.asyncDispose]()
  })

  test('a file, whole and in ranges, by its digest', async () => {
    const whole = await get('/builds/1/root/big')
    assert.equal(whole.status, 200)
    const bytes = await bytesOf(whole)
    const digest = createHash('sha256').update(randomBytes(7, 1_000_000)).digest()
    assert.ok(createHash('sha256').update(bytes).digest().equals(digest))
    const etag = `"${digest.toString('hex')}"`
    assert.equal(whole.headers.get('etag'), etag)
    assert.equal(whole.headers.get('repr-digest'), `sha-256=:${digest.toString('base64')}:`)
    const part = async (range: string, more: Record<string, string> = {}) => {
      const response = await get('/builds/1/root/big', { range, ...more })
      return [response.status, response.headers.get('content-range'), await bytesOf(response)] as const
    }
    assert.deepEqual(await part('bytes=300000-300009'), [
      206,
      'bytes 300000-300009/1000000',
      bytes.subarray(300_000, 300_010),
    ])
    assert.deepEqual(await part('bytes=-5'), [206, 'bytes 999995-999999/1000000', bytes.subarray(-5)])
    assert.deepEqual((await part('bytes=999990-', { 'if-range': etag }))[2], bytes.subarray(-10))
    assert.equal((await part('bytes=0-1', { 'if-range': '"another"' }))[0], 200)
    const beyond = await get('/builds/1/root/big', { range: 'bytes=1000000-' })
    assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, 'bytes */1000000'])
    assert.equal((await get('/builds/1/root/big', { 'if-none-match': `"x", ${etag}` })).status, 304)
    const head = await get('/builds/1/root/big', {}, 'HEAD')
    assert.deepEqual(
      [head.status, head.headers.get('content-length'), (await bytesOf(head)).length],
      [200, '1000000', 0],
    )
    assert.equal((await bytesOf(await get('/builds/1/root/etc/empty'))).length, 0)
  })

  test('paths lead where they do in the tree, and nowhere else', async () => {
    const text = async (path: string): Promise<string> => (await get(`/builds/1/root/${path}`)).text()
    for (const path of ['etc/passwd', 'etc/absolute', 'etc/outside', 'etc/dir/passwd', 'etc//passwd'])
      assert.equal(await text(path), 'root:x:0:0\n', path)
    assert.equal((await bytesOf(await get('/builds/1/root/etc/link'))).length, 1_000_000)
    assert.equal(await text('100%25%26%3Cb%3E%22'), 'odd\n')
    for (const path of ['etc/loop', 'nothing', 'etc/passwd/x', 'etc%2Fpasswd', '%FF', 'etc%00', '%'])
      assert.equal((await get(`/builds/1/root/${path}`)).status, 404, path)
    for (const path of [
      '/builds/',
      '/builds/1',
      '/builds/1/',
      '/builds/../etc/passwd',
      '/builds/1/nothing',
      '/builds/..%2F..%2Fetc.tar',
    ])
      assert.equal((await get(path)).status, 404, path)
    const contents = await (await get('/builds/1/contents')).text()
    assert.equal(contents, readFileSync(join(mirror.data, 'builds', '1', 'contents'), 'utf8'))
  })

  test('what is in a build can do nothing to a browser', async () => {
    for (const path of ['page.html', 'etc/']) {
      const { headers } = await get(`/builds/1/root/${path}`)
      assert.match(headers.get('content-security-policy')!, /^sandbox/)
      assert.equal(headers.get('x-content-type-options'), 'nosniff')
    }
    const page = await get('/builds/1/root/page.html')
    assert.equal(page.headers.get('content-type'), 'application/octet-stream')
    assert.equal(page.headers.get('content-disposition'), 'attachment')
    const list = await (await get('/builds/1/root/')).text()
    assert.match(list, /<a href="100%25%26%3Cb%3E%22">100%&#38;&#60;b&#62;&#34;<\/a>/)
    assert.equal((await get('/builds/1/root/etc')).headers.get('location'), '/builds/1/root/etc/')
    const json = (await (await get('/builds/1/root/etc/', { accept: 'application/json' })).json()) as {
      name: string
    }[]
    assert.deepEqual(json.map(({ name }) => name).sort(), [
      'absolute',
      'dir',
      'empty',
      'link',
      'loop',
      'outside',
      'passwd',
    ])
  })

  test('archives hold exactly the tree', async () => {
    for (const suffix of ['tar', 'tar.zst']) {
      const response = await get(`/builds/1.${suffix}`)
      assert.equal(response.status, 200)
      const bytes = await bytesOf(response)
      const tar = suffix === 'tar' ? bytes : zstdDecompressSync(bytes)
      const place = mirror.place()
      mkdirSync(place)
      const { code, stderr } = await run('tar', ['-x', '-p', '-C', place], { input: tar })
      assert.deepEqual([code, stderr], [0, ''])
      assertSameTree(mirror.snapshotOf('1'), snapshot(place))
      const etag = response.headers.get('etag')!
      assert.equal((await get(`/builds/1.${suffix}`, { 'if-none-match': etag })).status, 304)
      // And we can read them ourselves.
      const file = mirror.path(`again.${suffix}`)
      writeFileSync(file, bytes)
      assert.equal((await upserv.cli(['import', file, '--as', `again-${suffix}`])).code, 0)
      await mirror.sync(upserv, `again-${suffix}`).then(({ place: again }) => mirror.assertTree('1', again))
    }
  })

  test('the manifest tells every path', async () => {
    const { build, entries } = (await (await get('/builds/1/manifest.json')).json()) as {
      build: string
      entries: Record<string, unknown>[]
    }
    assert.equal(build, '1')
    assert.deepEqual(entries.map(({ path }) => path).sort(), [...mirror.snapshotOf('1').keys()].sort())
    const passwd = entries.find(({ path }) => path === 'etc/passwd')!
    assert.equal(passwd.sha256, createHash('sha256').update('root:x:0:0\n').digest('hex'))
  })

  test('whom a module does not admit gets nothing of it here either', async () => {
    const paths = ['root/open', 'root/keys/secret', 'root/', 'contents', 'manifest.json']
    for (const id of ['locked', 'barred']) {
      for (const path of [
        ...paths.map((path) => `/builds/${id}/${path}`),
        `/builds/${id}.tar`,
        `/builds/${id}.tar.zst`,
      ]) {
        const response = await get(path)
        assert.equal(response.status, 403, path)
        const { code, hint } = (await response.json()) as { code: string; hint?: string }
        assert.equal(code, 'ACCESS_DENIED')
        assert.equal(hint?.includes('rsync -a rsync://USER@SERVER/build-locked') ?? false, id === 'locked')
      }
    }
  })

  test('what a module hides is hidden here as well', async () => {
    assert.equal(await (await get('/builds/hidden/root/open')).text(), 'open\n')
    for (const path of ['root/keys/secret', 'root/keys/', 'root/keys', 'contents'])
      assert.equal((await get(`/builds/hidden/${path}`)).status, 404, path)
    for (const path of ['/builds/hidden.tar', '/builds/hidden/manifest.json', '/builds/hidden/root/']) {
      const text = await (await get(path)).text()
      assert.match(text, /open/, path)
      assert.doesNotMatch(text, /secret|keys/, path)
    }
  })

  test('a build that is not held is fetched, and the client told to come again', async () => {
    await mirror.nginx.stop()
    await mirror.startNginx('600k')
    const first = await get('/builds/slow/root/file-0')
    assert.equal(first.status, 503)
    assert.ok(Number(first.headers.get('retry-after')) > 0)
    const place = mirror.place()
    const curl = [
      '-sS',
      '--fail',
      '--retry',
      '30',
      '--retry-delay',
      '1',
      '-o',
      place,
      `${base}/builds/slow/root/file-0`,
    ]
    const { code, stderr } = await run('curl', curl)
    assert.equal(code, 0, stderr)
    assert.equal(readFileSync(place).length, 1_000_000)
    assert.equal((await get('/builds/nothing-of-that-name/root/')).status, 404)
    assert.equal(mirror.requestsFor('slow').length, 1)
  })

  test('a file that has rotted is broken off, not handed out', async () => {
    const needle = randomBytes(7, 1_000_000).subarray(0, 64)
    for (const file of packsOf(mirror.data)) {
      const bytes = readFileSync(file)
      const at = bytes.indexOf(needle)
      if (at < 0) continue
      bytes[at + 500_000]! ^= 1
      writeFileSync(file, bytes)
    }
    // A server that was just started has nothing of it in memory.
    await upserv.stop()
    upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config: mirror.path('upserv.toml') })
    base = httpUrlOf(upserv)
    await assert.rejects(bytesOf(await get('/builds/1/root/big')))
    await upserv.process.waitForOutput('stderr', /"msg":"download failed"/)
  })
})

test('who takes nothing of a download is hung up on', async () => {
  await using mirror = new Mirror()
  const tree = new SpecWriter()
  tree.directory('')
  // More than the buffers of both ends take.
  tree.file('zeros', Buffer.alloc(64 * 2 ** 20))
  await mirror.publish('1', tree.spec)
  await mirror.startNginx()
  writeFileSync(mirror.path('upserv.toml'), '[rsync]\nidle_timeout = 1\n')
  const upserv = await mirror.startUpserv({ http: '127.0.0.1:0', config: mirror.path('upserv.toml') })
  assert.equal((await upserv.cli(['fetch', '1'])).code, 0)
  const socket = connect(Number(new URL(httpUrlOf(upserv)).port), '127.0.0.1')
  socket.on('error', () => {})
  socket.pause()
  socket.write('GET /builds/1.tar HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await upserv.process.waitForOutput('stderr', /"msg":"download (broke off|failed)"/)
  assert.equal((await upserv.cli(['remove', '1'])).code, 0)
  socket.destroy()
  await upserv.stop()
})

function packsOf(data: string): string[] {
  const directory = join(data, 'packs')
  return readdirSync(directory)
    .filter((name) => name.endsWith('.pack'))
    .map((name) => join(directory, name))
}
