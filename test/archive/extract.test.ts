/** A program of the operator's that reads what nobody else does: run as it is, watched, and ended. */
import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { buildsOnDisk, Mirror, randomTree } from '../support/mirror.ts'
import type { Upserv } from '../support/upserv.ts'

/** A server whose one source has its archives, reversed, read by this script. */
async function withExtractor(mirror: Mirror, script: string, keys = ''): Promise<Upserv> {
  await mirror.publish('1', randomTree(1, 5, 20_000), { suffix: 'tar' })
  const [extractor, config] = [mirror.path('extract build.sh'), mirror.path('upserv.toml')]
  writeFileSync(extractor, `#!/bin/sh\n${script}\n`)
  chmodSync(extractor, 0o755)
  writeFileSync(
    config,
    `[[source]]\nname = "odd"\nurl = "file://${mirror.path('www')}/{build}"\n${keys.replace('EXTRACTOR', extractor)}\n`,
  )
  const env = keys.includes('EXTRACTOR') ? {} : { EXTRACT_BUILD: extractor }
  return await mirror.startUpserv({ config, sources: [], env })
}

const KEYS = 'extract = ["EXTRACTOR", "$(touch /tmp/never); *", "{file}"]'

test('an archive comes on standard input, by EXTRACT_BUILD', async () => {
  await using mirror = new Mirror()
  const upserv = await withExtractor(mirror, 'test "$UPSERV_BUILD" = 1 && exec cat')
  await mirror.assertServes(upserv, '1')
})

test('an archive comes as a file, and no shell looks at the arguments', async () => {
  await using mirror = new Mirror()
  const upserv = await withExtractor(mirror, `test "$1" = '$(touch /tmp/never); *' && exec cat "$2"`, KEYS)
  await mirror.assertServes(upserv, '1')
})

const FAILURES = [
  { what: 'fails', script: 'echo "cannot read this" >&2; exit 3', error: /ended with 3: cannot read this/ },
  { what: 'makes half a tar', script: 'head -c 30000', error: /ends in the middle of/ },
  { what: 'makes no tar', script: 'echo hello', error: /@ERROR: .*/ },
  { what: 'is killed', script: 'kill -9 $$', error: /ended with SIGKILL/ },
  {
    what: 'takes too long, with what it started',
    script: 'sleep 600 & sleep 600',
    error: /took longer than 1 s/,
  },
]
for (const { what, script, error } of FAILURES)
  test(`one that ${what}: nothing of it`, async () => {
    await using mirror = new Mirror()
    const upserv = await withExtractor(mirror, script, 'extract = "EXTRACTOR"\nextract_timeout = 1')
    const refused = await mirror.sync(upserv, '1', 5)
    assert.match(refused.stderr + refused.stdout, error)
    assert.deepEqual(buildsOnDisk(mirror.data), [])
    assert.deepEqual(mirror.incoming(), [])
  })

test('one that is not there', async () => {
  await using mirror = new Mirror()
  const upserv = await withExtractor(mirror, '', 'extract = "/nonexistent/extractor"')
  const refused = await mirror.sync(upserv, '1', 5)
  assert.match(refused.stderr + refused.stdout, /extractor \/nonexistent\/extractor cannot be run \(ENOENT\)/)
})
