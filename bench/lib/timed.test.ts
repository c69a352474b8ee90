import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'
import { parseReport, timed } from './timed.ts'

test('the report of GNU time, also of a program that failed', () => {
  const expected = { cpu: 2, maxRss: 3 << 20 }
  assert.deepEqual(parseReport('1.50 0.50 3072\n'), expected)
  assert.deepEqual(parseReport('Command exited with non-zero status 3\n1.50 0.50 3072\n'), expected)
})

test('what a child used is counted', { skip: !existsSync('/usr/bin/time') && 'needs GNU time' }, async () => {
  const burn = 'sh -c "i=0; while [ \\$i -lt 200000 ]; do i=\\$((i+1)); done"; exit 3'
  const { code, cpu, maxRss } = await timed('sh', ['-c', burn], {})
  assert.equal(code, 3)
  assert.ok(cpu >= 0.03, `${cpu} s`)
  assert.ok(maxRss > 100_000, `${maxRss} bytes`)
})
