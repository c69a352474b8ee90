/** The npm tarball: installed into an empty directory and run, by the oldest Node that it promises to run on. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { findProgram } from '../../src/lib/find-program.ts'
import { VERSION } from '../../src/version.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { copyCheckout, pack } from '../support/packages.ts'
import { run, ServerProcess } from '../support/processes.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'

/** package.json's engines, and the version of it that is tested; the newest is what all other tests run on. */
const OLDEST = '24.0.0'
const PATIENCE_MS = 300_000
const ROOT = fileURLToPath(new URL('../..', import.meta.url))
/** Kept from run to run: it is a download. */
const OLDEST_HOME = join(ROOT, 'tmp', `node-${OLDEST}`)

const skip = (await findProgram('npm')) === undefined && 'needs npm: apt-get install npm'

describe('the npm package', { skip, timeout: 2 * PATIENCE_MS }, () => {
  let scratch: Scratch
  let tarball: string
  let home: string
  let oldest: string

  const npm = async (cwd: string, ...args: string[]): Promise<void> => {
    const result = await run(
      'npm',
      [...args, '--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline'],
      {
        cwd,
        timeoutMs: PATIENCE_MS,
      },
    )
    assert.equal(result.code, 0, `${result.command}\n${result.stdout}${result.stderr}`)
  }

  before(async () => {
    scratch = makeScratch('npm')
    const checkout = join(scratch.path, 'checkout')
    copyCheckout(checkout)
    ;({ npm: tarball } = await pack(checkout, join(scratch.path, 'out'), ['npm']))
    const name = `node-${process.platform}-${process.arch}`
    oldest = join(OLDEST_HOME, 'node_modules', name, 'bin')
    if (!existsSync(join(oldest, 'node'))) {
      mkdirSync(OLDEST_HOME, { recursive: true })
      writeFileSync(join(OLDEST_HOME, 'package.json'), '{"private": true}\n')
      await npm(OLDEST_HOME, 'install', `${name}@${OLDEST}`)
    }
    home = join(scratch.path, 'empty')
    mkdirSync(home)
    writeFileSync(join(home, 'package.json'), '{"private": true}\n')
    await npm(home, 'install', '--omit=optional', tarball)
  })
  after(() => scratch?.[Symbol.dispose]())

  test('holds compiled JavaScript, types, notices and nothing else', () => {
    const files = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' }).trim().split('\n')
    const others = files.filter(
      (path) => !/^package\/dist\/(?:.*\.(?:js|d\.ts)$|src\/http\/page\/)/.test(path),
    )
    assert.deepEqual(others.sort(), ['package/LICENSE', 'package/README.md', 'package/package.json'])
    for (const path of files) assert.doesNotMatch(path, /\.test\./)
    const manifest = JSON.parse(readFileSync(join(home, 'node_modules/upserv/package.json'), 'utf8')) as {
      version: string
      engines: { node: string }
      scripts?: unknown
    }
    assert.equal(manifest.version, VERSION)
    assert.equal(manifest.engines.node, `>=${OLDEST.split('.')[0]}`)
    // Nothing runs when it is installed.
    assert.equal(manifest.scripts, undefined)
  })

  test(`runs by npx on Node ${OLDEST}, and serves a client`, async () => {
    await using mirror = new Mirror()
    await mirror.publish('1', randomTree(1, 5, 200_000))
    await mirror.startNginx()
    const env = { ...process.env, PATH: `${oldest}:${process.env.PATH}`, NODE_COMPILE_CACHE: '' }
    const version = await run(join(oldest, 'node'), ['--version'])
    assert.equal(version.stdout.trim(), `v${OLDEST}`)
    const server = new ServerProcess(
      'npx',
      [
        ...['--no-install', 'upserv', 'serve', '--data', mirror.data, '--rsync', '127.0.0.1:0'],
        ...['--http', '127.0.0.1:0', '--source', `${mirror.nginx.url}/{build}`],
      ],
      { cwd: home, env },
    )
    try {
      const [, port, page] = await server.waitForOutput(
        'stdout',
        /^listening rsync:\/\/\S+:(\d+) (http:\S+)$/m,
        PATIENCE_MS,
      )
      const url = `rsync://127.0.0.1:${port}`
      // From nothing, and then from an old state: whole files, compressed, and deltas in threads.
      for (const args of [[], ['-z'], ['-zc', '--compress-choice=zlib']]) {
        const { client, place } = mirror.client({ url }, '1', args)
        await client.ends(0, PATIENCE_MS)
        mirror.assertTree('1', place)
        const file = join(place, 'file-1')
        writeFileSync(file, Buffer.concat([Buffer.from('changed'), readFileSync(file)]))
        assert.equal(
          (await run('rsync', ['-aHc', '--no-whole-file', ...args, `${url}/build-1/root/`, place])).code,
          0,
        )
        mirror.assertTree('1', place)
      }
      await assertHttp(page!, '1', readFileSync(join(mirror.data, 'http.token'), 'utf8').trim())
      // As xinetd starts it, with this Node too.
      const listing = await run('npx', ['--no-install', 'upserv', 'list', '--data', mirror.data], {
        cwd: home,
        env,
      })
      assert.match(listing.stdout, /^1 /m)
    } finally {
      process.kill(serverPid(server.child.pid!), 'SIGTERM')
      await server.stop()
    }
  })

  test('its types are good for who uses it as a library', async () => {
    writeFileSync(
      join(home, 'use.ts'),
      "import { serve, type RunningServer } from 'upserv'\nexport const start: (...args: Parameters<typeof serve>) => Promise<RunningServer> = serve\n",
    )
    const tsc = join(ROOT, 'node_modules/.bin/tsc')
    const args = [
      '--noEmit',
      '--strict',
      '--module',
      'nodenext',
      '--target',
      'es2024',
      '--skipLibCheck',
      '--typeRoots',
      join(ROOT, 'node_modules/@types'),
      '--types',
      'node',
      'use.ts',
    ]
    const { code, stdout } = await run(tsc, args, { cwd: home, timeoutMs: PATIENCE_MS })
    assert.deepEqual([code, stdout], [0, ''])
  })
})

/** The page with all that it loads, metrics, a build as an archive, and which device got it. */
async function assertHttp(base: string, build: string, token: string): Promise<void> {
  const get = async (path: string): Promise<string> => {
    const response = await fetch(new URL(path, base), { headers: { authorization: `Bearer ${token}` } })
    assert.equal(response.status, 200, path)
    return await response.text()
  }
  const page = await get('/')
  const loaded = [...page.matchAll(/(?:src|href)="(\/?page\/[^"]+)"/g)].map(([, path]) => path!)
  assert.ok(loaded.length > 1, page)
  for (const path of loaded) await get(path)
  assert.match(await get('/metrics'), /^upserv_sessions_total\{outcome="done"\} [1-9]/m)
  assert.ok((await get(`/builds/${build}.tar.zst`)).length > 0)
  const { items } = JSON.parse(await get('/api/v1/history')) as { items: { build: string }[] }
  assert.equal(items[0]?.build, build)
}

/** npx runs a shell that runs node: a signal must reach the last one. */
function serverPid(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim()
  return children === '' ? pid : serverPid(Number(children.split(' ')[0]))
}
