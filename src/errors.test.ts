import assert from 'node:assert/strict'
import { test } from 'node:test'
import { RelayedError, reportError, SourceError } from './errors.ts'

test('a report has what lies behind an error, each cause on its own line of one, and keeps it on the way', () => {
  const system = Object.assign(new Error(''), { code: 'ECONNREFUSED' })
  const tool = new Error('xz: bad\n\x1b[2Jsecond line', { cause: system })
  const error = new SourceError('it is damaged', { hint: 'Try later.', cause: tool })
  const report = reportError(error)
  assert.deepEqual(report, {
    code: 'SOURCE_FAILED',
    message: 'it is damaged',
    hint: 'Try later.',
    detail: 'xz: bad\\n\\x1b[2Jsecond line; because: ECONNREFUSED',
  })
  assert.deepEqual(reportError(new RelayedError(structuredClone(report))), report)
  assert.equal(reportError(new SourceError('alone')).detail, undefined)
})

test('causes without end, and long ones, are cut', () => {
  const round = new Error('x'.repeat(100_000))
  round.cause = round
  const { detail } = reportError(round)
  assert.ok(detail!.length < 10_000, `${detail!.length} characters`)
})
