/** A program of the operator's that reads what nobody else does: run as it is, watched, and ended. */
import assert from 'node:assert/strict'
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { setTimeout } from 'node:timers/promises'
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

const skip = process.platform !== 'linux' && 'needs /proc'

test('one that takes too long is ended with what it started, and nothing of it remains', {
  skip,
}, async () => {
  await using mirror = new Mirror()
  // No other process sleeps for as long. Confined programs have numbers of their own: we look from outside.
  const nap = `sleep ${600_000_000 + process.pid}`
  const script = `${nap} & sh -c '${nap}; :' & ${nap}`
  const upserv = await withExtractor(mirror, script, 'extract = "EXTRACTOR"\nextract_timeout = 2')
  const { client } = mirror.client(upserv, '1')
  const started = new Set<number>()
  while (started.size < 3) {
    for (const pid of pidsOf(nap)) started.add(pid)
    assert.ok(client.isRunning, client.output)
    await setTimeout(20)
  }
  await client.ends(5)
  assert.match(client.output, /took longer than 2 s/)
  for (let looks = 0; [...started, ...pidsOf(nap)].some((pid) => commandOf(pid) === nap); looks++) {
    assert.ok(looks < 500, `of ${[...started].join(', ')} there still are ${pidsOf(nap).join(', ')}`)
    await setTimeout(20)
  }
  assert.deepEqual(buildsOnDisk(mirror.data), [])
  assert.deepEqual(mirror.incoming(), [])
})

/** Processes that run just this. */
function pidsOf(command: string): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => commandOf(pid) === command)
}

/** What a process runs; undefined when it is gone, '' when it has ended and nobody has asked how. */
function commandOf(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ').trimEnd()
  } catch {
    return undefined
  }
}

test('one that is not there', async () => {
  await using mirror = new Mirror()
  const upserv = await withExtractor(mirror, '', 'extract = "/nonexistent/extractor"')
  const refused = await mirror.sync(upserv, '1', 5)
  assert.match(refused.stderr + refused.stdout, /extractor \/nonexistent\/extractor cannot be run \(ENOENT\)/)
})
