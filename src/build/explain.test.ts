import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { SessionRecord } from '../history/session-record.ts'
import { type Circumstances, hintsFor } from './explain.ts'

const RECORD: SessionRecord = {
  ...{ id: 1, began: '2026-01-01T00:00:00.000Z', ended: '2026-01-01T00:00:05.000Z' },
  ...{
    address: '192.0.2.1',
    port: 4000,
    device: '',
    tls: false,
    user: '',
    module: 'build-802',
    build: '802',
  },
  ...{ paths: 'root/', options: '-logDtprze.iLsfxCIvu', protocol: 31, codec: 'zstd', digest: 'xxh128' },
  ...{ outcome: 'done', code: '', reason: '', state: 'closed', ms: 5000, waitedMs: { build: 0, line: 0 } },
  ...{ stateMs: {}, bytesIn: 1, bytesOut: 2, entries: 3, listedBytes: 4, files: 5, newFiles: 0, newBytes: 0 },
  ...{ matchedBytes: 90e6, literalBytes: 10e6, searched: 1, prepared: 2, reused: 3, costliest: [] },
}

const CASES: {
  name: string
  record?: Partial<SessionRecord>
  known?: Partial<Circumstances>
  says: string[]
}[] = [
  { name: 'nothing to say', says: ['fine'] },
  { name: 'a first sync', record: { newFiles: 5, newBytes: 10e6, matchedBytes: 0 }, says: ['first-sync'] },
  { name: 'half of it new', record: { newFiles: 1, newBytes: 6e6 }, says: ['renamed-files'] },
  { name: 'little new', record: { newFiles: 1, newBytes: 1e5, literalBytes: 1.5e5 }, says: ['fine'] },
  { name: 'equal mtimes', known: { uniformMtime: 1 }, says: ['uniform-mtime'] },
  {
    name: 'equal mtimes and -c',
    known: { uniformMtime: 1 },
    record: { options: '-logDtprcze.iLsfxCIvu' },
    says: ['fine'],
  },
  {
    name: 'equal mtimes and --checksum',
    known: { uniformMtime: 1 },
    record: { options: '-r --checksum' },
    says: ['fine'],
  },
  {
    name: 'a C among the capabilities is no option',
    known: { uniformMtime: 1 },
    record: { options: '-re.cW' },
    says: ['uniform-mtime'],
  },
  { name: 'whole files', record: { options: '-rWe.i' }, says: ['whole-file'] },
  { name: 'nothing in common', record: { matchedBytes: 0 }, says: ['nothing-shared'] },
  { name: 'an old basis', known: { previousBuild: '788', buildsBetween: 14 }, says: ['old-basis'] },
  { name: 'the build before', known: { previousBuild: '801', buildsBetween: 1 }, says: ['fine'] },
  { name: 'not compressed', record: { codec: 'none' }, says: ['not-compressed'] },
  {
    name: 'waits',
    record: { waitedMs: { build: 60_000, line: 60_000 } },
    says: ['waited-for-build', 'waited-in-line'],
  },
  { name: 'a no-op', record: { files: 0, matchedBytes: 0, literalBytes: 0 }, says: ['nothing-new'] },
  { name: 'gone', record: { outcome: 'lost', code: 'PEER_GONE', state: 'transfer' }, says: ['client-left'] },
  {
    name: 'refused',
    record: { outcome: 'refused', code: 'ACCESS_DENIED', files: 0, entries: 0 },
    known: { uniformMtime: 1 },
    says: ['access-denied'],
  },
  {
    name: 'busy',
    record: { outcome: 'refused', code: 'SERVER_BUSY', files: 0, entries: 0 },
    says: ['server-busy'],
  },
  {
    name: 'no such build',
    record: { outcome: 'refused', code: 'BUILD_UNKNOWN', files: 0, entries: 0 },
    says: ['no-such-build'],
  },
]

for (const { name, record, known, says } of CASES) {
  test(`hints: ${name}`, () => {
    const circumstances = { uniformMtime: null, previousBuild: null, buildsBetween: 0, ...known }
    const hints = hintsFor({ ...RECORD, ...record }, circumstances)
    assert.deepEqual(
      hints.map(({ code }) => code),
      says,
    )
    for (const { text } of hints) assert.match(text, /^[A-Z0-9].*\.$/s)
  })
}
