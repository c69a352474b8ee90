import assert from 'node:assert/strict'
import { test } from 'node:test'
import { PeerError } from '../../errors.ts'
import { agreeOnProtocol, formatGreeting, parseGreeting } from './greeting.ts'

const DIGESTS = ['sha512', 'sha256', 'sha1', 'md5', 'md4']

/** docs/rsync-protocol.md, section 1.1. `speaks` is what both sides then speak. */
const GREETINGS = [
  { line: '@RSYNCD: 29', version: 29, sub: 0, digests: undefined, speaks: 29 },
  { line: '@RSYNCD: 29.0', version: 29, sub: 0, digests: undefined, speaks: 29 },
  { line: '@RSYNCD: 29.0 sha512 sha256 sha1 md5 md4', version: 29, sub: 0, digests: DIGESTS, speaks: 29 },
  { line: '@RSYNCD: 27', version: 27, sub: 0, digests: undefined, speaks: 27 },
  { line: '@RSYNCD: 28', version: 28, sub: 0, digests: undefined, speaks: 28 },
  { line: '@RSYNCD: 30.0', version: 30, sub: 0, digests: undefined, speaks: 30 },
  { line: '@RSYNCD: 31.0', version: 31, sub: 0, digests: undefined, speaks: 31 },
  { line: '@RSYNCD: 31.0 sha512 sha256 sha1 md5 md4', version: 31, sub: 0, digests: DIGESTS, speaks: 31 },
  { line: '@RSYNCD: 32.0 sha512 sha256 sha1 md5 md4', version: 32, sub: 0, digests: DIGESTS, speaks: 32 },
  { line: '@RSYNCD: 32.0 md5  md4 \r', version: 32, sub: 0, digests: ['md5', 'md4'], speaks: 32 },
  { line: '@RSYNCD: 40.0 md5', version: 40, sub: 0, digests: ['md5'], speaks: 32 },
  // A pre-release steps back only where both sides would speak its version.
  { line: '@RSYNCD: 32.14 md5', version: 32, sub: 14, digests: ['md5'], speaks: 31 },
  { line: '@RSYNCD: 31.14 md5', version: 31, sub: 14, digests: ['md5'], speaks: 31 },
  { line: '@RSYNCD: 30.5', version: 30, sub: 5, digests: undefined, speaks: 30 },
  { line: '@RSYNCD: 33.2 md5', version: 33, sub: 2, digests: ['md5'], speaks: 32 },
]
for (const { line, speaks, ...greeting } of GREETINGS) {
  test(`greeting: ${JSON.stringify(line)}`, () => {
    assert.deepEqual(parseGreeting(line), greeting)
    assert.equal(agreeOnProtocol(parseGreeting(line)), speaks)
  })
}

const NO_GREETINGS = [
  '',
  'GET / HTTP/1.1',
  'SSH-2.0-OpenSSH_9.2',
  '@RSYNCD:',
  '@RSYNCD: ',
  '@RSYNCD: x',
  '@RSYNCD: -1',
  '@RSYNCD: 31 md5', // from 30 on the subversion is mandatory
  '@RSYNCD: 30',
  '@RSYNCD: 31.',
  '@RSYNCD: 99999.0',
  '@RSYNCD: OK',
  ' @RSYNCD: 31.0',
  '@rsyncd: 31.0',
]
for (const line of NO_GREETINGS) {
  test(`no greeting: ${JSON.stringify(line)}`, () => assert.throws(() => parseGreeting(line), PeerError))
}

for (const version of [0, 20, 26]) {
  test(`protocol ${version} is too old`, () => {
    const greeting = { version, sub: 0, digests: undefined }
    assert.throws(() => agreeOnProtocol(greeting), /older than 27/)
  })
}

test('our own greeting is one that we would take', () => {
  const line = formatGreeting(['sha512', 'md5'])
  assert.equal(line, '@RSYNCD: 32.0 sha512 md5\n')
  assert.deepEqual(parseGreeting(line), { version: 32, sub: 0, digests: ['sha512', 'md5'] })
})
