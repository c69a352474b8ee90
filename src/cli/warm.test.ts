import assert from 'node:assert/strict'
import { test } from 'node:test'
import { notEnough } from './warm.ts'

test('what helps where there is no room for what was to be prepared', () => {
  const bytes = notEnough('bytes', 8e6)
  assert.equal(bytes.message, 'what is derived may take 8 MB, which is not enough')
  assert.match(bytes.hint!, /^Raise `cache`/)
  const records = notEnough('records', 8e6)
  assert.equal(records.message, 'of what is derived some 5 million records are kept, which are not enough')
  assert.match(records.hint!, /--from/)
  assert.doesNotMatch(records.hint!, /`cache`/)
})
