/** docs/rsync-protocol.md, section 1.6. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ascii } from '../../lib/bytes.ts'
import { authResponse, chooseAuthDigest, isResponse, parseAuthAnswer } from './auth.ts'

for (const [digest, response] of [
  ['md5', '4fNEO9TH9uO3wJ1rXMrMyg'],
  ['sha1', 'Cj/V9IrZycyBUXJEUKQZXA0Pqp4'],
  ['sha256', 'NbAvo2Xt40mEJhVk2YnGnKymOBZ8a2hVe2iT/2NIi6w'],
  ['md4', '0DZdp/d0zECuLrc6Rik7dA'],
  ['md4-legacy', 'Sz071QJAzUpDZP5H0tAP9w'],
] as const) {
  test(`auth: the response by ${digest}`, () => {
    const expected = authResponse(digest, Buffer.from('sesame'), 'abcdefghijklmnop')
    assert.equal(expected, response)
    assert.ok(isResponse(ascii(response), expected))
    for (const wrong of [`${response}=`, response.slice(1), response.toLowerCase(), '', ` ${response}`]) {
      assert.ok(!isResponse(ascii(wrong), expected), wrong)
    }
  })
}

for (const { listed, protocol, digest } of [
  { listed: ['sha512', 'sha256', 'sha1', 'md5', 'md4'], protocol: 32, digest: 'sha512' },
  { listed: ['sha512', 'md5'], protocol: 27, digest: 'sha512' },
  { listed: ['blake3', 'sha256', 'md5'], protocol: 32, digest: 'sha256' },
  { listed: ['sha1', 'sha512'], protocol: 32, digest: 'sha1' }, // the client goes by its own order
  { listed: ['md4'], protocol: 27, digest: 'md4' },
  { listed: undefined, protocol: 31, digest: 'md5' },
  { listed: undefined, protocol: 30, digest: 'md5' },
  { listed: undefined, protocol: 29, digest: 'md4-legacy' },
  { listed: undefined, protocol: 27, digest: 'md4-legacy' },
]) {
  test(`auth: a client of protocol ${protocol} that lists ${listed?.join(' ') ?? 'nothing'} uses ${digest}`, () => {
    assert.equal(chooseAuthDigest(listed, protocol), digest)
  })
}

test('auth: no digest in common, nor one that only looks like ours', () => {
  for (const listed of [['blake3'], ['md4-legacy'], ['SHA512'], ['constructor']]) {
    assert.throws(() => chooseAuthDigest(listed, 32), /daemon-auth checksums: sha512 sha256 sha1 md5 md4/)
  }
})

test('auth: the answer', () => {
  assert.deepEqual(parseAuthAnswer(ascii('alice abc')), { user: 'alice', response: 'abc' })
  assert.deepEqual(parseAuthAnswer(ascii('alice abc d')), { user: 'alice', response: 'abc d' })
  assert.deepEqual(parseAuthAnswer(ascii('alice')), { user: 'alice', response: '' })
  assert.deepEqual(parseAuthAnswer(ascii(' abc')), { user: '', response: 'abc' })
  assert.deepEqual(parseAuthAnswer(ascii('')), { user: '', response: '' })
})
