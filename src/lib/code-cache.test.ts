import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { temporaryDirectory } from '../../test/support/trees.ts'

/** A process that keeps its code and loads a module: what it printed. */
function load(parent: string): string {
  const script = `
    import { keepCompiledCode } from ${JSON.stringify(import.meta.resolve('./code-cache.ts'))}
    keepCompiledCode(${JSON.stringify(join(parent, 'code'))}, ${JSON.stringify(parent)})
    console.log((await import(${JSON.stringify(join(parent, 'module.ts'))})).answer)`
  const env = { ...process.env, NODE_COMPILE_CACHE: '' }
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    env,
    encoding: 'utf8',
  }).trim()
}

function setUp(t: TestContext): string {
  const directory = temporaryDirectory()
  t.after(() => directory.remove())
  const parent = join(directory.path, 'data')
  mkdirSync(parent, { mode: 0o750 })
  writeFileSync(join(parent, 'module.ts'), 'export const answer: number = 42\n')
  return parent
}

function kept(parent: string): string[] {
  const all = readdirSync(join(parent, 'code'), { recursive: true, withFileTypes: true })
  return all.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name))
}

test('code is kept, and what is torn or rotten, or of another source, is not run', (t) => {
  const parent = setUp(t)
  assert.equal(load(parent), '42')
  const files = kept(parent)
  assert.ok(files.length > 0)
  for (const [n, file] of files.entries()) {
    if (n % 2 === 0) truncateSync(file, 100)
    else writeFileSync(file, 'x'.repeat(200), { flag: 'r+' })
  }
  assert.equal(load(parent), '42')
  writeFileSync(join(parent, 'module.ts'), 'export const answer: number = 43\n')
  assert.equal(load(parent), '43')
})

test('what others could have put there is not run', (t) => {
  const parent = setUp(t)
  chmodSync(parent, 0o770)
  assert.equal(load(parent), '42')
  assert.ok(!existsSync(join(parent, 'code')), 'a directory that its group may write to')
  chmodSync(parent, 0o750)
  if (process.getuid!() !== 0) return
  chownSync(parent, 65534, 65534)
  assert.equal(load(parent), '42')
  assert.ok(!existsSync(join(parent, 'code')), "somebody else's directory")
})
