/** Attacks by arguments: floods, names and patterns that cost time, options that would move our bounds. */
import assert from 'node:assert/strict'
import type { SessionReport } from '../../src/rsync/session.ts'
import {
  framed,
  HostileServer,
  item,
  NO_FILTERS,
  nul,
  start,
  sumHead,
  testAttacks,
  text,
} from '../support/hostile.ts'
import type { MemoryNode } from '../support/memory-tree.ts'

const GOODBYE = Buffer.from('0000000000', 'hex')
/** Asks for the whole of a file and says goodbye. */
const getLarge = (server: HostileServer, ...options: string[]): Buffer[] => [
  start('-r', ...options, '.', 'm/'),
  framed(NO_FILTERS, item(server.ndx('large')), sumHead(0, 0, 0), GOODBYE),
]
const served = ({ report }: { report: SessionReport }): void => {
  assert.equal(report.figures.literalBytes, 300_000)
}

testAttacks([
  {
    name: 'a flood of arguments',
    says: () => [text(`@RSYNCD: 31.0\nm\n${'x\0'.repeat(16_001)}`)],
    outcome: 'peer-error',
    error: /arguments/,
  },
  {
    name: 'a flood of secluded arguments',
    says: () => [text(`@RSYNCD: 31.0\nm\n${nul('--server', '--sender', '-rs')}${'x\0'.repeat(16_001)}`)],
    outcome: 'peer-error',
    error: /arguments/,
  },
  {
    name: 'an argument without end',
    says: () => [text('@RSYNCD: 31.0\nm\n'), Buffer.alloc(2e6, 'x')],
    outcome: 'peer-error',
    error: /arguments/,
  },
  {
    name: 'a long argument without end, byte by byte',
    // As many small packets as it likes: each must cost what it brings, not what came before.
    says: () => [
      text('@RSYNCD: 31.0\nm\n'),
      Buffer.alloc(1_000_000, 'x'),
      ...Array.from({ length: 20_000 }, () => text('x')),
    ],
    outcome: 'lost',
    passes: 100,
  },
  {
    name: 'the whole tree, 15,000 times',
    says: () => [start('-r', '.', ...Array.from({ length: 15_000 }, () => 'm/')), framed(NO_FILTERS)],
    outcome: 'refused',
    error: /names more than \d+ files/,
  },
  ...(['[', '[a-', '[[:alpha:]', '[a]', 'a*'] as const).map((piece) => ({
    name: `a megabyte of ${piece}`,
    says: () => [start('-r', '.', `m/${piece.repeat(1_000_000 / piece.length)}`), framed(NO_FILTERS)],
    outcome: 'done' as const,
    passes: 150,
  })),
  {
    name: 'patterns as long as they may be, thousands of them',
    says: () => [
      start('-r', '.', ...Array.from({ length: 240 }, () => `m/${'[['.repeat(2000)}*`)),
      framed(NO_FILTERS),
    ],
    outcome: 'done',
    passes: 250,
  },
  {
    name: 'half a million components',
    says: () => [start('-rR', '.', `m/${'a/'.repeat(500_000)}`), framed(NO_FILTERS)],
    outcome: 'done',
  },
  {
    name: 'deep paths with -R, through a loop of links',
    says: () => [
      start('-rR', '.', ...Array.from({ length: 1000 }, (_, i) => `m/${'loop/'.repeat(i % 60)}sub`)),
      framed(NO_FILTERS, Buffer.from('00'.repeat(5), 'hex')),
    ],
    outcome: 'done',
  },
  {
    name: 'a loop of links with -L',
    says: () => [start('-rL', '.', 'm/'), framed(NO_FILTERS, GOODBYE)],
    outcome: 'done',
    holds: ({ report }) => assert.ok(report.entries < 200, `${report.entries} entries`),
  },
  ...['--max-alloc=0', '--max-alloc=1', '--max-alloc=99999999T'].map((option) => ({
    name: `${option}: our bounds are ours`,
    // More sums than we take into memory: passed over, whatever the client allows us.
    says: (server: HostileServer) => [
      start('-r', option, '.', 'm/'),
      framed(
        NO_FILTERS,
        item(server.ndx('large')),
        sumHead(1_000_000, 700, 16),
        Buffer.alloc(20_000_000),
        GOODBYE,
      ),
    ],
    outcome: 'done' as const,
    holds: served,
  })),
  ...['--compress-threads=256', '--compress-threads=-1', '--compress-threads=x'].map((option) => ({
    name: `${option}: threads are ours`,
    says: (server: HostileServer) => getLarge(server, '-z', '--compress-choice=zstd', option),
    outcome: 'done' as const,
    holds: served,
  })),
  ...['zstd', 'zlib', 'zlibx', 'lz4'].flatMap((codec) =>
    ['2147483647', '-2147483648', '22', '0'].map((level) => ({
      name: `${codec} at level ${level}`,
      says: (server: HostileServer) =>
        getLarge(server, `--compress-choice=${codec}`, `--compress-level=${level}`),
      outcome: 'done' as const,
      passes: 100,
      holds: served,
    })),
  ),
  {
    name: 'a compression level that is no number',
    says: (server) => getLarge(server, '--compress-level=999999999999999999999'),
    outcome: 'refused',
    error: /--compress-level needs a whole number/,
  },
  {
    name: 'names without end in --files-from',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(70e6, `${'y'.repeat(1000)}\0`)),
    ],
    outcome: 'peer-error',
    error: /files-from/,
  },
  {
    name: 'short names in --files-from, millions of them',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(8e6, 'yy\0')),
    ],
    outcome: 'peer-error',
    error: /more than 2000000 names/,
  },
  {
    name: 'a name without end in --files-from',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(1e6, 'x')),
    ],
    outcome: 'peer-error',
    error: /files-from: a name of more than/,
  },
  {
    name: 'a long directory that names of --files-from are relative to',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', `m/${'x'.repeat(500_000)}/${'y'.repeat(400_000)}`),
      framed(NO_FILTERS, Buffer.alloc(2000, 'a\0')),
    ],
    outcome: 'peer-error',
    error: /a directory's name of more than/,
  },
  {
    name: 'names in directories that are not there, many and long',
    says: () => [
      start('-R', '--files-from=-', '--from0', '.', `m/${'x'.repeat(4000)}`),
      framed(
        NO_FILTERS,
        ...Array.from({ length: 40_000 }, (_, n) => Buffer.from(`n${n}/./y\0`)),
        Buffer.from('0000', 'hex'),
      ),
    ],
    outcome: 'refused',
    error: /names too much that is not there/,
  },
  {
    name: 'names in --files-from that are not there, a hundred thousand of them',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(200_000, 'n\0'), Buffer.from('00', 'hex')),
    ],
    outcome: 'done',
  },
  {
    name: 'long paths in --files-from, thousands of them',
    says: () => [
      start('-r', '--files-from=-', '--from0', '.', 'm/'),
      framed(NO_FILTERS, Buffer.alloc(10e6, `${'a/'.repeat(2000)}\0`), Buffer.from('0000', 'hex')),
    ],
    outcome: 'done',
  },
])

