/** A download from the web server that most mirrors run, which is killed in the middle of it. */
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import test from 'node:test'
import { findProgram } from '../../src/lib/find-program.ts'
import { Spool } from '../../src/source/spool.ts'
import { type Nginx, startNginx } from '../support/nginx.ts'
import { makeScratch } from '../support/scratch.ts'
import { content, download } from './source-upstream.ts'

const SIZE = 4 << 20
/** Slow enough that a download cannot be over before it is interrupted. */
const RATE = '2m'
const skip = (await findProgram('nginx')) === undefined && 'needs nginx: apt-get install nginx-light'

function mirror(archive: Uint8Array) {
  const scratch = makeScratch('nginx')
  const root = join(scratch.path, 'www')
  mkdirSync(root)
  writeFileSync(join(root, '802.tar'), archive)
  const start = (port?: number): Promise<Nginx> =>
    startNginx({ root, scratch: join(scratch.path, 'nginx'), limitRate: RATE, ...(port && { port }) })
  return { scratch, start }
}

/** The answers for the archive. Those for checksums that are not there are left out. */
function answers(nginx: Nginx): string[] {
  return nginx
    .requests()
    .filter(({ path }) => path === '/802.tar')
    .map(({ status, range }) => [status, range].filter(Boolean).join(' '))
}

test('nginx, killed and started again in the middle of a download', { skip, timeout: 60_000 }, async () => {
  const archive = content(SIZE)
  const { scratch, start } = mirror(archive)
  using _ = scratch
  let nginx = await start()
  const { port } = nginx
  let killedAt = 0
  try {
    const { bytes, error, events } = await download({
      config: { url: `${nginx.url}/{build}.tar` },
      limits: { stallMs: 10_000, headersMs: 10_000 },
      onBytes: async (count) => {
        if (killedAt > 0 || count < SIZE / 4) return
        killedAt = count
        await nginx.kill()
        nginx = await start(port)
      },
    })
    assert.equal(error, undefined)
    assert.ok(bytes.equals(archive), `${bytes.length} bytes of ${SIZE}, or others`)
    const resumed = events.find((event) => event.type === 'resumed')
    assert.ok(resumed && resumed.at >= killedAt && resumed.at < SIZE, JSON.stringify(events))
    await nginx.stop() // The log line of the last answer is written by then.
    assert.deepEqual(answers(nginx).slice(-1), [`206 bytes=${resumed.at}-`])
  } finally {
    await nginx.stop()
  }
})

test('nginx, and a second process that goes on from the spool', { skip, timeout: 60_000 }, async () => {
  const archive = content(SIZE)
  const { scratch, start } = mirror(archive)
  using _ = scratch
  const nginx = await start()
  const dir = join(scratch.path, 'incoming')
  const config = { url: `${nginx.url}/{build}.tar` }
  const limits = { stallMs: 10_000, headersMs: 10_000 }
  try {
    const first = new Spool(dir)
    const controller = new AbortController()
    await download({
      config,
      limits,
      spool: first,
      signal: controller.signal,
      onBytes: (count) => void (count > SIZE / 4 && controller.abort()),
    })
    const held = first.bytes
    await first.close()
    assert.ok(held > SIZE / 4 && held < SIZE)

    const second = new Spool(dir)
    const { bytes, error } = await download({ config, limits, spool: second })
    await second.close()
    assert.equal(error, undefined)
    assert.ok(bytes.equals(archive))
    await nginx.stop()
    assert.deepEqual(answers(nginx), ['200', `206 bytes=${held}-`])
  } finally {
    await nginx.stop()
  }
})
