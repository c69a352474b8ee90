/**
 * Do the tests of past-faults.test.ts see what they are for? Each fault is put into a copy of the sources, by the
 * table in weakenings.ts, and its test must fail there; in a copy without any, all of them pass.
 */
import assert from 'node:assert/strict'
import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { run } from '../support/processes.ts'
import { makeScratch, type Scratch } from '../support/scratch.ts'
import { FAULTS, type Fault, type Weakening } from './weakenings.ts'

const ROOT = resolve(import.meta.dirname, '../..')
const PATIENCE_MS = 240_000

function copyOfSources(weakening: Weakening): Scratch {
  const scratch = makeScratch('weakened')
  const into = (...names: string[]): string => join(scratch.path, ...names)
  mkdirSync(into('test'))
  for (const part of ['src', 'package.json', 'test/support', 'test/security', 'test/vectors'])
    cpSync(join(ROOT, part), into(part), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), into('node_modules'))
  for (const { file, from, to } of weakening) {
    const text = readFileSync(into(file), 'utf8')
    const pieces = text.split(from)
    assert.equal(
      pieces.length,
      2,
      `${file} holds this ${pieces.length - 1} times: the weakening has to come along\n${from}`,
    )
    writeFileSync(into(file), pieces.join(to))
  }
  return scratch
}

async function passedIn(
  { path }: Scratch,
  name?: string,
): Promise<{ passed: string[]; failed: string[]; said: string }> {
  const only = name === undefined ? [] : [`--test-name-pattern=^${name}$`]
  const args = ['--test', '--test-reporter=tap', ...only, join(path, 'test/security/past-faults.test.ts')]
  const { NODE_TEST_CONTEXT: _, ...env } = process.env
  const { stdout } = await run(process.execPath, args, { cwd: path, env, timeoutMs: PATIENCE_MS })
  const named = (verdict: string): string[] =>
    [...stdout.matchAll(new RegExp(`^${verdict} \\d+ - (.*?)(?: # .*)?$`, 'gm'))].map(([, found]) => found!)
  return { passed: named('ok'), failed: named('not ok'), said: stdout }
}

describe('past faults, in weakened copies', { concurrency: 2 }, () => {
  const faults: [string, Fault][] = Object.entries(FAULTS)

  test('in a copy without a fault all pass', async () => {
    using scratch = copyOfSources([])
    const { passed, failed, said } = await passedIn(scratch)
    assert.deepEqual(failed, [], said)
    assert.deepEqual(passed.sort(), faults.map(([, { name }]) => name).sort())
  })

  const weakened = faults.flatMap(([cve, { name, weakenings }]) =>
    Object.entries(weakenings).map(([where, weakening]) => ({ cve, name, where, weakening })),
  )
  for (const { cve, name, where, weakening } of weakened) {
    test(`${cve}: "${name}" fails where ${where}`, async () => {
      using scratch = copyOfSources(weakening)
      const { failed, said } = await passedIn(scratch, name)
      assert.deepEqual(failed, [name], said)
      // By what it asserts, and not because the copy does not even load.
      assert.match(said, /ERR_ASSERTION|testTimeoutFailure|not settled/, said)
      assert.doesNotMatch(said, /SyntaxError|ERR_MODULE_NOT_FOUND|ReferenceError/, said)
    })
  }
})
