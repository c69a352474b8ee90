/**
 * `node run-tests.ts CONCURRENCY FILE...`: as `node --test`, which begins with the files in the order of their names. The
 * longest of all is among the last of them and would run on alone: here those that take minutes come first.
 */
import { run } from 'node:test'
import { spec } from 'node:test/reporters'

/** The longest first. What is not here takes less than a minute or two. */
const LONGEST = [
  'test/packaging/debian.test.ts',
  'test/contract/bad-input.test.ts',
  'test/packaging/release.test.ts',
]
/** For a file that hangs, not for slow machines. */
const MOST_MS = 15 * 60_000

const [concurrency, ...files] = process.argv.slice(2)
const first = LONGEST.filter((file) => files.includes(file))
const rest = files.filter((file) => !first.includes(file))
run({ files: [...first, ...rest], concurrency: Number(concurrency), timeout: MOST_MS })
  .on('test:fail', () => {
    process.exitCode = 1
  })
  .compose(spec)
  .pipe(process.stdout)