// ---------------------------------------------------------------------------------------------------
// A build with a file of many megabytes, which a client takes for a list of names.

const directory = (children: Record<string, MemoryNode>): MemoryNode => ({ mode: 0o040755, children })
const large = (data: Buffer): MemoryNode => ({ mode: 0o100644, data })
testAttacks(
  [
    {
      name: '--files-from a file of the build: a line of 60 MB',
      says: () => [start('-r', '--files-from=m/zeros', '--from0', '.', 'm/'), framed(NO_FILTERS)],
      outcome: 'refused',
      error: /a name of more than 4096 bytes/,
    },
    {
      name: '--files-from a file of the build: millions of names',
      says: () => [start('-r', '--files-from=m/short', '.', 'm/'), framed(NO_FILTERS)],
      outcome: 'refused',
      error: /more than 2000000 names/,
    },
  ],
  new HostileServer(
    {},
    directory({ zeros: large(Buffer.alloc(60e6, 'x')), short: large(Buffer.alloc(8e6, 'y\n')) }),
  ),
)

// ---------------------------------------------------------------------------------------------------
// Links that lead into each other: without a bound their number of ways is a factorial, and a pattern matches
// a power of them.

const link = (target: string): MemoryNode => ({ mode: 0o120777, target })
const ROOMS = Array.from({ length: 12 }, (_, i) => `room-${i}`)
/** Plain files in each room: they are counted like links and cost less to list. */
const FURNITURE = Object.fromEntries(
  Array.from({ length: 300 }, (_, i) => [`chair-${i}`, large(Buffer.of(1))]),
)
testAttacks(
  [
    {
      name: 'a maze of links with -L',
      says: () => [start('-rL', '.', 'm/'), framed(NO_FILTERS)],
      outcome: 'refused',
      error: /names more than \d+ files/,
    },
  ],
  new HostileServer(
    {},
    directory(
      Object.fromEntries(
        ROOMS.map((room) => [
          room,
          directory({
            ...Object.fromEntries(
              ROOMS.filter((other) => other !== room).map((other) => [`to-${other}`, link(`/${other}`)]),
            ),
            ...FURNITURE,
          }),
        ]),
      ),
    ),
  ),
)

const DOORS = Object.fromEntries(Array.from({ length: 520 }, (_, i) => [`door-${i}`, link('.')]))
testAttacks(
  [
    {
      name: 'a pattern that matches everything, three times over',
      says: () => [start('-r', '.', 'm/*/*/*'), framed(NO_FILTERS)],
      outcome: 'refused',
      error: /match more than \d+ names/,
    },
  ],
  new HostileServer({}, directory(DOORS)),
)
