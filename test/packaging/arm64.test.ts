/**
 * The Debian package for arm64, run by an emulator with Debian's libraries for it: what it brings is for that machine,
 * and works. Slow, and so not among what `script/test` installs programs for: script/arm64 does.
 */
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { VERSION } from '../../src/version.ts'
import { Mirror, randomTree } from '../support/mirror.ts'
import { copyCheckout, pack, whyNoDeb } from '../support/packages.ts'
import { type RunResult, run, ServerProcess } from '../support/processes.ts'

const PATIENCE_MS = 300_000
/** Debian's packages for cross compiling lay them there. */
const LIBRARIES = '/usr/aarch64-linux-gnu'
const EMULATOR = 'qemu-aarch64-static'

async function whyNotHere(): Promise<string | false> {
  for (const [name, debianPackage] of [
    [EMULATOR, 'qemu-user-static'],
    ['aarch64-linux-gnu-strip', 'binutils-aarch64-linux-gnu'],
  ] as const) {
    if ((await findProgram(name)) === undefined) return `needs ${name}: apt-get install ${debianPackage}`
  }
  if (!existsSync(join(LIBRARIES, 'lib/libatomic.so.1'))) return 'needs libraries for arm64: script/arm64'
  return await whyNoDeb()
}

describe('the Debian package for arm64', { skip: await whyNotHere(), timeout: 4 * PATIENCE_MS }, () => {
  let mirror: Mirror
  let program: string[]
  const upserv = async (...args: string[]): Promise<RunResult> =>
    await run(EMULATOR, [...program, ...args], { timeoutMs: PATIENCE_MS })

  before(async () => {
    mirror = new Mirror()
    copyCheckout(mirror.path('checkout'))
    const { deb } = await pack(mirror.path('checkout'), mirror.path('out'), ['--arch', 'arm64', 'deb'])
    const root = mirror.path('root')
    mkdirSync(root)
    const { code, stderr } = await run('dpkg-deb', ['--extract', deb, root], { timeoutMs: PATIENCE_MS })
    assert.equal(code, 0, stderr)
    const installed = join(root, 'usr/lib/upserv')
    program = ['-L', LIBRARIES, join(installed, 'node'), join(installed, 'dist/bin/upserv.js')]
  })
  after(async () => {
    await mirror?.[Symbol.asyncDispose]()
  })

  test('upserv --version', async () => {
    assert.deepEqual(await upserv('--version').then(({ code, stdout }) => [code, stdout]), [
      0,
      `${VERSION}\n`,
    ])
  })

  test('a server fetches, serves, finds differences, compresses, remembers; and doctor finds no fault', async () => {
    const tree = randomTree(1, 6, 200_000)
    await mirror.publish('1', tree, { sha256: true, suffix: 'tar.xz' })
    await mirror.publish('2', new Map([...tree, ...randomTree(2, 2, 200_000)]), { suffix: 'tar.zst' })
    await mirror.startNginx()
    const server = new ServerProcess(EMULATOR, [
      ...program,
      ...['serve', '--data', mirror.data, '--rsync', '127.0.0.1:0', '--http', '127.0.0.1:0'],
      ...['--source', `${mirror.nginx.url}/{build}`],
    ])
    try {
      const [, port, page] = await server.waitForOutput(
        'stdout',
        /^listening rsync:\/\/\S+:(\d+) (http:\S+)$/m,
        PATIENCE_MS,
      )
      const url = `rsync://127.0.0.1:${port}`
      const { client, place } = mirror.client({ url }, '1')
      await client.ends(0, PATIENCE_MS)
      mirror.assertTree('1', place)
      for (const [i, choice] of ['zstd', 'lz4', 'zlibx'].entries()) {
        // What is near what it should be, so that a search has something to find.
        const file = join(place, 'file-4')
        writeFileSync(file, Buffer.concat([Buffer.from(`changed ${i}`), readFileSync(file)]))
        const args = ['-aHzc', '--delete', '--stats', `--compress-choice=${choice}`]
        const update = await run('rsync', [...args, `${url}/build-2/root/`, place], {
          timeoutMs: PATIENCE_MS,
        })
        assert.equal(update.code, 0, update.stderr)
        assert.match(update.stdout, /^Matched data: [1-9]/m)
        mirror.assertTree('2', place)
      }
      assert.match(await (await fetch(`${page}/metrics`)).text(), /^upserv_builds_held 2$/m)
      const doctor = await upserv('doctor', '--data', mirror.data)
      assert.equal(doctor.code, 0, doctor.stdout)
      assert.doesNotMatch(doctor.stdout, /^problem/m)
      const history = await upserv('history', '--data', mirror.data, '--build', '2', '--json')
      const records = JSON.parse(history.stdout) as { outcome: string; codec: string }[]
      assert.deepEqual(
        records.map(({ outcome, codec }) => `${outcome} ${codec}`),
        ['done zlibx', 'done lz4', 'done zstd'],
      )
    } finally {
      assert.equal(await server.stop('SIGTERM', PATIENCE_MS), 0, server.stderr)
    }
  })
})
