/**
 * Whatever bytes a TarReader is given, only an ArchiveError comes out of it, and a sink never gets more or
 * less content than the entry said. Archives are mutated with their checksums put right, so that damage
 * gets past the first check.
 */
import { test } from 'node:test'
import { TarReader } from '../../src/archive/tar.ts'
import { ArchiveError } from '../../src/errors.ts'
import { fc } from '../support/property.ts'
import { rounds, seedOfRun } from '../support/random.ts'
import {
  base256,
  END_MARKER,
  GNU_MAGIC,
  paxMember,
  RecordingSink,
  tarMember,
  withChecksum,
} from '../support/tar-builder.ts'

/** Set to repeat a failure. */
const SEED = seedOfRun()
/** In a round. */
const RUNS = 3000
/** A mutation may ask for terabytes of zeros: the sink says no, as real ones do. */
const MAX_ENTRY_BYTES = 1e6

class ModestSink extends RecordingSink {
  override entry(entry: Parameters<RecordingSink['entry']>[0]): void {
    if (entry.size > MAX_ENTRY_BYTES) throw new ArchiveError('larger than this sink takes')
    super.entry(entry)
  }
}

const sparseMap = Buffer.concat([Buffer.from('2\n0\n3\n100\n2\n'), Buffer.alloc(500), Buffer.from('abcde')])
/** Each kind of member, as blocks: what is mutated is put together anew from these. */
const MEMBERS: readonly Buffer[] = [
  tarMember({ name: 'dir/', type: '5' }),
  tarMember({ name: 'dir/file', userName: 'root', groupName: 'root' }, 'hello'),
  tarMember({ name: 'v7', type: '\0', magic: '' }, 'x'.repeat(700)),
  tarMember({ name: 'link', type: '1', linkName: 'dir/file' }),
  tarMember({ name: 'symlink', type: '2', linkName: '../x' }),
  tarMember({ name: 'tty', type: '3', major: 4, minor: base256(64n, 8) }),
  tarMember({ name: '././@LongLink', type: 'L', magic: GNU_MAGIC }, `${'n'.repeat(200)}\0`),
  tarMember({ name: '././@LongLink', type: 'K', magic: GNU_MAGIC }, `${'t'.repeat(200)}\0`),
  tarMember({ name: 'sparse', type: 'S', magic: GNU_MAGIC, mtime: base256(-5n, 12) }, 'abc'),
  paxMember([
    ['path', 'a/b'],
    ['mtime', '-1.5'],
    ['SCHILY.xattr.user.x', '\0\n1 ='],
  ]),
  paxMember([['uname', 'all']], 'g'),
  paxMember([
    ['GNU.sparse.map', '0,3,100,2'],
    ['GNU.sparse.size', '200'],
  ]),
  paxMember([
    ['GNU.sparse.major', '1'],
    ['GNU.sparse.name', 's'],
    ['GNU.sparse.realsize', '200'],
  ]),
  tarMember({ name: 'sparse' }, 'abcde'),
  tarMember({ name: 'sparse' }, sparseMap),
  Buffer.alloc(512),
  END_MARKER,
]

/** Bytes that mean something in a header or a record, more often than chance would have it. */
const byte = fc.oneof(
  fc.integer({ min: 0, max: 255 }),
  fc.constantFrom(0, 0x20, 0x2f, 0x30, 0x37, 0x80, 0xff),
)

const archives = fc
  .record({
    members: fc.array(fc.constantFrom(...MEMBERS), { minLength: 1, maxLength: 8 }),
    damage: fc.array(fc.record({ at: fc.nat(), byte }), { maxLength: 6 }),
    fixChecksums: fc.boolean(),
    cut: fc.option(fc.nat(), { freq: 3, nil: undefined }),
    complete: fc.boolean(),
  })
  .map(({ members, damage, fixChecksums, cut, complete }) => {
    const bytes = Buffer.concat(complete ? [...members, END_MARKER] : members)
    const changed = new Set<number>()
    for (const { at, byte } of damage) {
      bytes[at % bytes.length] = byte
      changed.add(Math.floor((at % bytes.length) / 512))
    }
    // A data block gets a checksum too, which is only more damage.
    if (fixChecksums)
      for (const block of changed) withChecksum(bytes.subarray(block * 512, block * 512 + 512))
    return cut === undefined ? bytes : bytes.subarray(0, cut % bytes.length)
  })

function check(bytes: Uint8Array, chunkBytes: number): string {
  const sink = new ModestSink()
  const reader = new TarReader(sink)
  try {
    for (let at = 0; at < bytes.length; at += chunkBytes) reader.write(bytes.subarray(at, at + chunkBytes))
    reader.end()
  } catch (error) {
    if (error instanceof ArchiveError) return error.message
    throw error
  }
  return `${sink.result().length} members`
}

test('mutated archives: members or an ArchiveError, the same however they are cut into chunks', (t) => {
  t.diagnostic(`FUZZ_SEED=${SEED}`)
  const outcomes = new Set<string>()
  const property = fc.property(archives, fc.integer({ min: 1, max: 1500 }), (bytes, chunkBytes) => {
    const whole = check(bytes, bytes.length || 1)
    const inChunks = check(bytes, chunkBytes)
    if (whole !== inChunks) throw new Error(`whole: ${whole}; in chunks: ${inChunks}`)
    outcomes.add(whole.replace(/".*"|\d+/g, '_'))
  })
  let cases = 0
  for (const seed of rounds(SEED)) {
    fc.assert(property, { seed, numRuns: RUNS })
    cases += RUNS
  }
  t.diagnostic(`${cases} cases, ${outcomes.size} kinds of outcome`)
  if (outcomes.size < 15) throw new Error(`only ${outcomes.size} kinds of outcome: it sees nothing`)
})

test('any bytes: an ArchiveError', () => {
  const property = fc.property(fc.uint8Array({ maxLength: 3000 }), (bytes) => {
    const outcome = check(bytes, bytes.length || 1)
    if (outcome.endsWith('members')) throw new Error(`random bytes made ${outcome}`)
  })
  fc.assert(property, { seed: SEED, numRuns: RUNS / 10 })
})
