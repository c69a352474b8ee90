import assert from 'node:assert/strict'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { findProgram } from './find-program.ts'

const scratch = mkdtempSync(join(tmpdir(), 'upserv-find-program-'))
const path = process.env.PATH
after(() => {
  process.env.PATH = path
  rmSync(scratch, { recursive: true })
})

test('the first executable file in PATH', async () => {
  const [first, second] = [join(scratch, 'first'), join(scratch, 'second')]
  mkdirSync(join(first, 'directory-in-first'), { recursive: true })
  mkdirSync(second)
  process.env.PATH = `${scratch}/missing::${first}:${second}`
  for (const name of ['directory-in-first', 'plain-in-first', 'in-both']) {
    writeFileSync(join(second, name), '')
    chmodSync(join(second, name), 0o755)
  }
  for (const name of ['plain-in-first', 'in-both']) writeFileSync(join(first, name), '')
  chmodSync(join(first, 'plain-in-first'), 0o644)
  chmodSync(join(first, 'in-both'), 0o755)

  assert.equal(await findProgram('directory-in-first'), join(second, 'directory-in-first'))
  assert.equal(await findProgram('in-both'), join(first, 'in-both'))
  assert.equal(await findProgram('upserv-no-such-program'), undefined)
})

test('what was missing is looked for again', async () => {
  process.env.PATH = scratch
  assert.equal(await findProgram('late'), undefined)
  writeFileSync(join(scratch, 'late'), '')
  chmodSync(join(scratch, 'late'), 0o755)
  assert.equal(await findProgram('late'), join(scratch, 'late'))
})
