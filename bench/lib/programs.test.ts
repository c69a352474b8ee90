/** What bench/ has to run: each does so on a fresh checkout, says how, and is on the page that lists them. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { run } from '../../test/support/processes.ts'

const ROOT = fileURLToPath(new URL('../..', import.meta.url))
const EXIT_USAGE = 64

const programs = readdirSync(`${ROOT}/bench`)
  .map((name) => `bench/${name}`)
  .filter((path) => statSync(`${ROOT}/${path}`).isFile() && (statSync(`${ROOT}/${path}`).mode & 0o111) !== 0)

test('there are programs', () => assert.ok(programs.length > 10, programs.join(' ')))

for (const program of programs) {
  test(program, async () => {
    const script = readFileSync(`${ROOT}/${program}`, 'utf8')
    // Without npm's packages there is no node yet.
    assert.match(script, /^\. script\/lib\/setup\.sh$/m)
    assert.ok(readFileSync(`${ROOT}/bench/README.md`, 'utf8').includes(program), 'bench/README.md lacks it')
    const help = await run(`${ROOT}/${program}`, ['--help'], { cwd: '/' })
    assert.deepEqual([help.code, help.stdout.includes(`Usage: ${program}`)], [0, true], help.stderr)
    // Past what compiles, which would be in the way of a measurement that is under way.
    const readsOptions = script.includes('usage()') ? [] : [process.execPath]
    const [first, ...args] = [...readsOptions, `${ROOT}/${program}${readsOptions.length > 0 ? '.ts' : ''}`]
    const wrong = await run(first!, [...args, '--no-such-option'], { cwd: '/' })
    assert.deepEqual(
      [wrong.code, wrong.stderr.includes(`Usage: ${program}`)],
      [EXIT_USAGE, true],
      wrong.stderr,
    )
  })
}
