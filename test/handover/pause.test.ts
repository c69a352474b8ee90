/** A server that is about to give its data directory away, and can't: it goes on as before. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { loadConfig } from '../../src/config/config.ts'
import { createLogger } from '../../src/lib/log.ts'
import { Upserv } from '../../src/server.ts'
import { makeScratch } from '../support/scratch.ts'
import { publishBuild } from '../support/trees.ts'

const { signal } = new AbortController()

async function setUp(t: TestContext): Promise<Upserv> {
  const scratch = makeScratch('pause')
  const config = join(scratch.path, 'upserv.toml')
  writeFileSync(config, `[[source]]\nname = "stick"\nurl = "file://${scratch.path}/{build}"\n`)
  const log = createLogger()
  log.level = 'silent'
  const upserv = await Upserv.open(loadConfig({ config, data: join(scratch.path, 'data') }, {}), log)
  t.after(async () => {
    await upserv.close()
    scratch[Symbol.dispose]()
  })
  await publishBuild(upserv.store, '1', [{ path: 'file', content: '1' }])
  return upserv
}

const STEPS: { name: string; fail: (upserv: Upserv, mock: TestContext['mock']) => void }[] = [
  { name: 'fetches', fail: ({ fetches }, mock) => failAfter(mock, fetches, 'close') },
  { name: 'verification', fail: ({ verifier }, mock) => failAfter(mock, verifier, 'close') },
  { name: 'changes of the store', fail: ({ store }, mock) => failInstead(mock, store, 'pause') },
  { name: 'packs', fail: ({ store }, mock) => failInstead(mock, store, 'keepOpen') },
]

const fail = async (): Promise<never> => {
  throw new Error('no')
}

function failInstead<K extends string>(
  mock: TestContext['mock'],
  part: { [name in K]: (...args: never[]) => unknown },
  step: K,
): void {
  mock.method(part, step as never, fail as never, { times: 1 })
}

function failAfter<K extends string>(
  mock: TestContext['mock'],
  part: { [name in K]: () => Promise<unknown> },
  step: K,
): void {
  const begun = part[step].bind(part)
  mock.method(part, step as never, (() => begun().then(fail)) as never, { times: 1 })
}

for (const step of STEPS)
  test(`what fails with ${step.name} is undone`, async (t) => {
    const upserv = await setUp(t)
    step.fail(upserv, t.mock)
    await assert.rejects(upserv.pause(), { message: 'no' })

    const { operations, store } = upserv
    // It is asked for, and not told to come back later.
    await assert.rejects(
      operations.fetch('9', () => {}, signal),
      { code: 'BUILD_NOT_PUBLISHED' },
    )
    await operations.verify('1', { repair: true }, () => {}, signal)
    await publishBuild(store, '2', [{ path: 'file', content: '2' }])
    await operations.remove('1')
    const { changes } = await operations.changes(10)
    assert.deepEqual(
      changes.map(({ what, result }) => `${what} ${result}`),
      ['remove done', 'verify done', 'fetch failed'],
    )
  })
